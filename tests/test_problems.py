"""Problems of one's own: files of rows become prompts and right answers, and answers are graded by their type."""

import csv
import json
from pathlib import Path

import build
import polars as pl
import pytest

from prefdelta.configure.check import check
from prefdelta.configure.load import load_study
from prefdelta.data.dataset import DatasetError, load_split
from prefdelta.generate.prompts import make_items, make_prompts
from prefdelta.generate.settings import ItemsSettings, PromptsSettings
from prefdelta.plan import problems as plans
from prefdelta.plan.training import train_policy
from prefdelta.run.errors import ConfigError
from prefdelta.study.selections import SelectionError
from prefdelta.study.sources import OwnItems, Source
from prefdelta.tables.io import read_table
from prefdelta.tables.stages import Dropped, Prompts
from prefdelta.tasks import find, score_all, workers
from prefdelta.tasks.common import INSTRUCTION
from prefdelta.tasks.mmlu_pro import INSTRUCTION as WITH_LETTERS
from prefdelta.train.settings import PolicyRun

CASES = Path(__file__).parent / "cases" / "own_answers.csv"
RIGHT = {"yes": True, "no": False, "unknown": None}


def written(folder, name, rows):
    """``rows`` in a file of the format that ``name`` ends with."""
    path = folder / name
    if path.suffix in (".csv", ".tsv"):
        cells = [{key: json.dumps(cell) if isinstance(cell, list) else cell for key, cell in row.items()} for row in rows]
        pl.DataFrame(cells, infer_schema_length=None).write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".parquet":
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    else:
        texts = [json.dumps(row) for row in rows]
        path.write_text("\n".join(texts) if path.suffix == ".jsonl" else f"[{', '.join(texts)}]", encoding="utf-8")
    return str(path)


def own(folder, rows, name="own.jsonl", **keys):
    return OwnItems(repo=written(folder, name, rows), **{"answer_type": "math", **keys})


def made(source):
    """The rows of ``source`` as (prompt, what is right)."""
    return [(row["prompt"], json.loads(row["reference"])) for row in find("quiz").load(source)]


def sums(n, **columns):
    return [{"problem": f"What is {place} + {place}?", "answer": str(2 * place), **columns} for place in range(1, n + 1)]


# Answers


def test_answers_are_right_or_wrong_by_their_type():
    with CASES.open(encoding="utf-8", newline="") as file:
        cases = list(csv.DictReader(file))
    assert len(cases) >= 60
    golds = [json.dumps({"type": case["answer_type"], "answer": case["gold"], "tolerance": 1e-6}) for case in cases]
    grades = score_all("quiz", [case["response"].replace("\\n", "\n") for case in cases], golds, 2)
    found = [{**case, "right": correct} for case, (_, correct) in zip(cases, grades, strict=True)]
    assert [case for case, given in zip(found, cases, strict=True) if case["right"] is not RIGHT[given["right"]]] == []


def test_a_tolerance_is_a_share_of_the_right_number_and_its_ends_are_right():
    golds = [json.dumps({"type": "number", "answer": answer, "tolerance": 0.01}) for answer in ("200", "200", "0.3", "0", "0")]
    responses = [rf"\boxed{{{answer}}}" for answer in ("202", "197.9", "0.303", "0.01", "0.011")]
    assert [correct for _, correct in score_all("quiz", responses, golds, 1)] == [True, False, True, True, False]


def test_a_pattern_that_never_ends_is_ungraded_and_the_others_are_graded(monkeypatch, caplog):
    monkeypatch.setattr(workers, "SECONDS", (0.3, 0.5))
    golds = [json.dumps({"type": "regex", "answer": "(a|aa)+c"})] * 2
    grades = score_all("quiz", [rf"\boxed{{{'a' * 60}b}}", r"\boxed{aac}"], golds, 2)
    assert [correct for _, correct in grades] == [None, True]
    assert "1 of 2 answers could not be graded" in caplog.text


def test_what_is_stated_without_a_right_answer_is_kept():
    gold = json.dumps({"type": "none"})
    assert score_all("chat", ["One.\nTwo.", ""], [gold, gold], 1) == [("Two.", None), (None, None)]


# Files


