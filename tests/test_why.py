"""A small workflow whose plan is explained, and whose harmless edits are accepted."""

import json
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from prefdelta.run import accept, codebook, why
from prefdelta.study import paths

SNAKEFILE = """
import ast, hashlib, json
from pathlib import Path
from prefdelta.run import codebook
from prefdelta.run.provenance import Code

configfile: "config.json"

def code_of(script):
    parts = ast.parse(Path(script).read_text()).body
    code = Code({f"{script}:{part.name}": hashlib.sha256(ast.dump(part).encode()).hexdigest() for part in parts})
    if workflow.is_main_process:
        codebook.keep(code)
    return code.digest

def params(script, rule):
    content = {"settings": config[rule], "keys": {}}
    run = lambda wildcards, threads: json.dumps(config["run"])
    return {"content": json.dumps(content, sort_keys=True), "run": run, "code": code_of(script)}

def counts(wildcards):
    return expand("results/toy/counts/{part}.txt", part=config["parts"])

rule all:
    default_target: True
    input: "results/toy/report.txt"

rule count:
    input: words="data/{part}.txt", shared="data/shared.txt"
    output: number="results/{study}/counts/{part}.txt", again="results/{study}/counts/{part}.again"
    params: **params("count.py", "count")
    resources: runtime=100
    shell: "cat {input} > {output.number} && cp {output.number} {output.again}"

rule folder:
    input: numbers=counts
    output: folder=directory("results/{study}/folder")
    params: **params("folder.py", "folder")
    resources: runtime=5
    shell: "mkdir {output} && cat {input} > {output}/all.txt"

rule listing:
    input: folder="results/{study}/folder"
    output: "results/{study}/listing.txt"
    params: **params("total.py", "listing")
    resources: runtime=5
    shell: "ls {input} > {output}"

rule total:
    input: numbers=counts
    output: total="results/{study}/total.txt"
    params: **params("total.py", "total")
    resources: runtime=5
    shell: "cat {input} > {output}"

rule report:
    input: total="results/{study}/total.txt"
    output: page="results/{study}/report.txt"
    params: **params("total.py", "report")
    resources: runtime=5
    shell: "cp {input} {output}"
"""
CONFIG = {
    "parts": ["a", "b", "c"],
    "run": {"batch": 8},
    "count": {"sampling": {"temperature": 0.7, "seeds": [0, 1]}, "words": "long", "rubric": "Rate it. " * 20},
    "folder": {},
    "listing": {},
    "total": {"level": 0.95},
    "report": {},
}
REPORT, LISTING = "results/toy/report.txt", "results/toy/listing.txt"
ACCEPTED = Path(paths.ACCEPTED.format(study="toy"))
NOTHING = "Nothing would run.\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the workflow, which has run."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(Path(__file__).parents[1] / "profiles/default", folder / "profiles/default")
    (folder / "data").mkdir()
    for name in (*CONFIG["parts"], "d", "shared"):
        (folder / f"data/{name}.txt").write_text(f"words of {name}\n")
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "count.py").write_text("def count(): return 1\ndef helper(): return 2\n")
    (folder / "folder.py").write_text("def fold(): return 1\n")
    (folder / "total.py").write_text("def total(): return 1\n")
    snakemake(folder, REPORT, LISTING)
    return folder


