"""How a script's stage function gets what its rule declares."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from prefdelta.run.job import BindingError, bind, run_job
from prefdelta.run.records import read_records
from prefdelta.study.lattice import PairSet
from prefdelta.study.strict import Strict


class Settings(Strict):
    share: float


class Run(Strict):
    batch_size: int


def bound(stage, inputs=(), outputs=(), settings=None, keys=None, run=None, **given):
    params = {"content": json.dumps({"settings": settings, "keys": keys or {}}), "run": json.dumps(run), "code": "{}"}
    return bind(stage, dict(inputs), dict(outputs), params, given)


def test_files_settings_and_what_the_job_is_given_are_bound_by_name():
    def stage(pairs: Path, folder: Path, *, settings: Settings, run: Run, threads: int, log_file: Path) -> None: ...

    arguments = bound(
        stage,
        {"pairs": "a.parquet"},
        {"folder": "out"},
        settings={"share": 0.5},
        run={"batch_size": 4},
        threads=2,
        log_file=Path("x.log"),
    )
    expected = {"pairs": Path("a.parquet"), "folder": Path("out"), "settings": Settings(share=0.5), "run": Run(batch_size=4)}
    assert arguments == expected | {"threads": 2, "log_file": Path("x.log")}


def test_what_the_job_is_given_need_not_be_taken():
    def stage(pairs: Path) -> None: ...

    assert bound(stage, {"pairs": "a"}, threads=2, log_file=Path("x.log")) == {"pairs": Path("a")}


def test_a_rule_without_parameters_binds_its_files():
    def stage(pairs: Path, page: Path) -> None: ...

    assert bind(stage, {"pairs": "a"}, {"page": "b"}, {}, {}) == {"pairs": Path("a"), "page": Path("b")}


def test_inputs_come_as_one_none_or_several_files():
    def stage(one: Path, absent: Path | None, there: Path | None, several: list[Path], single: list[Path]) -> None: ...

    inputs = {"one": "a", "absent": [], "there": ["b"], "several": ["c", "d"], "single": "e"}
    arguments = bound(stage, inputs)
    expected = {"one": Path("a"), "absent": None, "there": Path("b"), "several": [Path("c"), Path("d")], "single": [Path("e")]}
    assert arguments == expected


@pytest.mark.parametrize("files", ["a", ["a"]])
def test_one_file_may_stand_in_a_list(files):
    def stage(one: Path) -> None: ...

    assert bound(stage, {"one": files}) == {"one": Path("a")}


def test_keyed_files_have_keys_of_the_annotated_type():
    def stage(
        traces: dict[str, Path], ratings: dict[tuple[str, str], Path], pairs: dict[PairSet, Path], none: dict[str, Path]
    ) -> None: ...

    pair_set = PairSet(judge="j", chosen="c", rejected="r", selection="full")
    keys = {"traces": ["c", "r"], "ratings": [["j", "c"]], "pairs": [vars(pair_set)], "none": []}
    arguments = bound(stage, {"traces": ["a", "b"], "ratings": ["d"], "pairs": ["e"], "none": []}, keys=keys)
    assert arguments["traces"] == {"c": Path("a"), "r": Path("b")}
    assert arguments["ratings"] == {("j", "c"): Path("d")}
    assert arguments["pairs"] == {pair_set: Path("e")}
    assert arguments["none"] == {}


def test_an_output_in_another_format_of_one_that_is_taken_need_not_be():
    def stage(table: Path) -> None: ...

    outputs = {"table": "tables/a.csv", "table_md": "tables/a.md", "table_tex": "tables/a.tex", "table_sums": "tables/a.sha256"}
    assert bound(stage, outputs=outputs) == {"table": Path("tables/a.csv")}
    with pytest.raises(BindingError, match="does not take arms of its rule"):
        bound(stage, outputs=outputs | {"arms": "tables/arms.csv"})


def test_what_differs_is_named_all_at_once():
    def stage(traces: Path, page: Path, *, threads: int) -> None: ...

    with pytest.raises(BindingError) as error:
        bound(stage, {"pairs": "a"}, {"table": "b"}, settings={"share": 1}, run={"batch_size": 4}, threads=1)
    said = r"test_job.stage does not take table, pairs, settings, run of its rule, and its rule does not declare traces, page of "
    assert said in str(error.value)


@pytest.mark.parametrize("missing", ["settings", "run", "log_file"])
def test_a_parameter_that_is_not_declared_fails(missing):
    kinds = {"settings": Settings, "run": Run, "log_file": Path}

    def stage(**_): ...

    stage.__annotations__ = {missing: kinds[missing]}
    with pytest.raises(BindingError, match=f"does not take nothing of its rule, and its rule does not declare {missing} of"):
        bound(stage)


@pytest.mark.parametrize("files", [[], ["a", "b"]])
def test_a_number_of_files_that_the_parameter_does_not_take_fails(files):
    def stage(pairs: Path) -> None: ...

    with pytest.raises(BindingError, match=f"input pairs has {len(files)} files, .*Path"):
        bound(stage, {"pairs": files})


def test_several_files_for_an_optional_one_fail():
    def stage(pairs: Path | None) -> None: ...

    with pytest.raises(BindingError, match="input pairs has 2 files"):
        bound(stage, {"pairs": ["a", "b"]})


def test_keys_are_given_just_where_they_are_taken():
    def keyed(pairs: dict[str, Path]) -> None: ...

    def listed(pairs: list[Path]) -> None: ...

    with pytest.raises(BindingError, match=r"input pairs is without keys, .* dict\[str"):
        bound(keyed, {"pairs": ["a"]})
    with pytest.raises(BindingError, match=r"input pairs is keyed, .* list\["):
        bound(listed, {"pairs": ["a"]}, keys={"pairs": ["c"]})


@pytest.mark.parametrize("settings", [{"share": "much"}, {"share": 1, "more": 2}, {}])
def test_settings_of_another_model_fail(settings):
    def stage(*, settings: Settings) -> None: ...

    with pytest.raises(ValidationError, match=r"share|more"):
        bound(stage, settings=settings)


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    """What a script gets, of a job with one input and one output; the log is the root logger's until the test ends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root, "handlers", [])
    Path("in").write_text("x")

    class Named(dict):
        def __iter__(self):
            return iter(self.values())

        def __getitem__(self, at):
            return list(self.values())[at]

    params = {"content": json.dumps({"settings": {"share": 1}, "keys": {}}), "run": json.dumps({"batch_size": 4})}
    words = {"rule": "copy", "input": Named(source="in"), "output": Named(target="results/s/out"), "threads": 2}
    yield SimpleNamespace(**words, params=params, log=["results/s/logs/out.log"], resources={})
    for handler in logging.root.handlers:
        handler.close()
    logging.captureWarnings(False)


def test_a_job_leaves_a_record_of_how_its_result_was_made(snakemake):
    import numpy

    def copy(source: Path, target: Path, *, settings: Settings, run: Run) -> None:
        target.write_text(source.read_text() * run.batch_size)

    run_job(copy, snakemake)
    assert Path("results/s/out").read_text() == "xxxx"
    (record,) = read_records(Path("results/s/records"))
    assert (record.rule, record.outputs, record.run, record.threads) == ("copy", ["results/s/out"], {"batch_size": 4}, 2)
    assert record.versions["numpy"] == numpy.__version__
    assert "done: " in Path("results/s/logs/out.log").read_text()


def test_a_rule_that_differs_from_its_stage_ends_the_job_with_the_message(snakemake):
    def copy(source: Path, target: Path, *, settings: Settings) -> None:
        raise AssertionError("it must not start")

    with pytest.raises(SystemExit):
        run_job(copy, snakemake)
    assert "BindingError: test_job.copy does not take run of its rule" in Path("results/s/logs/out.log").read_text()
    assert not Path("results/s/records").exists()
