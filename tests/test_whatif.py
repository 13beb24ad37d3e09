"""What if: sizes, tokens, deltas, truncation and cost of arms before training, against values computed by hand."""

import hashlib
import json
import math

import build
import polars as pl
import pytest

from prefdelta.configure.load import load_study
from prefdelta.findings.capability import Capability
from prefdelta.findings.generator_deltas import GeneratorDeltas
from prefdelta.forecast.overlap import Overlap, tabulate_overlap
from prefdelta.forecast.requests import Requests
from prefdelta.forecast.settings import OverlapSettings, PlannedArm, WhatIfFigureSettings, WhatIfSettings
from prefdelta.forecast.whatif import answer_whatif, read_whatif, tabulate_whatif
from prefdelta.forecast.whatif_figure import plot_whatif
from prefdelta.pairs.select import flip
from prefdelta.plan import forecasts
from prefdelta.run.errors import ConfigError
from prefdelta.study.dimensions import THE_FIVE, Rubric
from prefdelta.study.lattice import Cell, PairSet
from prefdelta.study.study import Cost
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table, write_table
from prefdelta.tables.stages import Pairs, Predictions, References

DELTAS = [-1.0, 0.0, 1.0, 2.0]
CHOSEN_TOKENS, REJECTED_TOKENS = [10, 20, 30, 60], [5, 5, 15, 15]  # as the policy counts them, end token included
PROMPT_TOKENS, WRITTEN = 8, 3  # WRITTEN: tokens of each of the base policy's 50 answers
GATES = {"identical_pairs": 0.8, "truncated": 0.2}
COST = Cost(training_tokens_per_second=10.0, evaluation_tokens_per_second=5.0, price_per_hour=36.0)


def four_pairs():
    """Overall deltas are `DELTAS`, the texts of the last pair are equal, generators count ten times the policy's tokens."""
    pairs = build.pairs(4, correct=[(True, False), (True, True), (True, False), (False, False)])
    last = pl.int_range(pl.len()) == 3
    return pairs.with_columns(
        delta_overall=pl.Series(DELTAS),
        rejected=pl.when(last).then("chosen").otherwise("rejected"),
        chosen_tokens=pl.Series(CHOSEN_TOKENS) * 10,
        rejected_tokens=pl.Series(REJECTED_TOKENS) * 10,
    )


def an_arm(cells=None, **words):
    names = {"policy": "p", "method": "dpo", "judge": "j", "chosen": "good", "rejected": "bad", "selection": "full"}
    names |= {key: words.pop(key) for key in list(words) if key in names}
    training = {"trainer": "dpo", "n_steps": 6, "batch_size": 3, "n_examples": 1, "unit": 1, "max_length": 100}
    training |= {"reads": ["chosen", "rejected"], "lengths": (500, "bf16"), "experiments": ["one", "two"]}
    return PlannedArm(**{**names, "cells": cells or [Cell(**names, seed=0)], **training, **words})


def pair_set(selection, judge="j"):
    return PairSet(judge, "good", "bad", selection)