def snakemake(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture
def toy(made, tmp_path, monkeypatch, capsys):
    shutil.copytree(made, tmp_path / "toy")
    monkeypatch.chdir(tmp_path / "toy")
    return Toy(capsys)


class Toy:
    def __init__(self, capsys):
        self.capsys = capsys

    def says(self, tool, *arguments):
        """What a tool prints."""
        self.capsys.readouterr()
        tool.main(arguments)
        return self.capsys.readouterr().out

    def configure(self, rule, **changes):
        config = json.loads(Path("config.json").read_text())
        config[rule] = config[rule] | changes
        Path("config.json").write_text(json.dumps(config))

    def accepted(self):
        return [json.loads(line) for line in ACCEPTED.read_text().splitlines()]


def state():
    """Content and time of every result."""
    files = [file for file in Path("results").rglob("*") if file.is_file() and file.name != "accepted.jsonl"]
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def blocks(text):
    """Reason -> its jobs, of what `why` prints."""
    found = {}
    for block in text.partition("\nAnd ")[0].split("\n\n")[1:]:
        lines = block.strip("\n").split("\n")
        found["\n".join(line for line in lines if not line.startswith(" "))] = [
            line.strip() for line in lines if line.startswith(" ")
        ]
    return found


def test_nothing_is_said_where_nothing_would_run(toy):
    toy.configure("run", batch=16)
    assert toy.says(why) == toy.says(why, LISTING) == NOTHING


def test_changed_settings_are_told_from_value_to_value(toy):
    toy.configure("count", sampling={"temperature": 0.8, "seeds": [0, 1, 2]}, rubric="Rate it. " * 19 + "Judge it. ", limit=None)
    toy.configure("total", level=0.9)
    text = toy.says(why)
    reasons = blocks(text)
    first = next(iter(reasons))
    assert first.splitlines()[0] == "limit is new: null"
    assert "sampling.temperature from 0.7 to 0.8" in first.splitlines()
    assert "sampling.seeds from [0, 1] to [0, 1, 2]" in first.splitlines()
    assert "Judge it. " in first
    assert "words" not in first.replace("rubric", "")
    assert reasons[first] == ["count: results/toy/counts/a.txt and 2 more"]
    assert reasons["level from 0.95 to 0.9"] == ["total: results/toy/total.txt"]
    assert text.startswith("5 jobs would run.")
    assert text.endswith("And 1 job that read what these make: 1 report\n")


def test_changed_code_is_told_by_definitions(toy):
    Path("count.py").write_text("def count(): return 3\ndef assistant(): return 2\n")
    text = toy.says(why)
    assert "its code: changed count.py:count; new count.py:assistant; gone count.py:helper\n    count: " in text
    assert "\nAnd 2 jobs that read what these make: 1 report, 1 total\n" in text
    for file in codebook.FOLDER.iterdir():
        file.unlink()
    assert "its code, of which it is not known any more what it was\n" in toy.says(why)


def test_what_records_of_an_earlier_form_meant_is_not_known(toy):
    record = Path(".snakemake/metadata") / urlsafe_b64encode(b"results/toy/total.txt").decode()
    kept = json.loads(record.read_text()) | {"params": [repr('{"level": 0.9}'), repr('{"total.py": "0123456789ab"}')]}
    record.write_text(json.dumps(kept))
    (reason,) = blocks(toy.says(why))
    assert reason.splitlines() == [
        "its settings, of which it is not known what they were",
        "its code, of which it is not known any more what it was",
    ]


def test_lists_and_their_parts_are_told():
    before, now = {"suites": [{"n": 1}, {"n": 2}], "seeds": [0, 1]}, {"suites": [{"n": 1}, {"n": 3}], "seeds": [0, 2]}
    assert list(why.differences(before, now)) == ["seeds from [0, 1] to [0, 2]", "suites[1].n from 2 to 3"]
    assert list(why.differences({"a": {"b": 1}}, {"a": {}})) == ["a.b is gone, was 1"]


def test_changed_added_and_missing_files_are_told(toy):
    Path("data/b.txt").write_text("other words\n")
    Path("results/toy/report.txt").unlink()
    config = json.loads(Path("config.json").read_text())
    Path("config.json").write_text(json.dumps(config | {"parts": ["a", "b", "d"]}))
    reasons = blocks(toy.says(why))
    assert reasons == {
        "there is no output": ["count: results/toy/counts/d.txt", "report: results/toy/report.txt"],
        "its input data/b.txt has another content": ["count: results/toy/counts/b.txt"],
        "more inputs: results/toy/counts/d.txt\nwithout the inputs: results/toy/counts/c.txt": ["total: results/toy/total.txt"],
    }


def test_what_was_made_anew_is_told_by_its_name(toy):
    Path("results/toy/counts/a.txt").write_text("other\n")
    Path("total.py").write_text("def total(): return 2\n")
    reasons = blocks(toy.says(why))
    assert reasons["its input numbers has another content\nits code: changed total.py:total"] == ["total: results/toy/total.txt"]


def test_equal_inputs_that_are_newer_are_no_reason(toy):
    Path("data/b.txt").touch()
    assert toy.says(why) == NOTHING


def test_after_accepting_nothing_runs_and_no_file_is_touched(toy):
    Path("count.py").write_text("def count(): return 1\ndef renamed(): return 2\n")
    Path("folder.py").write_text("def fold(): return 2\n")
    before = state()
    text = toy.says(accept, "--why", "renamed a helper", REPORT)
    assert text.startswith("Accepted for 3 jobs:\n\nits code: new count.py:renamed; gone count.py:helper\n    count: ")
    assert state() == before
    assert toy.says(why) == NOTHING
    assert "Nothing to be done" in snakemake(Path.cwd(), "--dry-run", REPORT)
    (line,) = toy.accepted()
    assert line.keys() == {"time", "rule", "files", "change", "why"}
    assert line["time"].endswith("+00:00")
    assert line["rule"] == "count"
    assert line["files"] == [f"results/toy/counts/{part}.{end}" for part in "abc" for end in ("txt", "again")]
    assert line["change"] == "its code: new count.py:renamed; gone count.py:helper"
    assert line["why"] == "renamed a helper"
    # What is outside of the target is as it was. A folder is never compared by content: its time has to stay.
    assert "1 job that read what these make: 1 listing" in toy.says(why, LISTING)
    toy.says(accept, "results/toy/folder")
    assert toy.says(why, LISTING) == NOTHING
    assert [line["rule"] for line in toy.accepted()] == ["count", "folder"]
    Path("count.py").write_text("def count(): return 5\ndef renamed(): return 2\n")
    assert "its code: changed count.py:count\n    count: " in toy.says(why)


def test_settings_are_accepted_with_their_values(toy):
    toy.configure("total", level=0.9)
    toy.says(accept)
    (line,) = toy.accepted()
    assert (line["change"], line["why"]) == ("level from 0.95 to 0.9", "")
    assert toy.says(why) == NOTHING
    toy.configure("total", level=0.8)
    assert "level from 0.9 to 0.8" in toy.says(why)


def test_what_has_other_inputs_or_no_output_is_not_accepted(toy):
    Path("count.py").write_text("def count(): return 2\ndef helper(): return 2\n")
    Path("data/a.txt").write_text("other words\n")
    Path("results/toy/counts/b.again").unlink()
    text = toy.says(accept)
    accepted, _, refused = text.partition("Not accepted")
    assert "count: results/toy/counts/c.txt\n" in accepted
    assert (
        "its input data/a.txt has another content\nits code: changed count.py:count\n    count: results/toy/counts/a.txt"
        in refused
    )
    assert "of its outputs there is no again\n    count: results/toy/counts/b.txt" in refused
    assert [line["files"] for line in toy.accepted()] == [["results/toy/counts/c.txt", "results/toy/counts/c.again"]]
    assert toy.says(why).startswith("4 jobs would run.")


def test_what_is_made_from_what_runs_is_not_accepted_either(toy):
    toy.configure("total", level=0.9)
    toy.configure("folder", level=0.9)
    Path("data/a.txt").write_text("other words\n")
    text = toy.says(accept, REPORT, "results/toy/folder")
    assert text.startswith("There is nothing to accept.") and "With all that is made from them, that is 4 jobs." in text
    assert not ACCEPTED.exists()


def test_nothing_is_accepted_while_jobs_run(toy):
    Path("count.py").write_text("def count(): return 2\ndef helper(): return 2\n")
    Path(".snakemake/locks").mkdir(exist_ok=True)
    Path(".snakemake/locks/0.output.lock").write_text("results/toy/counts/a.txt\n")
    with pytest.raises(SystemExit, match="lock"):
        accept.main([])
    assert not ACCEPTED.exists()
    assert toy.says(why).startswith("5 jobs would run.")


def test_a_wrong_target_is_answered(toy):
    with pytest.raises(SystemExit, match=r"results/toy/nothing\.csv"):
        why.main(["results/toy/nothing.csv"])


def test_the_study_is_explained_and_its_digests_are_kept(tmp_path, monkeypatch, capsys):
    repository = Path(__file__).parents[1]
    monkeypatch.chdir(tmp_path)
    why.main(["--snakefile", f"{repository}/Snakefile", "--configfile", f"{repository}/config/smoke.yaml"])
    reasons = blocks(capsys.readouterr().out)
    rules = [line.partition(":")[0] for line in reasons["there is no output"]]
    assert rules[0] == "train_policy"  # what takes longest comes first
    assert rules.index("evaluate_base") < rules.index("plot_balance")
    kept = [json.loads(file.read_text()) for file in codebook.FOLDER.iterdir()]
    assert any("train_policy.py:<script>" in definitions for definitions in kept)
