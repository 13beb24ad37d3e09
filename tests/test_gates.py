"""Gates: training stops on bad inputs before it loads a model, and says where to look."""

import build
import polars as pl
import pytest

from prefdelta.checkpoints.manifest import write_manifest
from prefdelta.microworld.pretrain import make_tokenizer
from prefdelta.study.lattice import SIDES, Cell
from prefdelta.study.models import Chat
from prefdelta.study.recipe import Gates, Recipe
from prefdelta.study.run import TrainingRun
from prefdelta.tables.io import write_table
from prefdelta.tables.stages import Pairs, Ratings, References
from prefdelta.train.gates import GateError, check_gates
from prefdelta.train.policy import train_policy
from prefdelta.train.settings import PolicyRun, PolicySettings

CELL = Cell(policy="p", method="dpo", judge="j", chosen="good", rejected="bad", selection="full", seed=0)
RECIPE = {"trainer": "dpo", "beta": 1.0, "learning_rate": 1e-4, "batch_size": 4, "steps": 1, "max_length": 50}
GATES = Gates(judge_coverage=0.9, identical_pairs=0.5, truncated=0.2, ungraded=0.1)
SFT = {"trainer": "sft", "beta": None}


def files(folder, missing=0, identical=0, long=None, ungraded=None):
    """Inputs of ten pairs, and a base folder.

    ``missing`` of the rejected side's 250 ratings can't be read, ``identical`` pairs have equal texts, ``long`` (by side)
    traces are of 61 tokens with their prompt, the others below 40, and ``ungraded`` (by side) have no grade.
    """
    build.checkpoint(folder / "base", make_tokenizer())
    write_manifest(folder / "base" / "manifest.json", {})
    pairs = build.pairs(10).with_columns(prompt=pl.lit("1+2"), chosen_generator=pl.lit("good"), rejected_generator=pl.lit("bad"))
    ratings, references = {}, {}
    for side in SIDES:
        ids, n_long = pairs[f"{side}_trace_id"], (long or {}).get(side, 0)
        texts = [("1" if side == "chosen" else "2") * (55 if row < n_long else 20 + row) for row in range(10)]
        graded = pl.when(pl.int_range(pl.len()) >= (ungraded or {}).get(side, 0)).then(f"{side}_correct")
        pairs = pairs.with_columns(pl.Series(side, texts), graded.alias(f"{side}_correct"))
        gaps = iter([None] * (missing if side == "rejected" else 0))
        rated = build.ratings(pl.DataFrame({"trace_id": ids}), lambda *_, gaps=gaps: [next(gaps, 3) for _ in range(5)])
        lengths = {"n_prompt_tokens": [5] * 10, "n_tokens": [56 if row < n_long else 25 for row in range(10)]}
        reference = pl.DataFrame({"trace_id": ids, "logp": [-1.0] * 10, **lengths})
        for kind, model, table in (("ratings", Ratings, rated), ("reference", References, reference)):
            write_table(table, model, folder / f"{side}.{kind}.parquet")
        ratings[side], references[side] = (folder / f"{side}.{kind}.parquet" for kind in ("ratings", "reference"))
    same = pl.int_range(pl.len()) < identical
    write_table(pairs.with_columns(rejected=pl.when(same).then("chosen").otherwise("rejected")), Pairs, folder / "pairs.parquet")
    return folder / "pairs.parquet", ratings, references


def settings(**changes):
    recipe = Recipe.model_validate(RECIPE | changes)
    return PolicySettings(study="s", recipe=recipe, n_steps=1, unit=1, cell=CELL, chat=Chat(), seed=0)


def train(folder, changes=None, **broken):
    asked = settings(**changes or {})
    pairs, ratings, references = files(folder, **broken)
    stored = references if asked.recipe.has_reference else {}
    base, output = folder / "base" / "manifest.json", folder / "out" / "manifest.json"
    words = {"run": PolicyRun(training=TrainingRun(), gates=GATES), "threads": 1, "log_file": folder / "log"}
    try:
        train_policy(pairs, base, ratings, stored, output, settings=asked, **words)
    finally:
        assert not output.parent.exists()


def passes(folder, changes=None, **inputs):
    """Whether no gate stops what `train` would train."""
    pairs, ratings, references = files(folder, **inputs)
    asked = settings(**changes or {})
    stored = references if asked.recipe.has_reference else {}
    check_gates(pairs, ratings, stored, folder / "base", asked, GATES)
    return True


def test_too_few_readable_ratings_stop_training(tmp_path):
    expected = r"only 89\.6% of judge j's ratings of generator bad are readable, below gates\.judge_coverage 0\.9: see the column"
    with pytest.raises(GateError, match=rf"{expected} `reason` of {tmp_path}/rejected\.ratings\.parquet"):
        train(tmp_path, missing=26)


@pytest.mark.parametrize("changes", [{}, SFT], ids=["dpo", "sft"])
def test_too_many_identical_pairs_stop_training(tmp_path, changes):
    expected = r"60\.0% of the pairs, generators good and bad wrote the same text, above gates\.identical_pairs 0\.5"
    with pytest.raises(GateError, match=rf"{expected}.*{tmp_path}/pairs\.parquet"):
        train(tmp_path, changes, identical=6)


@pytest.mark.parametrize("changes", [{}, SFT], ids=["dpo", "sft"])
@pytest.mark.parametrize(("side", "generator"), [("chosen", "good"), ("rejected", "bad")])
def test_too_many_ungraded_answers_stop_training(tmp_path, changes, side, generator):
    expected = (
        rf"the answers of 20\.0% of the {side} traces, by generator {generator}, could not be graded, above gates\.ungraded"
    )
    with pytest.raises(GateError, match=rf"{expected} 0\.1: see the rows without `{side}_correct` of {tmp_path}/pairs\.parquet"):
        train(tmp_path, changes, ungraded={side: 2})


@pytest.mark.parametrize(("side", "generator"), [("chosen", "good"), ("rejected", "bad")])
def test_too_many_truncated_traces_stop_training(tmp_path, side, generator):
    expected = rf"30\.0% of the {side} traces, by generator {generator}, are longer than methods\.dpo\.max_length 50"
    with pytest.raises(
        GateError, match=rf"{expected}, above gates\.truncated 0\.2: .*`{side}_tokens` of {tmp_path}/pairs\.parquet"
    ):
        train(tmp_path, long={side: 3})


def test_without_references_the_tokens_that_training_reads_are_counted(tmp_path):
    with pytest.raises(GateError, match=r"30\.0% of the chosen traces"):
        train(tmp_path, SFT, long={"chosen": 3})


def test_what_sft_does_not_read_may_be_long(tmp_path):
    assert passes(tmp_path, SFT, long={"rejected": 10})


@pytest.mark.parametrize("changes", [{}, SFT], ids=["dpo", "sft"])
def test_at_its_threshold_a_gate_is_open(tmp_path, changes):
    assert passes(
        tmp_path, changes, missing=25, identical=5, long={"chosen": 2, "rejected": 2}, ungraded={"chosen": 1, "rejected": 1}
    )
    assert passes(tmp_path, changes | {"max_length": 61}, long={"chosen": 10, "rejected": 10})


def test_a_flipped_pair_is_cut_where_its_trace_is_long(tmp_path):
    pairs, ratings, references = files(tmp_path, long={"rejected": 3})
    other = {"chosen": references["rejected"], "rejected": references["chosen"]}
    with pytest.raises(GateError, match="of the rejected traces, by generator bad"):
        check_gates(pairs, ratings, other, tmp_path / "base", settings(), GATES)