@pytest.fixture
def whatif(tmp_path):
    """``whatif(*arms)`` writes whatif.csv of a study of two generators and returns its rows.

    Its pairs are `four_pairs`, but for those that are given, by their set.
    """
    pairs, references = four_pairs(), {}
    for side, generator, tokens in (("chosen", "good", CHOSEN_TOKENS), ("rejected", "bad", REJECTED_TOKENS)):
        each = {
            "trace_id": pairs[f"{side}_trace_id"],
            "n_prompt_tokens": [PROMPT_TOKENS] * 4,
            "n_tokens": tokens,
            "logp": [-1.0] * 4,
        }
        # Of a length limit that need not be the arm's.
        references["p", 500, "bf16", generator] = tmp_path / f"{generator}.parquet"
        stored = pl.DataFrame(each).select(list(References.to_schema().columns))
        write_table(stored, References, tmp_path / f"{generator}.parquet")
    answers = {"task": "t", "suite": "ood", "decoding": "sampled", "text": "", "answer": None, "correct": True}
    answers |= {"n_tokens": WRITTEN, "finish_reason": "stop"}
    evaluation = [{"item_id": f"i{item}", "sample": sample, **answers} for item in range(10) for sample in range(5)]
    write_table(pl.DataFrame(evaluation, schema_overrides={"answer": pl.String}), Predictions, tmp_path / "base.parquet")
    each = {
        "chosen": "good",
        "rejected": "bad",
        "chosen_mean": 0.0,
        "rejected_mean": 0.0,
        "ci_low": 0.0,
        "ci_high": 0.0,
        "n_prompts": 2,
        "n_ungraded": 0,
    }
    sizes = {("j", "accuracy"): 25.0, ("j", "overall"): 0.75, ("k", "accuracy"): 20.0, ("k", "overall"): 0.5}
    rows = [{**each, "judge": judge, "quantity": name, "estimate": value} for (judge, name), value in sizes.items()]
    write_result_table(rows_to_table(rows, GeneratorDeltas), GeneratorDeltas, tmp_path / "deltas.csv")
    shape = {
        "model": "p",
        "family": "f",
        "hidden_size": 1,
        "layers": 1,
        "parameters": 1,
        "ci_low": 0.0,
        "ci_high": 0.0,
        "n_items": 1,
        "n_ungraded": 0,
    }
    measured = [
        {**shape, "suite": suite, "task": task, "decoding": decoding, "estimate": estimate}
        for suite, task, decoding, estimate in (
            ("ood", None, "sampled", 40.0),
            ("ood", None, "greedy", 50.0),
            ("ood", "t", "sampled", 60.0),
            ("other", None, "sampled", 70.0),
        )
    ]
    write_result_table(rows_to_table(measured, Capability), Capability, tmp_path / "capability.csv")

    def tabulate(*arms, given=None, cost=None, predictor=None, rated=None):
        files = {}
        for named in dict.fromkeys(cell.pairs for arm in arms for cell in arm.cells):
            files[named] = tmp_path / f"{named.judge}-{named.selection}.parquet"
            write_table((given or {}).get(named, pairs), Pairs, files[named], (rated or {}).get(named.judge, THE_FIVE))
        tables = [tmp_path / "deltas.csv", tmp_path / "capability.csv"]
        made = references, {"p": tmp_path / "base.parquet"}, predictor, tmp_path / "whatif.csv"
        tabulate_whatif(*tables, files, *made, settings=WhatIfSettings(suite="ood", arms=list(arms), cost=cost))
        return read_whatif(tmp_path / "whatif.csv").rows(named=True)

    return tabulate


def test_an_arm_has_the_deltas_of_its_judges_dimensions_and_no_others(whatif, tmp_path):
    two = Rubric.model_validate(build.TWO).rated
    by_two = build.pairs(4, rated=two).with_columns(four_pairs().select("chosen_trace_id", "rejected_trace_id"))
    five, other = whatif(an_arm(), an_arm(judge="k"), given={pair_set("full", "k"): by_two}, rated={"k": two})
    assert other["delta_clarity"] == pytest.approx(by_two["delta_clarity"].mean()) and other["delta_factuality"] is None
    assert five["delta_factuality"] is not None and five["delta_clarity"] is None
    columns = read_whatif(tmp_path / "whatif.csv").columns
    assert columns.index("delta_signal_to_noise") < columns.index("delta_correctness") == columns.index("delta_overall") - 1


def test_sizes_tokens_and_passes_of_an_arm(whatif):
    (row,) = whatif(an_arm())
    # Steps of three of four pairs: a pass is a step of three and one of one, so six steps are three passes.
    assert (row["n_pairs"], row["n_steps"], row["n_passes"], row["n_seeds"]) == (4, 6, 3, 1)
    assert (row["chosen_tokens"], row["rejected_tokens"]) == (30, 10)
    assert row["n_training_tokens"] == 3 * (120 + 40)
    assert row["n_evaluation_tokens"] == 50 * WRITTEN
    assert row["experiments"] == "one, two"
    assert (row["chosen_correct"], row["rejected_correct"]) == (0.75, 0.25)


