"""Whatever comes in, nothing but an error of ours goes out, and nothing is read that is not there.

A thousand inputs of each kind; with `make fuzz-inputs` a hundred thousand, at random (the profile `inputs`).
"""

import copy
import json
import re
import tempfile
from pathlib import Path

import build
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdelta.configure.files import read_config
from prefdelta.configure.load import load_study
from prefdelta.endpoint.answers import Choice
from prefdelta.endpoint.store import Store
from prefdelta.generate import chat
from prefdelta.judge import rubric
from prefdelta.run.errors import ConfigError, PrefdeltaError
from prefdelta.study.dimensions import DIMENSIONS, LEVELS, PAPER, THE_FIVE
from prefdelta.study.models import Chat
from prefdelta.study.selections import POOLED, STRATA, Selection, SelectionError, draw_for_seed, parse
from prefdelta.tasks import find
from prefdelta.tasks.latex import last_boxed

fuzzed = settings(max_examples=10 * settings.default.max_examples)
FILES = sorted(build.CONFIG.parent.glob("*.yaml"))
CONFIGS = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in FILES]
LINES = [line for file in FILES for line in file.read_text(encoding="utf-8").splitlines(keepends=True)]


# Configurations

TEXTS = ["", "no", "policy", "a/b", "é", "\x00"]
NUMBERS = [True, False, 0, -1, 1.5, 10**30, float("inf"), float("nan")]
OTHERS = [
    None,
    [],
    {},
    [[]],
    {"": {}},
    {"kind": "url"},
    {"backend": "openai"},
    {"repo": "a"},
    {7: 7},
    ["full"],
    b"a",
    {1, 2},
    (1, 2),
]
ODD = [*TEXTS, *NUMBERS, *OTHERS]


def places(config, place=()):
    """Every place of a configuration, as the keys and numbers that lead there."""
    inner = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    return [place, *(found for key, value in inner for found in places(value, (*place, key)))]


PLACES = [places(config)[1:] for config in CONFIGS]


def at(config, place):
    for key in place:
        config = config[key]
    return config


@st.composite
def configs(draw):
    """A study that ships, with one to four of its values replaced, taken away, moved or renamed."""
    number = draw(st.integers(0, len(CONFIGS) - 1))
    config = copy.deepcopy(CONFIGS[number])
    for _ in range(draw(st.integers(1, 4))):
        place, other = (draw(st.sampled_from(PLACES[number])) for _ in range(2))
        change = draw(st.sampled_from(["replace", "take away", "copy", "rename"]))
        try:
            parent, key = at(config, place[:-1]), place[-1]
            if change == "replace":
                parent[key] = copy.deepcopy(draw(st.sampled_from(ODD) | st.text(max_size=5) | st.integers() | st.floats()))
            elif change == "take away":
                del parent[key]
            elif change == "copy":
                parent[key] = copy.deepcopy(at(config, other))
            else:
                parent[draw(st.sampled_from([*TEXTS, *NUMBERS, None]) | st.just(other[-1]))] = parent.pop(key)
        except (KeyError, IndexError, TypeError, AttributeError):
            pass  # an earlier change took the place away
    return config


@fuzzed
@given(configs())
def test_a_configuration_is_a_study_or_a_message(config):
    try:
        study = load_study(config)
    except PrefdeltaError as error:
        assert str(error)
    else:
        assert json.loads(study.model_dump_json(), parse_constant=pytest.fail)


PIECES = [
    *"\t\x00\ufeff{}[]|#'\"é",
    "*a",
    "&a ",
    "<<: *a",
    "!!set ",
    "!!bool ",
    "!!timestamp ",
    "!!int ",
    "!!omap ",
    "!!str ",
    "%",
    "---\n",
    ": ",
    "- ",
    "? ",
]


@st.composite
def files(draw):
    """The bytes of a few lines of a configuration, with pieces put in or cut out."""
    start = draw(st.integers(0, len(LINES) - 1))
    text = "".join(LINES[start : start + draw(st.integers(0, 6))])
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 5)))
        text = text[:begin] + draw(st.sampled_from(PIECES) | st.text(max_size=4)) + text[end:]
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "latin1"])), errors="replace")


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@fuzzed
@given(data=files())
def test_a_configuration_file_is_keys_or_a_message_with_its_name(data, folder):
    file = folder / "study.yaml"
    file.write_bytes(data)
    try:
        assert isinstance(read_config(file), dict)
    except ConfigError as error:
        assert str(file) in str(error)


# Selections


