"""Training problems, their decontamination and their traces, from files in OpenR1-Math-220k's schema with problems of our own."""

import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prefdelta import tasks
from prefdelta.data.contamination import decontaminate, normalised
from prefdelta.data.dataset import DatasetError
from prefdelta.generate.backend_dataset import complete
from prefdelta.generate.completions import GenerateError, Request
from prefdelta.generate.settings import DatasetSettings, GenerationRun
from prefdelta.study.run import ModelRun, RequestsRun
from prefdelta.study.sampling import Sampling
from prefdelta.study.sources import CorpusSource
from prefdelta.tables.io import rows_to_table
from prefdelta.tables.stages import Dropped, Prompts
from prefdelta.tasks.common import INSTRUCTION, ask

LISTS = {
    "is_reasoning_complete": pl.List(pl.Boolean),
    "generations": pl.List(pl.String),
    "correctness_math_verify": pl.List(pl.Boolean),
    "correctness_llama": pl.List(pl.Boolean),
    "finish_reasons": pl.List(pl.String),
}


def row(problem, answer="7", **changes):
    return {
        "problem": problem,
        "solution": "It is 7.",
        "answer": answer,
        "problem_type": "Algebra",
        "question_type": "math-word-problem",
        "source": "own",
        "uuid": str(random.random()),
        "is_reasoning_complete": [True, True],
        "generations": ["<think>\nfour and three\n</think>\n\nIt is \\boxed{7}.", "<think>\nfive\n</think>\n\n\\boxed{5}"],
        "correctness_math_verify": [True, False],
        "correctness_llama": None,
        "finish_reasons": ["stop", "stop"],
        "correctness_count": 1,
        "messages": [{"content": problem, "role": "user"}],
    } | changes


def source(folder, *rows):
    pl.DataFrame(rows, schema_overrides=LISTS).write_parquet(folder / "train.parquet")
    return CorpusSource(repo=str(folder / "train.parquet"), n=9, min_characters=20, max_characters=200)


SUM = "What is the sum of 4 and 3, if both are digits?"


def faults(folder, *rows):
    """The reasons why problems are left out, and the problems that are kept."""
    kept, left_out = tasks.problems("openr1", source(folder, *rows))
    return [entry["reason"] for entry in left_out], [entry["prompt"].removesuffix(f"\n\n{INSTRUCTION}") for entry in kept]


@pytest.mark.parametrize(
    "problem, answer, changes, reason",
    [
        (SUM, "7", {}, None),
        (SUM, "\\frac{1}{2}", {}, None),
        (SUM, "x = 2, y = 3", {}, None),
        (SUM, "10 \\text{ cm}", {}, None),
        (SUM, "-12345678901234567890", {}, None),
        (SUM, "C", {"question_type": "MCQ"}, None),
        (SUM, "\\text{(B)}", {"question_type": "MCQ"}, None),
        (SUM, "7", {"question_type": None}, None),
        (SUM, "7", {"question_type": "proof"}, "proof"),
        (SUM, "Proof", {}, "proof"),
        (SUM, "notfound", {}, "proof"),
        (SUM, "", {}, "no answer"),
        (SUM, None, {}, "no answer"),
        (SUM, "12", {"question_type": "MCQ"}, "multiple choice"),
        ("What is 4 + 3?", "7", {}, "length"),
        (None, "7", {}, "length"),
        (SUM + " " + "Think. " * 30, "7", {}, "length"),
        (SUM + " ![](https://own.example/a.png)", "7", {}, "picture"),
        (SUM, "no solution", {}, "not verifiable"),
        (SUM, "B. 5", {}, "not verifiable"),
        (SUM, "\\frac{", {}, "not verifiable"),
    ],
)
def test_a_problem_is_left_out_for_a_reason(problem, answer, changes, reason, tmp_path):
    assert faults(tmp_path, row(problem, answer, **changes)) == (([], [problem]) if reason is None else ([reason], []))


def test_of_problems_with_the_same_words_the_first_fit_one_is_kept(tmp_path):
    spaced = "What is the sum of $4$  and $3$ , if both are digits ?"
    reasons, kept = faults(tmp_path, row(SUM, "no solution"), row(spaced), row(SUM), row(SUM.replace("4", "5")))
    assert reasons == ["not verifiable", "duplicate"]
    assert kept == [spaced, SUM.replace("4", "5")]


def test_a_problem_has_the_id_that_it_would_have_as_an_item(tmp_path):
    rows = [row(SUM), row(SUM.replace("4", "5"), "8")]
    kept, left_out = tasks.problems("openr1", source(tmp_path, *rows))
    items = tasks.items("openr1", source(tmp_path, *rows), "train")
    for item in items:
        item.pop("split")
    assert sorted(kept, key=lambda entry: entry["prompt_id"]) == items
    assert left_out == []