def test_deltas_of_an_arm(whatif):
    (row,) = whatif(an_arm())
    assert row["delta_overall"] == 0.5
    assert row["delta_overall_sd"] == pytest.approx(1.25**0.5)
    assert [row[f"delta_overall_q{percent}"] for percent in (10, 50, 90)] == pytest.approx([-0.7, 0.5, 1.7])
    assert (row["negative"], row["identical"]) == (0.25, 0.25)
    pairs = four_pairs()
    for name in THE_FIVE.criteria:
        assert row[f"delta_{name}"] == pytest.approx(pairs[f"delta_{name}"].mean())
    assert (row["generator_delta"], row["generator_delta_overall"]) == (25, 0.75)
    assert row["base_accuracy"] == 40


def test_without_right_answers_there_is_no_generator_delta_but_that_of_ratings(whatif, tmp_path):
    deltas = read_result_csv(tmp_path / "deltas.csv", GeneratorDeltas).filter(pl.col("quantity") != "accuracy")
    write_result_table(deltas, GeneratorDeltas, tmp_path / "deltas.csv")
    ungraded = four_pairs().with_columns(chosen_correct=pl.lit(None, pl.Boolean), rejected_correct=pl.lit(None, pl.Boolean))
    (row,) = whatif(an_arm(), given={pair_set("full"): ungraded})
    assert (row["generator_delta"], row["generator_delta_overall"], row["chosen_correct"]) == (None, 0.75, None)


def test_the_generators_delta_is_the_arms_own_judges(whatif):
    one, other = whatif(an_arm(), an_arm(judge="k"))
    assert (one["generator_delta_overall"], other["generator_delta_overall"]) == (0.75, 0.5)


@pytest.mark.parametrize(("max_length", "cut", "tokens"), [(100, 0, 30), (68, 0, 30), (67, 0.25, 29.75), (20, 0.75, 11.5)])
def test_what_max_length_cuts_is_counted_and_not_read(whatif, max_length, cut, tokens):
    (row,) = whatif(an_arm(max_length=max_length))
    assert (row["chosen_truncated"], row["chosen_tokens"]) == (cut, tokens)
    assert row["rejected_truncated"] == (0.5 if max_length == 20 else 0)


def test_exchanged_sides_are_found_in_the_other_generators_references(whatif):
    flipped = {pair_set("flipped-4"): flip(four_pairs())}
    (row,) = whatif(an_arm(selection="flipped-4", max_length=67), given=flipped)
    assert (row["chosen_tokens"], row["rejected_tokens"]) == (10, 29.75)
    assert (row["chosen_truncated"], row["rejected_truncated"]) == (0, 0.25)
    assert row["delta_overall"] == -0.5


def test_without_lengths_tokens_are_the_generators_and_truncation_is_unknown(whatif):
    (row,) = whatif(an_arm(lengths=None, max_length=20))
    assert (row["chosen_tokens"], row["rejected_tokens"]) == (300, 100)
    assert (row["chosen_truncated"], row["rejected_truncated"]) == (None, None)


def test_imitation_reads_the_chosen_side_alone(whatif):
    dpo, sft = whatif(an_arm(max_length=20), an_arm(method="sft", trainer="sft", reads=["chosen"], max_length=20))
    assert sft["n_training_tokens"] == 3 * 4 * sft["chosen_tokens"] < dpo["n_training_tokens"]
    assert (sft["chosen_truncated"], sft["rejected_truncated"]) == (0.75, None)


def test_kto_reads_each_pair_as_two_examples_and_leaves_out_what_fills_no_forward_pass(whatif):
    # Eight examples of which six fill forward passes of three: two steps are a pass.
    (row,) = whatif(an_arm(method="kto", trainer="kto", n_examples=2, unit=3))
    assert row["n_passes"] == 3 * 6 / 8
    assert row["n_training_tokens"] == 3 * 6 / 8 * (120 + 40)
    (row,) = whatif(an_arm(method="kto", trainer="kto", n_examples=2, unit=9))
    assert (row["n_passes"], row["n_training_tokens"]) == (0, 0)