def written(selection):
    """The name of a selection."""
    within = f"-within_{selection.within}" if selection.within else ""
    band = f"{selection.least:.9g}to{selection.below:.9g}"
    return {
        "full": "full",
        "top": f"top{selection.k}-{selection.criterion}{within}",
        "bottom": f"bottom{selection.k}-{selection.criterion}{within}",
        "random": f"random{selection.k}{within}-draw{selection.draw}",
        "matched": f"matched{selection.k}-{selection.criterion}-draw{selection.draw}",
        "min": f"min{selection.least:g}-{selection.criterion}",
        "band": f"band{selection.k}-{selection.criterion}-{band.replace('-', 'minus')}-draw{selection.draw}",
    }.get(selection.kind, f"{selection.kind}-{selection.k}{f'-{selection.criterion}' if selection.criterion else ''}")


K, CRITERION, DRAW = st.integers(1, 10**7), st.sampled_from(THE_FIVE.criteria), st.integers(0, 10**4)
WITHIN, TENTHS = st.sampled_from([None, "length"]), st.integers(-40, 40)
SELECTIONS = (
    st.just(Selection("full"))
    | st.builds(Selection, st.sampled_from(["top", "bottom"]), k=K, criterion=CRITERION, within=WITHIN)
    | st.builds(Selection, st.just("random"), k=K, within=WITHIN, draw=DRAW)
    | st.builds(Selection, st.just("matched"), k=K, criterion=CRITERION, draw=DRAW)
    | st.builds(Selection, st.just("min"), least=st.integers(0, 40).map(lambda tenths: tenths / 10), criterion=CRITERION)
    | st.builds(Selection, st.sampled_from([*STRATA, "flipped", "right_over_wrong"]), k=K)
    | st.builds(Selection, st.sampled_from(POOLED[:-1]), k=K, criterion=CRITERION)
    | st.tuples(TENTHS, TENTHS, K, CRITERION, DRAW)
    .filter(lambda of: of[0] < of[1])
    .map(lambda of: Selection("band", of[2], of[3], draw=of[4], least=of[0] / 10, below=of[1] / 10))
)


@fuzzed
@given(SELECTIONS)
def test_a_selection_is_read_as_it_was_written(selection):
    assert parse(written(selection)) == selection


@fuzzed
@given(
    SELECTIONS.map(written),
    st.integers(0, 40),
    st.integers(0, 3),
    st.sampled_from(["-", "0", "9" * 5000, "\u0663", "\n", ".", "", "_"]),
)
def test_a_damaged_selection_is_one_or_a_message(name, place, cut, piece):
    name = name[:place] + piece + name[place + cut :]
    try:
        found = parse(draw_for_seed(name, 1))
    except SelectionError as error:
        assert "The forms are" in str(error)
    else:
        assert parse(written(found)) == found
        assert found.k is None or found.k > 0


# Ratings

VALUES = st.sampled_from([*LEVELS, 0, 6, -1, 2.0, 10**400, "5", None, True, [1], {"factuality": 1}])
OBJECTS = st.dictionaries(st.sampled_from([*DIMENSIONS, "other"]), VALUES).map(json.dumps)
WHOLE = st.sampled_from(LEVELS).map(lambda level: json.dumps(dict.fromkeys(DIMENSIONS, level)))
MARKS = ["<think>", "</think>", "<thinking>", "</thinking>", "[THINK]", "[/THINK]", "<|channel|>", "final<|message|>"]
MARKS += [
    "<reason>",
    "</reason>",
    "<|plan|>",
    "<b",
    "<answer>",
    "</s>",
    "**",
    "But",
    ", ",
    *'{}[]"\\,:5é\n ',
    "```json\n",
    "```",
    '{"factuality": 5',
    '"factuality": 3,',
    "Rating: 5",
]


def texts(*parts, most=8):
    """Texts that are put together from ``parts``, some of them repeated many times."""
    times = st.sampled_from([1, 1, 1, 1, 1, 1, 1, 1, 2, 300])
    return st.lists(st.builds(str.__mul__, st.one_of(*parts), times), max_size=most).map("".join)


ANSWERS = WHOLE | texts(WHOLE, OBJECTS, st.sampled_from(MARKS), st.sampled_from(MARKS), st.text(max_size=5))
FINISHED = st.sampled_from(["stop", "stop", "stop", "length", None])


