"""Benchmarks on files of the public sets' schemas, with items made up here."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import lm_eval.tasks
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdelta import tasks
from prefdelta.data.dataset import DatasetError, load_rows
from prefdelta.run.provenance import code
from prefdelta.study.sources import BenchmarkSource, Source
from prefdelta.tables.io import read_table, write_table
from prefdelta.tables.stages import Prompts
from prefdelta.tasks import TaskError, find, items, score_all

LM_EVAL = Path(lm_eval.tasks.__file__).parent


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def parquet(folder, rows, split="test", config="data", features=None):
    """One split of a data set as the hub stores it: ``{config}/{split}-00000-of-00001.parquet``."""
    (folder / config).mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / config / f"{split}-00000-of-00001.parquet")
    return BenchmarkSource(repo=str(folder), split=split)


def but(source, **changes):
    """``source`` with ``changes``."""
    return source.model_copy(update=changes)


def configs(folder, names, splits):
    """The card by which the hub tells the configurations of a data set."""
    lines = ["---", "configs:"]
    for name in names:
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [line for split in splits for line in (f"  - split: {split}", f"    path: {name}/{split}-*")]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def math500(folder):
    rows = [
        {
            "problem": f"Compute $\\frac{{{n}}}{{4}}$.",
            "solution": f"It is $\\boxed{{\\frac{{{n}}}{{4}}}}$.",
            "answer": f"\\frac{{{n}}}{{4}}",
            "subject": "Prealgebra",
            "level": 1,
            "unique_id": f"test/prealgebra/{n}.json",
        }
        for n in range(1, 12)
    ]
    jsonl(folder / "test.jsonl", rows)
    return BenchmarkSource(repo=str(folder), split="test")


def gsm8k(folder):
    for config in ("main", "socratic"):
        for split, first in (("train", 100), ("test", 1)):
            rows = [
                {
                    "question": f"{config}: Bo has {n} crates of 700 nails. How many nails?",
                    "answer": f"{n} crates hold {n}*700=<<{n}*700={n * 700}>>{n * 700} nails.\n#### {n * 700:,}",
                }
                for n in range(first, first + 3)
            ]
            parquet(folder, rows, split, config)
    configs(folder, ("main", "socratic"), ("train", "test"))
    return BenchmarkSource(repo=str(folder), config="main", split="test")


def amc(folder):
    rows = [{"id": n, "problem": f"What is ${n}+{n}$?", "answer": 2.0 * n, "url": "https://example.org"} for n in range(3)]
    return parquet(folder, rows, "train")


def aime(folder):
    rows = [
        {"id": n, "problem": f"Find {n} cubed.", "solution": "Cube it.", "answer": f"{n**3:03}", "url": "https://example.org"}
        for n in range(1, 4)
    ]
    return parquet(folder, rows, "train")


def aime_2024(folder):
    rows = [{"ID": f"2024-I-{n}", "Problem": f"Find {n} squared.", "Solution": "...", "Answer": n**2} for n in range(1, 4)]
    return but(parquet(folder, rows, "train"), columns={"problem": "Problem", "answer": "Answer"})


def theoremqa(folder):
    rows = [
        ("How many edges has a tree of 8 nodes?", "7", "integer", None),
        ("Is every subgroup of Z normal?", "True", "bool", None),
        ("What is pi to three digits?", "3.14", "float", None),
        ("Which holds? (a) 1>2 (b) 2>1", "(b)", "option", None),
        ("What are the roots of x^2-3x+2?", "[1, 2]", "list of integer", None),
        ("What are half of 1 and half of 3?", "[0.5, 1.5]", "list of float", None),
        ("How many triangles are in the picture?", "3", "integer", {"bytes": b"\x89PNG", "path": None}),
        ("What is the colour of the sea?", "blue", "float", None),
    ]
    names = ("Question", "Answer", "Answer_type", "Picture")
    features = datasets.Features({**dict.fromkeys(names[:3], datasets.Value("string")), "Picture": datasets.Image()})
    return parquet(folder, [dict(zip(names, row, strict=True)) for row in rows], features=features)


def mmlu_pro(folder):
    def row(n, category, options):
        return {
            "question_id": n,
            "question": f"What is {n}+1?",
            "options": options,
            "answer": "ABCDEFGHIJ"[options.index(str(n + 1))],
            "answer_index": options.index(str(n + 1)),
            "cot_content": f"A: Let's think step by step. {n}+1 is {n + 1}. The answer is (A).",
            "category": category,
            "src": "made up",
        }

    parquet(folder, [row(n, "math", [str(n + 1), "0", "-1"]) for n in range(10, 16)], "validation")
    rows = [row(3, "math", [str(k) for k in range(10)]), row(4, "math", ["4", "5", "6"]), row(5, "law", ["6", "5", "9", "1"])]
    return parquet(folder, rows)


SETS = {"math500": math500, "gsm8k": gsm8k, "amc": amc, "aime": aime, "theoremqa": theoremqa, "mmlu_pro": mmlu_pro}
ANSWERS = {
    "math500": [f"\\frac{{{n}}}{{4}}" for n in range(1, 12)],
    "gsm8k": ["700", "1400", "2100"],
    "amc": ["0", "2", "4"],
    "aime": ["1", "8", "27"],
    "mmlu_pro": ["E", "B", "A"],
}


@pytest.mark.parametrize("name", SETS)
def test_items_of_a_public_schema_are_a_table_of_prompts(tmp_path, name):
    rows = items(name, SETS[name](tmp_path / "set"), "in_domain")
    write_table(pl.DataFrame(rows), Prompts, tmp_path / "prompts.parquet")
    table = read_table(tmp_path / "prompts.parquet", Prompts)
    assert table["task"].unique().to_list() == [name] and table["split"].unique().to_list() == ["in_domain"]
    assert all("\\boxed{}" in prompt for prompt in table["prompt"])
    if name in ANSWERS:
        assert sorted(table["answer"]) == sorted(ANSWERS[name])


@pytest.mark.parametrize("name", SETS)
def test_a_boxed_reference_is_right_and_another_answer_wrong(tmp_path, name):
    rows = items(name, SETS[name](tmp_path / "set"), "s")
    gold = [json.loads(row["answer"])["answer"] if name == "theoremqa" else row["answer"] for row in rows]
    right = [f"<think>\nIs it \\boxed{{0}}?\n</think>\n\nSo it is $\\boxed{{{answer}}}$." for answer in gold]
    references = [row["answer"] for row in rows]
    assert [correct for _, correct in score_all(name, right, references, 1)] == [True] * len(rows)
    for response in ("\\boxed{12345}", "\\boxed{}", "", "I ran out of"):
        assert [correct for _, correct in score_all(name, [response] * len(rows), references, 1)] == [False] * len(rows)
    assert score_all(name, ["We saw 3 cases, and then"], references[:1], 1) == [(None, False)]


def test_the_reference_of_gsm8k_is_the_number_after_the_mark_of_the_chosen_config(tmp_path):
    rows = items("gsm8k", gsm8k(tmp_path), "s")
    assert all(row["prompt"].startswith("main: ") for row in rows)
    assert score_all("gsm8k", ["\\boxed{2,100}", "\\boxed{\\$700}"], ["2100", "700"], 1) == [("2,100", True), ("\\$700", True)]


def test_columns_of_aime_are_those_that_the_source_names(tmp_path):
    source = aime_2024(tmp_path)
    assert sorted(row["answer"] for row in items("aime", source, "s")) == ["1", "4", "9"]
    with pytest.raises(DatasetError, match="no column problem, answer; it has ID, Problem, Solution, Answer"):
        items("aime", but(source, columns=None), "s")


def test_an_answer_that_is_no_integer_is_refused(tmp_path):
    with pytest.raises(TaskError, match=r"amc: the answer 2\.5 is no integer"):
        items("amc", parquet(tmp_path, [{"problem": "Half of 5?", "answer": 2.5}]), "s")


def test_theoremqa_leaves_out_pictures_and_answers_that_are_not_of_their_type(tmp_path, caplog):
    rows = items("theoremqa", theoremqa(tmp_path), "s")
    assert len(rows) == 6 and not any("picture" in row["prompt"] for row in rows)
    assert "'blue' is no float" in caplog.text


BY_TYPE = [
    ("bool", "True", "\\text{true}", True),
    ("bool", "False", "No.", True),
    ("bool", "True", "False", False),
    ("option", "(a)", "a", True),
    ("option", "(b)", "\\text{(b) both}", True),
    ("option", "(b)", "both", False),
    ("integer", "1000", "1{,}000", True),
    ("integer", "6", "\\frac{12}{2}", True),
    ("integer", "6", "7", False),
    ("integer", "2", "x", False),
    ("float", "0.333", "\\frac13", True),
    ("float", "0.333", "0.36", False),
    ("float", "1e-05", "10^{-5}", True),
    ("float", "-2.5", "x = -\\frac{5}{2}", True),
    ("float", "9.8", "9.8 \\text{ m/s}^2", True),
    ("float", "0.2", "20\\%", True),
    ("list of integer", "[1, 1, 2]", "\\{2, 1, 1\\}", True),
    ("list of integer", "[1, 1, 2]", "[1, 2]", False),
    ("list of integer", "[1, 2]", "1", False),
    ("list of float", "[0.5, 1.5]", "\\left[\\frac{1}{2}, \\frac{3}{2}\\right]", True),
    ("list of float", "[0.5, 1.5]", "\\frac{1}{2}, \\frac{3}{2}", True),
    ("list of float", "[0.5, 1.5]", "(0.5, no)", False),
]


def test_theoremqa_scores_by_type():
    references = [json.dumps({"answer": gold, "type": kind}) for kind, gold, _, _ in BY_TYPE]
    found = score_all("theoremqa", [f"\\boxed{{{answer}}}" for _, _, answer, _ in BY_TYPE], references, 2)
    assert found == [(answer, right) for _, _, answer, right in BY_TYPE]


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("\\frac{3}{4}", "3/4", True),
        ("\\frac{3}{4}", "0.75", True),
        ("\\frac{3}{4}", "\\frac{4}{3}", False),
        ("2\\sqrt{2}", "\\sqrt{8}", True),
        ("(-\\infty, 2)", "(-\\infty,2]", False),
        ("[1,2]", "x \\in [1,2]", True),
        ("\\{1,2\\}", "2, 1", True),
        ("(1,2)", "(2,1)", False),
        ("90^\\circ", "90", True),
        ("10\\text{ cm}", "10", True),
        ("50", "50\\%", True),
        ("\\text{Tuesday}", "Tuesday", True),
        ("\\text{(C)}", "C", True),
        ("1,234", "1234", True),
        ("5", "5.", True),
        ("5", "x = 5", True),
        ("2k+2", "2(k+1)", True),
        ("3", "\\frac{", False),
    ],
)
def test_mathematics_is_compared_by_value(reference, answer, right):
    assert find("math500").score(answer, reference) is right


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("First \\boxed{1}, no: \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("Put it within \\boxed{}. \\boxed{7} Within \\boxed{}", "7"),
        ("It is \\boxed{8} or \\boxed{9", "8"),
        ("\\boxed{\\left\\{1, 2\\right.}", "\\left\\{1, 2\\right."),
        ("The final answer is $\\frac{3}{4}$. I hope it is correct.", "\\frac{3}{4}"),
        ("**Answer:** 1,234", "1234"),
        ("We have 3 cases and 4 more", None),
        ("\\boxed{12", None),
    ],
)
def test_the_answer_is_the_last_box_or_what_is_announced(response, answer):
    assert find("math500").extract(response) == answer


BALANCED = st.recursive(
    st.text("ab1 ,+^_$\n", max_size=5) | st.sampled_from(["\\{", "\\}", "\\\\", "\\frac"]),
    lambda inner: st.lists(inner, max_size=3).map("".join) | inner.map(lambda text: "{" + text + "}"),
)


@given(st.text("ab{}\\ 1", max_size=20), BALANCED, st.text("ab{} 1", max_size=20))
def test_a_box_ends_at_its_own_brace(before, content, after):
    boxed = find("math500").extract(f"{before}\n\\boxed{{x{content}}}{after}")
    assert boxed == f"x{content}".strip()


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("\\boxed{C}", "C"),
        ("\\boxed{\\text{(J)}}", "J"),
        ("\\boxed{C. Four}", "C"),
        ("\\boxed{Carbon}", None),
        ("\\boxed{A, B}", None),
        ("Is the answer is (B)? No, the answer is (D).", "D"),
        ("**Answer: E**", "E"),
        ("I think that", None),
    ],
)
def test_the_letter_of_mmlu_pro(response, letter):
    assert score_all("mmlu_pro", [response], ["D"], 1) == [(letter, letter == "D")]


def test_a_subset_does_not_depend_on_the_order_of_the_file_and_a_larger_one_holds_it(tmp_path):
    source = math500(tmp_path / "a")
    lines = (tmp_path / "a" / "test.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "test.jsonl").write_text("".join(reversed(lines + lines[:3])))
    ids = {n: [row["prompt_id"] for row in items("math500", but(source, n=n), "s")] for n in (4, 8, 50)}
    assert [len(some) for some in ids.values()] == [4, 8, 11]
    assert set(ids[4]) < set(ids[8]) < set(ids[50])
    assert [row["prompt_id"] for row in items("math500", but(source, repo=str(tmp_path / "b"), n=4), "t")] == ids[4]


def test_an_item_has_another_id_in_another_task(tmp_path):
    rows = [{"problem": "Find 1.", "answer": 1.0}]
    source = parquet(tmp_path, rows)
    assert items("amc", source, "s")[0]["prompt_id"] != items("aime", source, "s")[0]["prompt_id"]


def test_no_items_is_an_error(tmp_path):
    source = theoremqa(tmp_path)
    pictures = [row for row in load_rows(source) if row["Picture"]]
    with pytest.raises(TaskError, match="theoremqa: no items are left of"):
        items("theoremqa", parquet(tmp_path / "pictures", pictures), "s")


def test_a_task_is_started_from_a_module_of_its_own():
    modules = {name: tasks.module_name(name) for name in ("gsm8k", "lm_eval:gsm8k", "story")}
    assert modules == {"gsm8k": "gsm8k", "lm_eval:gsm8k": "lm_eval", "story": "microworld"}
    for name, module in modules.items():
        assert type(find(name)).__module__ == f"prefdelta.tasks.{module}"


def test_code_of_a_task_is_its_own_and_what_it_uses():
    folder = Path(tasks.__file__).parent
    found = {name: set(code(folder / f"{name}.py").definitions) for name in ("gsm8k", "mmlu_pro", "lm_eval", "microworld")}
    assert {"tasks/gsm8k.py:Task", "tasks/common.py:MathTask", "data/dataset.py:load_split"} <= found["gsm8k"]
    assert not any("gsm8k" in key for name in ("mmlu_pro", "lm_eval", "microworld") for key in found[name])
    assert not any(key.startswith("tasks/") and "__init__" not in key for key in code(tasks.__file__).definitions)


def test_the_micro_world_is_a_task(tmp_path):
    assert score_all("story", ["a)3+4=7;#70", "a)3+4=7"], ["70", "70"], 2) == [("70", True), (None, False)]
    with pytest.raises(TaskError, match="drawn"):
        items("program", math500(tmp_path), "s")


# Data sets


def test_files_are_read_by_glob_where_a_set_has_no_other_form(tmp_path):
    for number in (1, 2, 3):
        jsonl(tmp_path / f"test{number}.jsonl", [{"n": number}])
    assert load_rows(Source(repo=str(tmp_path), files=["test[12].jsonl"])) == [{"n": 1}, {"n": 2}]
    assert load_rows(Source(repo=str(tmp_path / "test3.jsonl"), split="test")) == [{"n": 3}]
    with pytest.raises(DatasetError, match=r"no files that match x\*"):
        load_rows(Source(repo=str(tmp_path), files=["x*"]))


def test_an_unknown_split_config_or_folder_is_named_with_what_there_is(tmp_path):
    source = gsm8k(tmp_path / "set")
    with pytest.raises(DatasetError, match=r"split dev.*'train', 'test'.*check `split`"):
        load_rows(but(source, split="dev"))
    with pytest.raises(DatasetError, match=r"config hard.*main.*socratic"):
        load_rows(but(source, config="hard"))
    with pytest.raises(DatasetError, match="neither a local file or folder nor a set on the hub"):
        load_rows(Source(repo=str(tmp_path / "nowhere")))


class Hub(BaseHTTPRequestHandler):
    """Refuses what the hub refuses, by the name of the data set, with the hub's headers."""

    def do_GET(self):
        errors = {"gated": (403, "GatedRepo"), "old": (404, "RevisionNotFound"), "missing": (404, "RepoNotFound")}
        status, code = next(error for name, error in errors.items() if f"/{name}" in self.path)
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def hub_messages(sources, **env):
    """What a process with the environment ``env`` says that reads ``sources``."""
    code = """
import json, sys
from prefdelta.data.dataset import DatasetError, load_rows
from prefdelta.study.sources import Source
for source in json.loads(sys.argv[1]):
    try:
        load_rows(Source(**source))
    except DatasetError as error:
        print(str(error).replace("\\n", " "))
"""
    env |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    run = subprocess.run([sys.executable, "-c", code, json.dumps(sources)], env=env, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_what_the_hub_refuses_is_explained(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sources = [{"repo": f"ann/{name}", "revision": "a" * 40, "split": "test"} for name in ("gated", "old", "missing")]
    sources.append(sources[0] | {"files": ["*.jsonl"]})
    env = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path), "no_proxy": "127.0.0.1"}
    try:
        gated, old, missing, files = hub_messages(sources, **env)
    finally:
        server.shutdown()
        server.server_close()
    for message, remedy in ((gated, "HF_TOKEN"), (old, "`revision`"), (missing, "check `repo`"), (files, "HF_TOKEN")):
        assert f"revision {'a' * 40}" in message and remedy in message, message
    for message in hub_messages([sources[0], sources[3]], HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)):
        assert "hf download --repo-type dataset ann/gated" in message, message


