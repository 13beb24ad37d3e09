"""Generator-level deltas: of all parts of a table, pooled over draws, and the same wherever they are told."""

import random

import build
import polars as pl
import pytest

from prefdelta.findings.generator_deltas import GeneratorDeltas, accuracy_deltas, tabulate_generator_deltas
from prefdelta.findings.settings import GeneratorDeltasSettings
from prefdelta.measure.settings import ArmSettings, Bootstrap
from prefdelta.pairs import build as pairs
from prefdelta.study.dimensions import THE_FIVE
from prefdelta.tables import io as tables
from prefdelta.tables.io import read_result_csv, write_table
from prefdelta.tables.stages import Ratings, Traces

SIDES = {"c": ["c", "c2"], "r": ["r"]}
DRAWS = [draw for draws in SIDES.values() for draw in draws]


def levels(trace_id, dimension):
    rng = random.Random(f"{trace_id}/{dimension}")
    return [None if trace_id.startswith("q1:") else 3, *(rng.randint(1, 5) for _ in range(5))]


def mean(values):
    return sum(values) / len(values)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The traces of each draw: right ones at random, and of the second draw a prompt less."""
    rng, made = random.Random(0), {}
    for draw in DRAWS:
        frame = build.traces(draw, n_prompts=10, samples=3, correct=[rng.random() < 0.6 for _ in range(30)])
        made[draw] = frame.filter(pl.col("prompt_id") != "q4") if draw == "r" else frame
        write_table(made[draw], Traces, tmp_path / f"{draw}.traces.parquet")
        write_table(build.ratings(made[draw], levels), Ratings, tmp_path / f"{draw}.ratings.parquet")
    monkeypatch.setattr(pairs, "PART", 4)
    monkeypatch.setattr(tables, "BATCH", 7)  # so a prompt's traces, and a trace's ratings, are in several batches
    return made


def test_means_are_of_all_draws_and_parts_on_the_prompts_that_both_have(made, tmp_path):
    traces = {draw: tmp_path / f"{draw}.traces.parquet" for draw in DRAWS}
    ratings = {("j", draw): tmp_path / f"{draw}.ratings.parquet" for draw in DRAWS}
    bootstrap = Bootstrap(n_resamples=10, seed=0)
    table, settings = tmp_path / "deltas.csv", GeneratorDeltasSettings(sides={"j": SIDES}, bootstrap=bootstrap)
    tabulate_generator_deltas(traces, ratings, table, settings=settings)
    rows = {(row["chosen"], row["quantity"]): row for row in read_result_csv(table, GeneratorDeltas).iter_rows(named=True)}

    def right(draw):
        return mean([100 * row["correct"] for row in made[draw].iter_rows(named=True) if row["prompt_id"] != "q4"])

    def rated(draw):
        ids = [trace for trace in made[draw]["trace_id"] if not trace.startswith("q4:")]
        return mean([mean([level for level in levels(trace, "factuality") if level is not None]) for trace in ids])

    for quantity, of in (("accuracy", right), ("factuality", rated)):
        row = rows["c", quantity]
        chosen, rejected = mean([of("c"), of("c2")]), of("r")
        assert (row["chosen_mean"], row["rejected_mean"]) == pytest.approx((chosen, rejected))
        assert row["estimate"] == pytest.approx(chosen - rejected)
        assert rows["r", quantity]["estimate"] == pytest.approx(rejected - chosen)
        assert row["n_prompts"] == 9
    words = {"policy": "p", "method": "dpo", "judge": "j", "selection": "full"}
    arms = [ArmSettings(**words, chosen=chosen, rejected=rejected) for chosen, rejected in (("c", "r"), ("r", "c"))]
    told = {("c", "r"): rows["c", "accuracy"]["estimate"], ("r", "c"): rows["r", "accuracy"]["estimate"]}
    assert accuracy_deltas(traces, SIDES, arms) == pytest.approx(told, abs=1e-9)


def test_traces_that_nothing_is_known_to_be_right_of_have_ratings_and_no_accuracy(made, tmp_path):
    for draw in DRAWS:
        write_table(made[draw].with_columns(correct=pl.lit(None, pl.Boolean)), Traces, tmp_path / f"{draw}.traces.parquet")
    traces = {draw: tmp_path / f"{draw}.traces.parquet" for draw in DRAWS}
    ratings = {("j", draw): tmp_path / f"{draw}.ratings.parquet" for draw in DRAWS}
    settings = GeneratorDeltasSettings(sides={"j": SIDES}, bootstrap=Bootstrap(n_resamples=10, seed=0))
    tabulate_generator_deltas(traces, ratings, tmp_path / "deltas.csv", settings=settings)
    found = read_result_csv(tmp_path / "deltas.csv", GeneratorDeltas)
    assert sorted(found["quantity"].unique()) == sorted(THE_FIVE.criteria)
    arm = ArmSettings(policy="p", method="dpo", judge="j", selection="full", chosen="c", rejected="r")
    assert accuracy_deltas(traces, SIDES, [arm]) == {("c", "r"): None}