def test_what_is_left_out_is_a_table(tmp_path):
    left_out = tasks.problems("openr1", source(tmp_path, row(SUM), row(SUM)))[1]
    assert rows_to_table(left_out, Dropped).height == 1


def prompts(*texts, task="train"):
    rows = [
        {"prompt_id": f"{task}{i}", "split": "s", "task": task, "prompt": text, "answer": "7"} for i, text in enumerate(texts)
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(Prompts.to_schema().columns, pl.String))


def dropped(training, items, n=8):
    kept, out = decontaminate(prompts(*training), items, n=n)
    assert sorted([*kept["prompt_id"], *out["prompt_id"]]) == [f"train{i}" for i in range(len(training))]
    assert rows_to_table(out.rows(named=True), Dropped).select(out.columns).equals(out)
    assert kept.columns == list(Prompts.to_schema().columns)
    return [
        (prompt_id.removeprefix("train"), reason, item)
        for prompt_id, reason, item in out.select("prompt_id", "reason", "item_id").rows()
    ]


TRAIN = "A red train leaves the old town at noon and meets a blue one after three hours."
BOAT = "Nine sailors row their green boat across a lake while the wind slowly turns it around."


def test_equal_problems_are_dropped_however_they_are_written():
    training = [
        "Compute $\\dfrac{3}{4} \\cdot x^2$ .",
        "compute \\( \\frac{3}{4}\\times x ^ {2} \\)",
        "Compute $\\frac{3}{4} - x^2$.",
    ]
    assert dropped(training, prompts("Compute \\frac{3}{4}*x^{2}", task="e")) == [("0", "equal", "e0"), ("1", "equal", "e0")]


def test_a_shared_run_of_words_is_an_overlap_with_the_item_that_shares_most():
    words = TRAIN.split()
    items = prompts(BOAT, "Once " + " ".join(words[:9]), " ".join(words[:12]) + " again", task="e")
    training = [
        f"Listen: {TRAIN} When was it?",
        " ".join(words[:7]) + " row their boat",
        BOAT.upper(),
        "Nothing alike here at all, is there, my friend?",
    ]
    assert dropped(training, items) == [("0", "overlap", "e2"), ("2", "equal", "e0")]
    assert decontaminate(prompts(*training), items, n=8)[1]["overlap"].to_list() == [5, 9]
    assert [place for place, *_ in dropped(training, items, n=7)] == ["0", "1", "2"]


def test_an_item_of_few_words_can_only_be_equal():
    items = prompts("Find 3 + 4.", task="e")
    assert dropped(["Now find 3 + 4.", "find $3+4$"], items) == [("1", "equal", "e0")]


def test_the_instructions_of_a_task_are_no_overlap():
    training = [ask(text) for text in (TRAIN, BOAT)]
    items = prompts(
        *(f"Answer the question about trains below as well as you can.\n\n{text}\n\n{INSTRUCTION}" for text in (BOAT, "Why?")),
        task="e",
    )
    assert dropped(training, items) == [("1", "equal", "e0")]


def test_one_prompt_alone_has_no_instructions():
    assert dropped([TRAIN], prompts(TRAIN, task="e")) == [("0", "equal", "e0")]
    assert dropped([TRAIN, TRAIN], prompts(TRAIN, TRAIN, task="e")) == [("0", "equal", "e0"), ("1", "equal", "e0")]


def test_nothing_is_dropped_where_nothing_is_evaluated():
    assert dropped([TRAIN], prompts(task="e")) == []


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text):
    once = normalised(text)
    assert once == " ".join(once.split())
    assert normalised(once) == once


@pytest.mark.parametrize(
    "one, other",
    [
        ("x+1 = 2", "x-1 = 2"),
        ("1.5 m", "15 m"),
        ("a < b", "a > b"),
        ("\\le 3", "\\ge 3"),
        ("x^2", "x*2"),
    ],
)
def test_what_means_something_else_stays_different(one, other):
    assert normalised(one) != normalised(other)


@pytest.mark.parametrize(
    "one, other",
    [
        ("1,000 apples", "1000 apples"),
        ("$\\left( x \\right)$", "(x)"),
        ("5\u2212x", "5 - x"),
        ("\\text{area}\\ of $ABC$", "Area of ABC."),
        ("a \\leq b", "a \u2264 b"),
        ("\uff11 apple", "1 apple"),
    ],
)
def test_what_means_the_same_is_the_same(one, other):
    assert normalised(one) == normalised(other)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with a tokenizer that counts words."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    return folder