@pytest.mark.parametrize("name", ["own.csv", "own.tsv", "own.json", "own.jsonl", "own.parquet"])
def test_every_format_gives_the_same_problems(tmp_path, name):
    rows = [
        {"q": 'Which "city", of\nFrance?', "options": ["Bonn", "Paris"], "key": "B", "nr": "007"},
        {"q": "Which is NA?", "options": ["NA", "None", "x"], "key": "A", "nr": "08"},
    ]
    columns = {"problem": "q", "choices": "options", "answer": "key", "id": "nr"}
    found = made(own(tmp_path, rows, name, answer_type="choice", columns=columns))
    assert found == [
        (
            f'Which "city", of\nFrance?\n\nA. Bonn\nB. Paris\n\n{WITH_LETTERS}',
            {"type": "choice", "answer": "B", "id": "007"},
        ),
        (f"Which is NA?\n\nA. NA\nB. None\nC. x\n\n{WITH_LETTERS}", {"type": "choice", "answer": "A", "id": "08"}),
    ]


def test_cells_of_a_csv_are_texts_and_a_file_that_is_none_is_told(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"\xef\xbb\xbfid,answer\n007,1.50\n,None\n")
    assert load_split(Source(repo=str(file))).to_list() == [{"id": "007", "answer": "1.50"}, {"id": None, "answer": "None"}]
    file.write_text("id,answer\n1,2,3\n")
    with pytest.raises(DatasetError, match=r"a\.csv can't be read: .*the first line has the columns' names, separated by ','"):
        load_split(Source(repo=str(file)))


def test_columns_have_their_own_names_where_none_is_given(tmp_path):
    assert made(own(tmp_path, sums(1, id=5))) == [
        (f"What is 1 + 1?\n\n{INSTRUCTION}", {"type": "math", "answer": "2", "id": "5"})
    ]


@pytest.mark.parametrize(
    ("columns", "kind", "words"),
    [
        (
            {"problem": "problm"},
            "math",
            "columns.problem: there is no column 'problm', but problem, answer (did you mean 'problem'?)",
        ),
        ({"id": "number"}, "math", "columns.id: there is no column 'number'"),
        ({}, "choice", "columns.choices: say which column it is: there is no column choices, but problem, answer"),
    ],
)
def test_a_column_that_is_missing_is_told_with_the_nearest_name(tmp_path, columns, kind, words):
    with pytest.raises(DatasetError) as error:
        made(own(tmp_path, sums(1), answer_type=kind, columns=columns))
    assert words in str(error.value)


def test_an_instruction_can_be_another_or_none(tmp_path):
    rows = sums(1)
    assert [made(own(tmp_path, rows, instruction=text))[0][0] for text in ("Short.", "")] == [
        "What is 1 + 1?\n\nShort.",
        "What is 1 + 1?",
    ]
    assert made(own(tmp_path, [{"problem": "Write a poem."}], answer_type="none"))[0] == ("Write a poem.", {"type": "none"})


def test_worked_examples_stand_before_each_problem_and_are_none(tmp_path, caplog):
    worked = [{"problem": "What is 1 + 1?", "answer": r"It is \boxed{2}."}, {"problem": "And 0?", "answer": r"\boxed{0}"}]
    examples = written(tmp_path, "worked.csv", worked)
    found = made(own(tmp_path, sums(30), examples=examples))
    before = "Problem: What is 1 + 1?\n\nAnswer: It is \\boxed{2}.\n\nProblem: And 0?\n\nAnswer: \\boxed{0}\n\n"
    assert found[0][0] == f"{before}Problem: What is 2 + 2?\n\n{INSTRUCTION}"
    assert len(found) == 29
    assert f"row 1 (its problem is one of {examples})" in caplog.text
    written(tmp_path, "worked.csv", [{"problem": "x", "answer": None}])
    with pytest.raises(DatasetError, match=r"worked\.csv, row 1: an example needs a problem and a worked answer"):
        made(own(tmp_path, sums(1), examples=examples))


def test_messages_are_one_turn_of_a_user(tmp_path):
    user, system = {"role": "user", "content": " Hi. "}, {"role": "system", "content": "Be brief."}
    source = own(tmp_path, [{"messages": [user], "answer": "1"}], instruction="")
    assert made(source)[0][0] == "Hi."
    for messages in ([system, user], [user, user], [], None, [{"role": "user", "content": None}]):
        source = own(tmp_path, [{"messages": [user], "answer": "1"}, {"messages": messages, "answer": "1"}])
        with pytest.raises(DatasetError, match=r"own\.jsonl, row 2: messages must be one turn of a user"):
            made(source)
    both = [{"problem": "No.", "messages": json.dumps([user]), "answer": "1"}]
    assert made(own(tmp_path, both, columns={"messages": "messages"}, instruction=""))[0][0] == "Hi."
    assert made(own(tmp_path, both, instruction=""))[0][0] == "No."