def test_seeds_are_averaged_and_paid_for_together(whatif):
    sets = pair_set("full"), pair_set("random2-draw1")
    cells = [Cell("p", "dpo", **vars(pairs), seed=seed) for seed, pairs in enumerate(sets)]
    (row,) = whatif(an_arm(cells, selection="random2"), given={sets[1]: four_pairs()[:2]}, cost=COST)
    assert (row["n_seeds"], row["n_pairs"], row["chosen_tokens"]) == (2, 3, (30 + 15) / 2)
    # Six steps read all of two pairs each time.
    assert row["n_passes"] == (3 + 6) / 2
    tokens = [3 * 160, 6 * 40]
    assert row["n_training_tokens"] == sum(tokens) / 2
    assert row["training_hours"] == pytest.approx(sum(tokens) / 10 / 3600)
    assert row["evaluation_hours"] == pytest.approx(2 * 50 * WRITTEN / 5 / 3600)
    assert row["cost"] == pytest.approx((sum(tokens) / 10 + 2 * 50 * WRITTEN / 5) / 100)


def test_without_cost_and_predictor_neither_is_told(whatif):
    (row,) = whatif(an_arm())
    unknown = ("training_hours", "evaluation_hours", "cost", "predicted_gain", "predicted_low", "predicted_high", "predictor")
    assert [row[name] for name in unknown] == [None] * 7


def test_a_predictor_predicts_in_log_odds_and_is_named_with_its_digest(whatif, tmp_path):
    predictor = build.predictor(tmp_path / "predictor.json")
    (row,) = whatif(an_arm(), predictor=predictor)
    made = json.loads(predictor.read_text())
    terms = {"delta": 0.5 / (0.5 + 0.5), "generator_delta": 0.75 / (0.75 + 0.5), "chosen_over_policy": 0.0}
    scaled = {name: (terms[name] - one["mean"]) / one["sd"] * one["coefficient"] for name, one in made["features"].items()}
    expected = math.log(40.5 / 60.5) + made["intercept"] + sum(scaled.values())  # the policy has 40 points
    reached = {"predicted_gain": expected, "predicted_low": expected - 1.96 * 0.2, "predicted_high": expected + 1.96 * 0.2}
    for name, odds in reached.items():
        assert row[name] == pytest.approx(101 / (1 + math.exp(-odds)) - 0.5 - 40, abs=1e-3)
    assert row["predictor"] == f"other, out_of_domain, sha256 {hashlib.sha256(predictor.read_bytes()).hexdigest()}"


def test_what_a_study_tells_of_its_arms():
    content = build.config(chosen=["rung1"], method=["dpo", "kto", "sft"], versus=[])
    content["experiments"]["again"] = content["experiments"]["generator_delta"] | {"method": ["dpo"], "seeds": 5}
    content["run"]["methods"]["kto"] = {"micro_batch": 16}
    told = forecasts.tabulate_whatif(load_study(content), {})
    arms = {arm.method: arm for arm in told.settings.arms}
    assert {name: (arm.n_examples, arm.unit) for name, arm in arms.items()} == {
        "dpo": (1, 1),
        "kto": (2, 16),
        "sft": (1, 1),
    }
    assert arms["sft"].reads == ["chosen"]
    assert arms["dpo"].experiments == ["generator_delta", "again"]
    assert {name: len(arm.cells) for name, arm in arms.items()} == {"dpo": 5, "kto": 3, "sft": 3}
    # DPO's references hold the lengths of the same traces.
    assert arms["sft"].lengths == arms["dpo"].lengths == (1024, "float32")
    assert told.settings.suite == "out_of_domain"
    alone = forecasts.tabulate_whatif(load_study(build.config(chosen=["rung1"], method=["sft"], versus=[])), {})
    assert alone.inputs["references"] == {}
    assert alone.settings.arms[0].lengths is None