SETTINGS = {
    "problem": "problem",
    "generations": "generations",
    "complete": "is_reasoning_complete",
    "correct": ["correctness_math_verify", "correctness_llama"],
    "think": ("<think>", "</think>"),
}
RUN = GenerationRun(batch_size=1, model=ModelRun(), requests=RequestsRun())


def traces(folder, checkpoint, rows, *problems, samples=2, **changes):
    sampling = Sampling(samples=samples, temperature=0.6, max_new_tokens=8)
    requests = [Request(str(number), ask(problem), sampling) for number, problem in enumerate(problems)]
    settings = DatasetSettings(**{"repo": source(folder, *rows).repo} | SETTINGS | changes)
    return complete(requests, settings=settings, run=RUN, checkpoint=checkpoint, seed=0, threads=1, log_file=Path("log"))


def test_traces_are_found_by_their_problem_and_taken_apart(tmp_path, checkpoint):
    other = SUM.replace("4", "5")
    several = traces(tmp_path, checkpoint, [row("Something else entirely"), row(f" {SUM}\n")], other, SUM)
    assert several[0] == []
    first, second = several[1]
    assert (first.reasoning, first.response, first.correct) == ("four and three", "It is \\boxed{7}.", True)
    assert first.text == "<think>\nfour and three\n</think>\n\nIt is \\boxed{7}."
    assert (first.n_tokens, first.finish_reason) == (8 + 1, "stop")
    assert (second.response, second.correct) == ("\\boxed{5}", False)


def test_only_whole_traces_are_taken_the_first_ones_first(tmp_path, checkpoint):
    texts = [f"<think>\n{n}\n</think>\n\n{n}" for n in range(4)]
    rows = [row(SUM, generations=texts, is_reasoning_complete=[True, False, True, True], correctness_math_verify=[True] * 4)]
    assert [one.response for one in traces(tmp_path, checkpoint, rows, SUM)[0]] == ["0", "2"]
    assert [one.response for one in traces(tmp_path, checkpoint, rows, SUM, samples=9)[0]] == ["0", "2", "3"]
    assert [one.response for one in traces(tmp_path, checkpoint, rows, SUM, complete=None)[0]] == ["0", "1"]


def test_rows_with_the_same_problem_are_one(tmp_path, checkpoint):
    assert [len(several) for several in traces(tmp_path, checkpoint, [row(SUM), row(SUM)], SUM, samples=3)] == [3]


@pytest.mark.parametrize(
    "first, second, correct",
    [
        ([True, False], None, [True, False]),
        (None, [False, True], [False, True]),
        ([True], [False, False], [True, False]),
        ([None, False], [True, True], [True, False]),
        (None, None, [None, None]),
        ([], [True], [True, None]),
    ],
)
def test_the_first_column_with_a_mark_says_what_is_correct(first, second, correct, tmp_path, checkpoint):
    rows = [row(SUM, correctness_math_verify=first, correctness_llama=second)]
    assert [one.correct for one in traces(tmp_path, checkpoint, rows, SUM)[0]] == correct


@pytest.mark.parametrize("texts, marks", [(None, None), ([], []), (["a"], None), (["", None], [True, True])])
def test_a_row_without_whole_traces_has_none(texts, marks, tmp_path, checkpoint):
    assert traces(tmp_path, checkpoint, [row(SUM, generations=texts, is_reasoning_complete=marks)], SUM) == [[]]


def test_what_is_missing_is_named(tmp_path, checkpoint):
    with pytest.raises(GenerateError, match=r"no column answers; it has .*generations"):
        traces(tmp_path, checkpoint, [row(SUM)], SUM, generations="answers")
    with pytest.raises(GenerateError, match="tokenizer"):
        traces(tmp_path, None, [row(SUM)], SUM)
    with pytest.raises(DatasetError):
        traces(tmp_path, checkpoint, [row(SUM)], SUM, repo=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("item", "same", "other"),
    [
        ("一个篮子里有三个苹果和五个梨", "小明说一个篮子里有三个苹果和四个梨。", "天上有七颗星星地上有两条河流。"),
        ("りんごが三つとなしが五つあります", "かごにりんごが三つとなしが四つあります", "空には星が七つ見えています"),
        ("มีแอปเปิลสามผลในตะกร้า", "แม่บอกว่ามีแอปเปิลสามผลบนโต๊ะ", "วันนี้อากาศดีมาก"),
    ],
)
def test_scripts_without_spaces_are_compared_by_their_characters(item, same, other):
    kept, out = decontaminate(prompts(same, other), prompts(item), n=8)
    assert out["prompt"].to_list() == [same] and kept["prompt"].to_list() == [other]