# Options


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        (["A", "b", "(C)"], "ABC"),
        ([0, 2, 1], "ACB"),
        ([3, 1, 2], "CAB"),
        (["red", "Green", " blue. "], "ABC"),
        ([1.0, 2.0, 3.0], "ABC"),
    ],
)
def test_an_option_is_named_by_letter_index_or_text(tmp_path, answers, right):
    rows = [{"problem": f"{n}?", "choices": ["red", "green", "blue"], "answer": answer} for n, answer in enumerate(answers)]
    found = made(own(tmp_path, rows, answer_type="choice"))
    assert "".join(gold["answer"] for _, gold in found) == right


def test_what_can_be_read_in_two_ways_must_be_stated(tmp_path):
    rows = [{"problem": f"{n}?", "choices": ["1", "2", "3"], "answer": answer} for n, answer in enumerate([1, 2])]
    with pytest.raises(DatasetError, match="can be read as index_from_0 and as index_from_1 and as text: set `answer_as`"):
        made(own(tmp_path, rows, answer_type="choice"))
    for stated, right in (("index_from_0", "BC"), ("index_from_1", "AB"), ("text", "AB")):
        found = made(own(tmp_path, rows, answer_type="choice", answer_as=stated))
        assert "".join(gold["answer"] for _, gold in found) == right
    with pytest.raises(DatasetError, match="answers such as 'x', 'x' are neither letters nor indices nor texts"):
        made(own(tmp_path, [row | {"answer": "x"} for row in rows], answer_type="choice"))


# Faults


@pytest.mark.parametrize(
    ("kind", "fault", "words"),
    [
        ("math", {"problem": " "}, "no problem"),
        ("math", {"answer": None}, "no answer"),
        ("math", {"id": "3"}, "its id '3' is that of row 3"),
        ("math", {"id": ""}, "no id"),
        ("math", {"problem": "1?", "answer": "7"}, "row 1 has another answer to the same problem"),
        ("number", {"answer": "seven"}, "its answer 'seven' is no number in digits"),
        ("text", {"answer": "?!"}, "nothing of its answer '?!' is compared"),
        ("choice", {"answer": "Z"}, "its answer 'Z' is none of its choices by letter"),
        ("choice", {"choices": '["one"]'}, "it has 1 choices, not 2 to 10"),
        ("choice", {"choices": "one, two"}, "its choices are no list of texts: 'one, two'"),
        ("choice", {"choices": '["one", ""]'}, "its choices are no list of texts"),
        ("choice", {"choices": None}, "its choices are no list of texts"),
    ],
)
def test_a_row_with_a_fault_is_left_out_and_named_and_many_are_an_error(tmp_path, caplog, kind, fault, words):
    right = {"choice": "A", "text": "one"}.get(kind, "1")
    rows = [{"problem": f"{n}?", "answer": right, "id": str(n), "choices": '["one", "two"]'} for n in range(1, 31)]
    rows[19] |= fault
    assert len(made(own(tmp_path, rows, answer_type=kind))) == 29
    assert f"row 20 ({words}" in caplog.text
    rows[20] |= fault
    rows[21] |= fault
    with pytest.raises(DatasetError, match=r"3 of 30 rows of .* can't be used: row 20 .*These are too many to leave out"):
        made(own(tmp_path, rows, answer_type=kind))


def test_an_answer_that_is_a_list_is_a_fault(tmp_path):
    with pytest.raises(DatasetError, match=r"row 1 \(its answer is a list, not a text or a number\)"):
        made(own(tmp_path, [{"problem": "x", "answer": [1, 2]}]))


def test_an_answer_that_is_no_pattern_is_refused(tmp_path):
    rows = [{"problem": f"{n}?", "answer": "a+"} for n in range(40)] + [{"problem": "x", "answer": "(a"}]
    with pytest.raises(DatasetError, match=r"own\.jsonl, row 41: the answer '\(a' is no pattern: missing \)"):
        made(own(tmp_path, rows, answer_type="regex"))