@fuzzed
@given(st.none() | ANSWERS, ANSWERS, FINISHED, texts(WHOLE, st.text(max_size=9), most=2))
def test_a_rating_stands_in_the_response_of_a_whole_answer(content, reasoning, finish_reason, trace):
    ratings, reason = rubric.parse(
        PAPER, DIMENSIONS, Choice(content=content, reasoning=reasoning, finish_reason=finish_reason), trace
    )
    assert ratings.keys() == {*DIMENSIONS}
    assert (reason is None) == (None not in ratings.values())
    for name, level in ratings.items():
        if level is not None:
            assert finish_reason != "length" and level in LEVELS and type(level) is int
            # What stands before a thought that the answer itself opens is no thought.
            opens = re.search(r"<think>|<thinking>|<reason>|\[THINK\]", content)
            response = content if opens else re.split(r"</think>|</thinking>|</reason>|\[/THINK\]", content)[-1]
            assert re.search(rf'"{name}"\s*:\s*{level}(?![\d.eE])', response)


# Answers of benchmarks

SIGNS = [
    "\\boxed",
    "\\boxed{",
    "\\frac{1}{2}",
    "\\text{",
    "\\sqrt",
    "(B)",
    "**Answer:** ",
    "answer is ",
    "The final answer is ",
    "or",
]
SIGNS += [*"{}$\\ACI%.\n\uff15 ", "1,000", "1\\,234", "1e3", "1e999999", "9^9^9^9", "x=5", "####"]
RESPONSES = texts(st.sampled_from(SIGNS), st.sampled_from(SIGNS), st.text(max_size=4))


@fuzzed
@given(RESPONSES)
def test_a_boxed_answer_stands_in_the_response(response):
    boxed = last_boxed(response)
    assert boxed is None or (boxed and boxed == boxed.strip() and all(part in response for part in boxed.split(", ")))


@fuzzed
@given(RESPONSES)
def test_a_choice_is_a_letter_of_the_response(response):
    letter = find("mmlu_pro").extract(response)
    assert letter is None or (letter in "ABCDEFGHIJ" and letter in response.upper())


@fuzzed
@given(RESPONSES)
def test_a_mathematical_answer_is_a_text_or_none(response):
    answer = find("math500").extract(response)
    assert answer is None or (isinstance(answer, str) and answer.strip())


# The store

REQUESTS = [{"messages": [{"role": "user", "content": f"é {number}"}], "seed": number} for number in range(3)]


def response(number):
    return {"choices": [{"message": {"content": f'{{"factuality": {number + 1}}} "quoted" \\ é'}}], "usage": {"total_tokens": 7}}


@pytest.fixture(scope="module")
def segment(folder):
    """A file of a store with three entries, and what it holds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFDELTA_STORE", str(folder / "store"))
        store = Store({"model": "m"})
        for number, request in enumerate(REQUESTS):
            store.put(store.key(request), json.dumps(request), response(number), 1.5)
        (file,) = store.folder.glob("*.jsonl")
        yield file, file.read_bytes()


DAMAGE = st.tuples(st.integers(0, 1200), st.sampled_from(["flip", "flip", "cut", "put", "truncate"]), st.integers(0, 400))


@fuzzed
@given(damages=st.lists(DAMAGE, min_size=1, max_size=3))
def test_a_damaged_entry_is_never_believed(damages, segment):
    file, whole = segment
    damaged = bytearray(whole)
    for place, change, size in damages:
        if change == "flip" and place < len(damaged):
            damaged[place] ^= 1 << size % 8
        elif change == "cut":
            del damaged[place : place + size]
        elif change == "put":
            damaged[place:place] = whole[:size]
        elif change == "truncate":
            del damaged[place:]
    file.write_bytes(damaged)
    store = Store({"model": "m"})
    for number, request in enumerate(REQUESTS):
        found = store.get(store.key(request))
        assert found is None or found == response(number)


# Chats

SPECIAL = ["<|begin|>", "<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHATTED = texts(st.sampled_from([*SPECIAL, "<think>", "</think>", "<|", "|>", "end"]), st.text(max_size=5))


@pytest.fixture(scope="module")
def tokenizer():
    return build.reasoning_tokenizer()


@fuzzed
@given(prompt=CHATTED, text=CHATTED, system=st.none() | CHATTED)
def test_text_never_becomes_a_control_token_and_a_trace_goes_on_from_its_prompt(prompt, text, system, tokenizer):
    conversation = Chat(system=system)

    def control(ids):
        return [number for number in ids if number in tokenizer.all_special_ids]

    (ids,) = chat.encode(tokenizer, [prompt], conversation)
    (plain,) = chat.encode(tokenizer, ["a"], Chat(system="a" if system else None))
    assert control(ids) == control(plain)
    ((whole, start),) = chat.tokenised(tokenizer, [prompt], [text], conversation)
    assert whole[:start] == ids
    assert control(whole[start:]) == [tokenizer.eos_token_id] == whole[-1:]