def test_a_beta_changes_nothing_and_a_batch_does():
    def told(**change):
        content = build.config()
        content["methods"]["dpo"] |= change
        return forecasts.tabulate_whatif(load_study(content), {}).content

    assert told(beta=0.5) == told()
    assert told(batch_size=16) != told()


@pytest.mark.parametrize("key, file", [("predictor", "./results/{}/tables/predictor.json"), ("replicates", "results/{}")])
def test_a_study_is_not_held_against_itself(key, file):
    with pytest.raises(ConfigError, match="predictor, replicates: results of the study itself"):
        load_study({**build.config(), key: file.format("microworld")})
    assert load_study({**build.config(), key: file.format("other")}).others == ["other"]


def test_without_a_predictor_none_is_read_and_a_missing_one_is_told_with_the_command_that_makes_it(tmp_path):
    assert load_study(build.config()).predictor is None
    file = str(tmp_path / "predictor.json")
    loaded = load_study({**build.config(), "predictor": file})
    with pytest.raises(ConfigError, match=f"{file} is missing: another study makes it(?s:.*)snakemake --configfile .* -- {file}"):
        forecasts.tabulate_whatif(loaded, {})
    build.predictor(tmp_path / "predictor.json")
    assert forecasts.tabulate_whatif(loaded, {}).files["predictor"] == [file]


def test_the_words_name_the_arms_to_look_at(whatif, tmp_path):
    whatif(an_arm(max_length=67), an_arm(method="sft", trainer="sft", reads=["chosen"], n_steps=60), cost=COST)
    size, cut, same, direction, budget = answer_whatif(read_whatif(tmp_path / "whatif.csv"), **GATES)
    assert "at least 4 pairs" in size
    assert "Pairs are read more than 4 times: sft, good over bad, full." in size
    assert cut.endswith("Above the gate of 20%, so training would not start: dpo, good over bad, full.")
    assert "25.0% of pairs" in same
    assert same.endswith("Above the gate of 80%, so training would not start: none.")
    assert direction == "Mean overall delta of 0 or less: none."
    assert "2 trainings of 2 arms read 4.08e+03 completion tokens" in budget
    assert "cost 4.68." in budget


def test_the_words_do_not_know_what_the_table_does_not(whatif, tmp_path):
    whatif(an_arm(lengths=None))
    lines = answer_whatif(read_whatif(tmp_path / "whatif.csv"), **GATES)
    assert "Truncation by max_length: unknown." in lines
    assert "unknown without `cost`" in lines[-1]
    assert not [line for line in lines if "Predicted" in line]


@pytest.mark.parametrize("predicted", [True, False])
def test_the_figure_says_where_its_prediction_comes_from(whatif, predicted, tmp_path):
    predictor = build.predictor(tmp_path / "predictor.json") if predicted else None
    given = {"full": four_pairs(), "top3-overall": four_pairs()[1:], "flipped-3": flip(four_pairs()[:3])}
    given = {pair_set(selection): pairs for selection, pairs in given.items()}
    whatif(*(an_arm(selection=named.selection) for named in given), given=given, predictor=predictor)
    table, overlap, requests, figure = (tmp_path / name for name in ("whatif.csv", "overlap.csv", "requests.csv", "figure.png"))
    write_result_table(rows_to_table([], Requests), Requests, requests)
    pairs = {named: tmp_path / f"j-{named.selection}.parquet" for named in given}
    tabulate_overlap(pairs, overlap, settings=OverlapSettings(groups=[list(pairs)]))
    settings = WhatIfFigureSettings(study="s", suite="ood", **GATES)
    plot_whatif(table, overlap, requests, predictor, figure, settings=settings)
    told, size = figure.with_suffix(".rst").read_text(), figure.with_suffix(".svg").stat().st_size
    assert ("60 arms of the study other (out_of_domain)" in told) == predicted
    assert "Mean overall delta of 0 or less: good over bad, flipped-3." in told
    assert "own arms" not in told
    write_result_table(rows_to_table([], Overlap), Overlap, overlap)
    plot_whatif(table, overlap, requests, predictor, figure, settings=settings)
    assert 0 < figure.with_suffix(".svg").stat().st_size < size