def test_a_problem_that_is_repeated_is_one(tmp_path, caplog):
    assert len(made(own(tmp_path, [*sums(3), *sums(4)]))) == 4
    assert "quiz: 3 rows repeat the problem of a row before them" in caplog.text


# Studies


TRAIN = {"repo": "train.csv", "answer_type": "number", "columns": {"problem": "q", "answer": "gold", "id": "nr"}, "n": 4}
QUIZ = {"repo": "quiz.jsonl", "answer_type": "choice", "columns": {"answer": "key"}, "samples": 2}
CHAT = {"repo": "chat.jsonl", "answer_type": "none", "n": 2}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files of these sources, in the folder in which tests run."""
    monkeypatch.chdir(tmp_path)
    train = [{"q": f"How many is {n} and {n}?", "gold": str(2 * n), "nr": f"t{n}"} for n in range(1, 7)]
    train += [{"q": "Which of all the colours is the deepest blue there is?", "gold": "1", "nr": "t7"}]
    written(tmp_path, "train.csv", train)
    quiz = [{"problem": "Which of all the colours is the deepest blue there is?", "choices": ["red", "blue"], "key": "B"}]
    written(tmp_path, "quiz.jsonl", [*quiz, {"problem": "Which is red?", "choices": ["red", "green"], "key": "A"}])
    written(tmp_path, "chat.jsonl", [{"messages": [{"role": "user", "content": f"Tell me {n}."}]} for n in "abc"])


def study(prompts=None, suites=None, **experiment):
    content = build.config(**experiment)
    content["prompts"] = prompts or {"train": TRAIN, "chat": CHAT}
    content["suites"] |= {"mine": suites or {"quiz": QUIZ}}
    return content


def test_own_problems_are_items_and_training_prompts_that_are_no_items(files, tmp_path):
    loaded = load_study(study())
    items_settings = plans.make_items(loaded, {"split": "mine"}).settings
    assert isinstance(items_settings, ItemsSettings)
    make_items([], tmp_path / "mine.parquet", settings=items_settings)
    mine = read_table(tmp_path / "mine.parquet", Prompts)
    assert mine.select("split", "task").unique().rows() == [("mine", "quiz")]
    assert len(mine) == 2
    settings = plans.make_prompts(loaded, {}).settings
    assert isinstance(settings, PromptsSettings)
    paths = tmp_path / "train.parquet", tmp_path / "dropped.parquet"
    make_prompts([tmp_path / "mine.parquet"], [], *paths, settings=settings)
    kept, dropped = read_table(paths[0], Prompts), read_table(paths[1], Dropped)
    assert dict(kept["task"].value_counts().iter_rows()) == {"train": 4, "chat": 2}
    assert dropped.select("reason", "item_task").rows() == [("overlap", "quiz")]
    ids = kept.filter(task="train").select(pl.col("answer").str.json_path_match("$.id")).to_series()
    assert set(ids) <= {f"t{n}" for n in range(1, 7)}
    assert len(set(ids)) == 4


def test_files_of_own_problems_are_inputs_and_what_grades_them_is_started(files, tmp_path):
    examples = written(tmp_path, "worked.csv", [{"q": "1", "gold": "1", "nr": 1}])
    loaded = load_study(study({"train": TRAIN | {"examples": examples}}))
    job = plans.make_prompts(loaded, {})
    assert {"train.csv", examples} <= set(job.files["data"])
    assert job.starts == ("prefdelta.tasks.own_problems",)
    assert plans.make_items(loaded, {"split": "mine"}).files["data"] == ["quiz.jsonl"]
    assert not plans.task_files(loaded)  # a right answer stands in the prompts


@pytest.mark.parametrize(
    ("prompts", "suites", "words"),
    [
        ({"opnr1": {"repo": "train.csv", "n": 4}}, None, "openr1, any other name with `answer_type` (did you mean"),
        ({"openr2": {"repo": "train.csv", "n": 4}}, None, "(did you mean 'openr1'?)"),
        ({"train": TRAIN | {"answer_type": "nmber"}}, None, "prompts.train.answer_type: Input should be 'math', 'number'"),
        ({"train": TRAIN | {"answer_type": "nmber"}}, None, "(did you mean 'number'?)"),
        ({"train": {key: TRAIN[key] for key in ("repo", "columns", "n")}}, None, "prompts.train.answer_type: Field required"),
        (
            {"train": TRAIN | {"repo": "trian.csv"}},
            None,
            "prompts.train.repo: there is no file trian.csv (did you mean 'train.csv'?)",
        ),
        ({"train": TRAIN | {"examples": "few.csv"}}, None, "prompts.train.examples: there is no file few.csv"),
        ({"train": TRAIN | {"samples": 2}}, None, "prompts.train.samples: unknown key"),
        ({"train": TRAIN | {"answer_as": "text"}}, None, "`answer_as` belongs to `answer_type: choice`; this is number"),
        ({"openr1": TRAIN}, None, "prompts.openr1: the name of a task with a reader of its own"),
        (None, {"gsm8k": QUIZ}, "suites.mine.gsm8k: the name of a task with a reader of its own"),
        (None, {"lm_eval:x": QUIZ}, "suites.mine.lm_eval:x: the name of a task with a reader of its own"),
        (None, {"quiz": {"repo": "quiz.jsonl"}}, "suites.mine: 'quiz' is unknown"),
        (None, {"quiz": QUIZ | {"answer_type": "none"}}, "suites.mine.quiz.answer_type: a suite needs right answers"),
    ],
)
def test_what_is_wrong_with_own_problems_is_told_before_any_job(files, prompts, suites, words):
    with pytest.raises(ConfigError) as error:
        load_study(study(prompts, suites))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": {"problem": "question"}}, "prompts.train.columns.problem: there is no column 'question', but q, gold, nr"),
        ({"columns": {"problem": "q", "answer": "godl"}}, "(did you mean 'gold'?) (train.csv)"),
        ({"columns": {"problem": "q"}}, "prompts.train.columns.answer: say which column it is: there is no column answer"),
        ({"repo": "broken.jsonl"}, "prompts.train.repo: broken.jsonl can't be read: "),
        ({"examples": "chat.jsonl"}, "prompts.train.columns.problem: there is no column 'q', but messages (chat.jsonl)"),
    ],
)
def test_check_looks_into_files(files, tmp_path, change, words):
    (tmp_path / "broken.jsonl").write_text("{")
    file = tmp_path / "study.json"
    file.write_text(json.dumps(study()))
    check([str(file)])
    file.write_text(json.dumps(study({"train": TRAIN | change})))
    with pytest.raises(ConfigError) as error:
        check([str(file)])
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["own.csv", "own.json", "own.jsonl", "own.parquet"])
def test_check_finds_the_columns_that_the_reader_finds(tmp_path, name):
    from prefdelta.configure.check import _header

    file = Path(written(tmp_path, name, [{"a": "1", "b": None}, {"a": "2", "b": "x"}]))
    assert _header(file) == load_split(Source(repo=str(file))).column_names == ["a", "b"]


# Without right answers


def test_what_needs_correctness_is_refused_where_nothing_is_known_to_be_right(files):
    chat = {"chat": CHAT}
    load_study(study(chat, figure="bars", selection=["full", "top1-overall", "random1"], versus=[]))
    for selection in ("both_correct-1", "matched1-overall", "right_over_wrong-1", "top1-overall-within_correctness"):
        with pytest.raises(ConfigError, match=rf"'{selection}.*' goes by which answers are right.*`answer_type: none` of chat"):
            load_study(study(chat, figure="bars", selection=["full", selection], versus=[]))
    for figure in ("ladder", "grid", "crossed"):
        with pytest.raises(ConfigError, match=rf"a {figure} is by the accuracies of generators.*choose bars"):
            load_study(study(chat, figure=figure, selection=["full", "top1-overall"], versus=[]))
    loaded = load_study(study(chat, figure="bars", selection=["full"], versus=[]))
    with pytest.raises(SelectionError, match="goes by which answers are right"):
        loaded.selection("both_wrong-1", "oracle")


def test_where_some_prompts_have_right_answers_selections_go_by_these(files):
    load_study(study(figure="bars", selection=["full", "both_correct-1"], versus=[]))


def test_of_prompts_without_right_answers_ungraded_ones_stop_no_training(files):
    words = {"policy": "policy", "method": "dpo", "judge": "oracle", "chosen": "rung1", "rejected": "rung0", "selection": "full"}
    for prompts, most in ((None, 1.0), ({"train": TRAIN}, 0.01)):
        loaded = load_study(study(prompts, figure="bars", selection=["full"], versus=[]))
        job = train_policy(loaded, {"study": loaded.study, **words, "seed": "0"})
        assert isinstance(job.run, PolicyRun)
        assert job.run.gates.ungraded == most