# lm-eval

LOCAL_TASK = """
task: sums
dataset_path: nobody/nothing
output_type: generate_until
test_split: test
fewshot_split: train
num_fewshot: 2
description: "Add.\\n"
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["Q:", "\\n\\n"]
filter_list:
  - name: strict
    filter:
      - {function: regex, regex_pattern: "answer is (-?[0-9]+)"}
      - {function: take_first}
  - name: last
    filter:
      - {function: regex, regex_pattern: "(-?[0-9]+)", group_select: -1}
      - {function: take_first}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


def sums(folder, text=LOCAL_TASK, **options):
    """A task in YAML and its data."""
    (folder / "yaml").mkdir(parents=True)
    (folder / "yaml" / "sums.yaml").write_text(text, encoding="utf-8")
    for split, first in (("train", 50), ("test", 1)):
        rows = [{"question": f"{n}+{n}", "answer": str(2 * n)} for n in range(first, first + 4)]
        jsonl(folder / "data" / f"{split}.jsonl", rows)
    words = {"include_path": str(folder / "yaml"), "filter": "last"} | options
    return BenchmarkSource(repo=str(folder / "data"), **words)


def test_a_task_of_lm_eval_is_prompted_with_its_examples_and_scored_without_its_data(tmp_path):
    source = sums(tmp_path)
    rows = items("lm_eval:sums", source, "s")
    assert len(rows) == 4
    for row in rows:
        assert row["prompt"].startswith("Add.\n") and row["prompt"].count("Q: ") == 3
        assert row["prompt"].endswith(f"Q: {json.loads(row['answer'])['doc']['question']}\nA:")
    assert rows == items("lm_eval:sums", source, "s")
    for file in (tmp_path / "data").iterdir():
        file.unlink()
    row = rows[0]
    right = json.loads(row["answer"])["doc"]["answer"]
    responses = [f"It is {right}", f"{right}\n\nQ: 1+1\nA: 2", f"{right}, no: 1000", f"Q: {right}", " "]
    scored = score_all("lm_eval:sums", responses, [row["answer"]] * 5, 4)
    assert scored == [(right, True), (right, True), ("1000", False), (None, False), (None, False)]


def test_the_filter_of_a_task_decides(tmp_path):
    strict = items("lm_eval:sums", sums(tmp_path, filter="strict"), "s")
    right = json.loads(strict[0]["answer"])["doc"]["answer"]
    scored = score_all("lm_eval:sums", [right, f"The answer is {right}."], [strict[0]["answer"]] * 2, 1)
    assert scored == [(None, False), (right, True)]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"filter": None}, "has 2 filters; set `filter` in its source to one of strict, last"),
        ({}, {"filter": "first"}, "no filter 'first'"),
        ({"generate_until": "multiple_choice"}, {}, "output type multiple_choice; only generate_until"),
        ({"task: sums": "task: sums\nunsafe_code: true"}, {}, "runs code of models"),
        ({"task: sums": "task: products"}, {}, "lm_eval:sums is unknown"),
        ({"exact_match,": "!function half.half,"}, {}, r"gives 0\.5 for an item; it must be 0 or 1"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(tmp_path, change, options, message):
    text = LOCAL_TASK
    for old, new in change.items():
        text = text.replace(old, new)
    source = sums(tmp_path, text, **options)
    (tmp_path / "yaml" / "half.py").write_text("def half(references, predictions, **_):\n    return 0.5\n")
    with pytest.raises(TaskError, match=message):
        items("lm_eval:sums", source, "s")


def test_data_of_another_schema_are_refused(tmp_path):
    source = sums(tmp_path, LOCAL_TASK.replace("{{question}}", "{{problem}}"))
    with pytest.raises(DatasetError, match=r"lm_eval:sums can't be built on .*problem"):
        items("lm_eval:sums", source, "s")


NULLS = {
    "in the answer": ("answer", None, LOCAL_TASK),
    "as a number": ("answer", float("nan"), LOCAL_TASK),
    "as a column": ("answer", None, LOCAL_TASK.replace('"{{answer}}"', "answer")),
    "within the answer": ("answer", None, LOCAL_TASK.replace("{{answer}}", "#### {{answer}}")),
    "as an empty text": ("answer", " ", LOCAL_TASK),
    "in the prompt": ("question", None, LOCAL_TASK),
}


@pytest.mark.parametrize(("column", "value", "text"), NULLS.values(), ids=NULLS)
def test_a_null_of_a_task_of_lm_eval_is_no_item_and_many_are_an_error(tmp_path, caplog, column, value, text):
    text = text.replace("fewshot_split: train\nnum_fewshot: 2\n", "")

    def source(name, nulls):
        folder = tmp_path / name
        rows = [{"question": f"{n}+{n}", "answer": 2.0 * n if value != value else str(2 * n)} for n in range(1, 31)]
        rows = [row | ({column: value} if n in nulls else {}) for n, row in enumerate(rows, 1)]
        return but(sums(folder, text), repo=parquet(folder / "set", rows).repo)

    found = items("lm_eval:sums", source("few", [3]), "s")
    assert len(found) == 29 and "Q: 3+3\n" not in "".join(row["prompt"] for row in found)
    assert "1 of 30 rows" in caplog.text and f"row 3 ({column})" in caplog.text
    with pytest.raises(DatasetError, match=rf"2 of 30 rows .* row 1 \({column}\), row 2 \({column}\)"):
        items("lm_eval:sums", source("many", [1, 2]), "s")


def test_an_example_with_a_null_stands_in_no_prompt_of_lm_eval(tmp_path, caplog):
    rows = [{"question": f"{n}+{n}", "answer": None if n == 7 else str(2 * n)} for n in range(1, 31)]
    parquet(tmp_path / "set", rows, "train")
    folder = parquet(tmp_path / "set", [row for row in rows if row["answer"]]).repo
    text = LOCAL_TASK.replace("num_fewshot: 2", "num_fewshot: 20")
    found = items("lm_eval:sums", but(sums(tmp_path, text), repo=folder), "s")
    assert len(found) == 29 and not any("None" in row["prompt"] for row in found)
    assert "split train" in caplog.text and "row 7 (answer)" in caplog.text


def test_a_null_that_only_chooses_a_form_of_a_prompt_is_no_fault_nor_is_a_task_without_answers(tmp_path):
    form = "{% if hint is not none %}Hint: {{hint}}\\n{% endif %}Q: {{question}}"
    text = LOCAL_TASK.replace("Q: {{question}}", form).replace("fewshot_split: train\nnum_fewshot: 2\n", "")
    rows = [{"question": f"{n}+{n}", "answer": str(2 * n), "hint": None if n > 1 else "Count."} for n in range(1, 5)]
    source = but(sums(tmp_path, text), repo=parquet(tmp_path / "set", rows).repo)
    assert len(items("lm_eval:sums", source, "s")) == 4
    (tmp_path / "yaml" / "sums.yaml").write_text(text.replace("{{answer}}", " "))  # some score by functions of their own
    assert len(items("lm_eval:sums", source, "s")) == 4


def test_own_gsm8k_of_lm_eval(tmp_path):
    source = but(gsm8k(tmp_path), include_path=str(LM_EVAL / "gsm8k"), config=None, filter="flexible-extract")
    rows = items("lm_eval:gsm8k_cot_zeroshot", source, "s")
    assert all(row["prompt"].startswith("Q: main") and row["prompt"].endswith("step by step.") for row in rows)
    # As if found among lm-eval's own tasks, whose search takes long.
    references = [
        json.dumps(json.loads(row["answer"]) | {"include_path": None, "yaml": "gsm8k/gsm8k-cot-zeroshot.yaml"}) for row in rows
    ]
    gold = [json.loads(row["answer"])["doc"]["answer"].rpartition("#### ")[2] for row in rows]
    right = score_all(rows[0]["task"], [f"So it is {number}." for number in gold], references, 1)
    assert [correct for _, correct in right] == [True] * 3
    wrong = score_all(rows[0]["task"], [f"So it is {number}1." for number in gold], references, 1)
    assert [correct for _, correct in wrong] == [False] * 3


def test_own_mmlu_pro_of_lm_eval_has_five_examples_of_its_subject(tmp_path):
    source = but(mmlu_pro(tmp_path), include_path=str(LM_EVAL / "mmlu_pro"))
    rows = items("lm_eval:mmlu_pro_math", source, "s")
    assert len(rows) == 2 and all(row["prompt"].count("Question:") == 6 for row in rows)
    letters = [json.loads(row["answer"])["doc"]["answer"] for row in rows]
    scored = score_all(rows[0]["task"], [f"The answer is ({letters[0]}).", "The answer is (J)."], [r["answer"] for r in rows], 1)
    assert [correct for _, correct in scored] == [True, False]


def test_own_gpqa_of_lm_eval_shuffles_its_options_the_same_way_every_time(tmp_path):
    rows = [
        {
            "Question": f"What is {n}*2?",
            "Correct Answer": str(2 * n),
            **{f"Incorrect Answer {k}": str(2 * n + k) for k in (1, 2, 3)},
        }
        for n in range(8)
    ]
    parquet(tmp_path, rows, "train", "gpqa_diamond")
    configs(tmp_path, ("gpqa_diamond",), ("train",))
    folder = str(LM_EVAL / "gpqa" / "cot_zeroshot")
    source = BenchmarkSource(repo=str(tmp_path), include_path=folder, filter="flexible-extract")
    name = "lm_eval:gpqa_diamond_cot_zeroshot"
    first = items(name, source, "s")
    assert first == items(name, source, "s")
    docs = [json.loads(row["answer"])["doc"] for row in first]
    assert len({doc["answer"] for doc in docs}) > 1
    assert all(f"{doc['answer']} {doc['Correct Answer']}\n" in row["prompt"] for doc, row in zip(docs, first, strict=True))
    scored = score_all(name, [f"So {doc['answer']}" for doc in docs], [row["answer"] for row in first], 1)
    assert [correct for _, correct in scored] == [True] * 8


def test_a_null_answer_is_no_item_and_many_are_an_error(tmp_path, caplog):
    rows = [{"problem": f"Find {n}.", "answer": None if n == 3 else f"{n}"} for n in range(1, 31)]
    found = items("math500", parquet(tmp_path / "few", rows), "s")
    assert len(found) == 29 and "None" not in {row["answer"] for row in found}
    assert "1 of 30 rows" in caplog.text and "row 3 (answer)" in caplog.text
    with pytest.raises(
        DatasetError, match=r"2 of 4 rows .* have nothing in problem, answer: row 3 \(answer\), row 4 \(problem\)"
    ):
        items("math500", parquet(tmp_path / "many", [*rows[:3], {"problem": " ", "answer": "4"}]), "s")
