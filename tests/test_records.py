"""What jobs note of how results were made: the report's words on it, and what `make results STRICT=1` makes again."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from docutils.core import publish_parts

from prefdelta.report import provenance
from prefdelta.run.records import Record, outdated, read_records, write_record

HERE = {name: version(name) for name in ("numpy", "polars")}
OLD = HERE | {"polars": "0.1"}
STUDY = Path("results/s")


@pytest.fixture
def note(tmp_path, monkeypatch):
    """A function that leaves a result of the study ``s`` in the working directory, with its record."""
    monkeypatch.chdir(tmp_path)

    def noted(name, versions, rule="tabulate", study="s"):
        output = Path("results", study, name)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(name)
        record = Record(rule, [str(output)], versions, {"batch_size": 4}, 1)
        write_record(record, Path("results", study, "logs", name).with_suffix(".log"))
        return record

    return noted


def text(accepted=None):
    return provenance.words(read_records(STUDY / "records"), accepted, STUDY)


def test_records_are_read_back_but_those_of_results_that_are_gone(note):
    kept, gone = note("tables/a.csv", HERE), note("pairs/j/b.parquet", HERE)
    assert read_records(STUDY / "records") == [gone, kept]
    Path(gone.outputs[0]).unlink()
    assert read_records(STUDY / "records") == [kept]


def test_nothing_is_named_where_all_agree(note):
    note("tables/a.csv", HERE)
    note("tables/b.csv", {"numpy": HERE["numpy"]})  # which has not loaded the other library
    assert "All results were made by the same versions" in text()
    assert "tables" not in text()


def test_results_of_a_minoritys_versions_are_named_for_each_library(note):
    for name in "abc":
        note(f"tables/{name}.csv", HERE)
    note("tables/d.csv", OLD)
    note("figures/e.png", OLD | {"numpy": "9"})
    lines = [line for line in text().splitlines() if line.startswith("- ")]
    assert lines == [
        f"- numpy 9: ``figures/e.png`` (the rest: {HERE['numpy']}).",
        f"- polars 0.1: ``figures/e.png``, ``tables/d.csv`` (the rest: {HERE['polars']}).",
    ]


def test_of_many_results_some_are_named_and_the_others_counted(note, monkeypatch):
    monkeypatch.setattr(provenance, "NAMED", 2)
    for name in "abcd":
        note(f"tables/{name}.csv", HERE)
    for name in "efg":
        note(f"tables/{name}.csv", OLD)
    assert "polars 0.1: ``tables/e.csv``, ``tables/f.csv`` and 1 more (" in text()


def test_what_was_kept_after_an_edit_is_told_in_its_own_words(note):
    note("tables/a.csv", HERE)
    assert "after an edit" not in text()
    accepted = STUDY / "accepted.jsonl"
    told = {"time": "2026-11-28T03:00:00+00:00", "rule": "tabulate", "files": ["results/s/tables/a.csv"]}
    accepted.write_text(json.dumps(told | {"change": "`item_scores`\nof *all* suites_", "why": "a new *name*"}) + "\n")
    page = publish_parts(text(accepted), writer="html", settings_overrides={"report_level": 2, "halt_level": 2})["body"]
    assert "tables/a.csv</tt> (tabulate, 2026-11-28): `item_scores` of *all* suites_. The author says: a new *name*.</li>" in page


def test_results_of_other_versions_than_the_installed_are_outdated(note):
    note("tables/a.csv", HERE | {"python": "3.0"})  # its libraries are what counts
    old, gone = note("tables/b.csv", OLD), note("tables/c.csv", {"no-such-library": "1"})
    assert outdated(read_records(STUDY / "records")) == [*old.outputs, *gone.outputs]


def test_only_what_is_planned_is_made_again(note):
    note("tables/a.csv", HERE)
    old, _, other = note("tables/b.csv", OLD), note("tables/unplanned.csv", OLD), note("tables/a.csv", OLD, study="other")
    summary = "output_file\tdate\n" + "".join(f"{file}\t-\n" for file in ("results/s/tables/a.csv", *old.outputs, *other.outputs))
    command = [sys.executable, "-m", "prefdelta.run.records", "results"]
    done = subprocess.run(command, input=summary, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted([*old.outputs, *other.outputs])
