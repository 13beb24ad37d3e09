"""What if: sizes, tokens, deltas, truncation and cost of arms before training, against values computed by hand."""

import json
from pathlib import Path

import build
import polars as pl
import pytest

from prefdelta.findings.answers import answer_whatif
from prefdelta.findings.figures import draw_whatif
from prefdelta.forecast.overlap import tabulate_overlap
from prefdelta.forecast.whatif import tabulate_whatif
from prefdelta.pairs.select import flip
from prefdelta.plan import specs
from prefdelta.study import paths
from prefdelta.study.config import ConfigError, load_study
from prefdelta.study.dimensions import CRITERIA
from prefdelta.study.lattice import all_references
from prefdelta.tables.findings import Capability, GeneratorDeltas, Overlap, WhatIf
from prefdelta.tables.io import read_result_csv, rows_to_table, write_result_table, write_table
from prefdelta.tables.stages import Pairs, References

DELTAS = [-1.0, 0.0, 1.0, 2.0]
CHOSEN_TOKENS, REJECTED_TOKENS = [10, 20, 30, 60], [5, 5, 15, 15]  # as the policy counts them, end token included
PROMPT_TOKENS, WRITTEN = 8, 3  # WRITTEN: tokens of each of the base policy's 50 answers
GATES = {"identical_pairs": 0.8, "truncated": 0.2}
COST = {"training_tokens_per_second": 10.0, "evaluation_tokens_per_second": 5.0, "price_per_hour": 36.0}


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
    training |= {"reads": ["chosen", "rejected"], "has_lengths": True, "experiments": ["one", "two"]}
    return {**names, "cells": cells or [{"study": "s", **names, "seed": "0"}], **training, **words}


@pytest.fixture
def whatif(tmp_path, monkeypatch):
    """``whatif(*arms)`` writes whatif.csv of a study of two generators and returns its rows."""
    monkeypatch.chdir(tmp_path)
    pairs = four_pairs()
    write_table(pairs, Pairs, paths.PAIRS.format(study="s", judge="j", chosen="good", rejected="bad", selection="full"))
    for side, generator, tokens in (("chosen", "good", CHOSEN_TOKENS), ("rejected", "bad", REJECTED_TOKENS)):
        each = {
            "trace_id": pairs[f"{side}_trace_id"],
            "n_prompt_tokens": [PROMPT_TOKENS] * 4,
            "n_tokens": tokens,
            "logp": [-1.0] * 4,
        }
        # A row for each of two length limits, neither of which needs to be an arm's.
        stored = pl.concat([pl.DataFrame({**each, "max_length": [length] * 4}) for length in (500, 600)])
        stored = stored.select(list(References.to_schema().columns))
        write_table(stored, References, paths.REFERENCE.format(study="s", policy="p", generator=generator))
    answers = {"task": "t", "suite": "ood", "decoding": "sampled", "text": "", "answer": None, "correct": True}
    answers |= {"n_tokens": WRITTEN, "finish_reason": "stop"}
    evaluation = [{"item_id": f"i{item}", "sample": sample, **answers} for item in range(10) for sample in range(5)]
    base = Path(paths.EVAL_BASE.format(study="s", model="p"))
    base.parent.mkdir(parents=True)
    pl.DataFrame(evaluation, schema_overrides={"answer": pl.String}).write_parquet(base)
    each = {
        "chosen": "good",
        "rejected": "bad",
        "chosen_mean": 0.0,
        "rejected_mean": 0.0,
        "ci_low": 0.0,
        "ci_high": 0.0,
        "n_prompts": 2,
    }
    sizes = {("j", "accuracy"): 25.0, ("j", "overall"): 0.75, ("k", "accuracy"): 20.0, ("k", "overall"): 0.5}
    rows = [{**each, "judge": judge, "quantity": name, "estimate": value} for (judge, name), value in sizes.items()]
    write_result_table(rows_to_table(rows, GeneratorDeltas), GeneratorDeltas, "deltas.csv")
    shape = {
        "model": "p",
        "family": "f",
        "hidden_size": 1,
        "layers": 1,
        "parameters": 1,
        "ci_low": 0.0,
        "ci_high": 0.0,
        "n_items": 1,
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
    write_result_table(rows_to_table(measured, Capability), Capability, "capability.csv")

    def tabulate(*arms, cost=None, predictor=None):
        words = {"study": "s", "suite": "ood", "cost": cost, "predictor": predictor}
        tabulate_whatif("deltas.csv", "capability.csv", "whatif.csv", arms=list(arms), **words)
        return read_result_csv("whatif.csv", WhatIf).rows(named=True)

    return tabulate


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
    for name in CRITERIA:
        assert row[f"delta_{name}"] == pytest.approx(pairs[f"delta_{name}"].mean())
    assert (row["generator_delta"], row["generator_delta_overall"]) == (25, 0.75)
    assert row["base_accuracy"] == 40


def test_the_generators_delta_is_the_arms_own_judges(whatif):
    write_table(four_pairs(), Pairs, paths.PAIRS.format(study="s", judge="k", chosen="good", rejected="bad", selection="full"))
    one, other = whatif(an_arm(), an_arm(judge="k"))
    assert (one["generator_delta_overall"], other["generator_delta_overall"]) == (0.75, 0.5)


@pytest.mark.parametrize(("max_length", "cut", "tokens"), [(100, 0, 30), (68, 0, 30), (67, 0.25, 29.75), (20, 0.75, 11.5)])
def test_what_max_length_cuts_is_counted_and_not_read(whatif, max_length, cut, tokens):
    (row,) = whatif(an_arm(max_length=max_length))
    assert (row["chosen_truncated"], row["chosen_tokens"]) == (cut, tokens)
    assert row["rejected_truncated"] == (0.5 if max_length == 20 else 0)


def test_exchanged_sides_are_found_in_the_other_generators_references(whatif):
    words = {"study": "s", "judge": "j", "chosen": "good", "rejected": "bad", "selection": "flipped-4"}
    write_table(flip(four_pairs()), Pairs, paths.PAIRS.format(**words))
    (row,) = whatif(an_arm(selection="flipped-4", max_length=67))
    assert (row["chosen_tokens"], row["rejected_tokens"]) == (10, 29.75)
    assert (row["chosen_truncated"], row["rejected_truncated"]) == (0, 0.25)
    assert row["delta_overall"] == -0.5


def test_without_lengths_tokens_are_the_generators_and_truncation_is_unknown(whatif):
    (row,) = whatif(an_arm(has_lengths=False, max_length=20))
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
    cells = [{"study": "s", "policy": "p", "judge": "j", "chosen": "good", "rejected": "bad", "selection": "full", "seed": "0"}]
    cells.append(cells[0] | {"selection": "random2-draw1", "seed": "1"})
    write_table(four_pairs()[:2], Pairs, paths.PAIRS.format(**cells[1]))
    (row,) = whatif(an_arm(cells, selection="random2"), cost=COST)
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
    unknown = ("training_hours", "evaluation_hours", "cost", "predicted_gain", "predicted_low", "predicted_high")
    assert [row[name] for name in unknown] == [None] * 6


def test_a_predictor_predicts_what_it_was_fitted_on(whatif):
    (row,) = whatif(an_arm(), predictor=paths.SHIPPED)
    made = json.loads(paths.predictor_file(paths.SHIPPED).read_text())
    terms = {"delta": 0.5 / (0.5 + 0.5), "generator_delta": 0.75 / (0.75 + 0.5), "chosen_over_policy": 0.0}
    scaled = {name: (terms[name] - one["mean"]) / one["sd"] * one["coefficient"] for name, one in made["features"].items()}
    assert row["predicted_gain"] == pytest.approx(made["intercept"] + sum(scaled.values()))
    assert row["predicted_low"] < row["predicted_gain"] < row["predicted_high"]


def test_what_a_study_tells_of_its_arms():
    content = build.config(chosen=["qwen-s"], method=["dpo", "kto", "sft"], versus=[])
    content["experiments"]["again"] = content["experiments"]["generator_delta"] | {"method": ["dpo"], "seeds": 5}
    content["methods"]["kto"]["micro_batch"] = 16
    told = json.loads(specs.whatif_spec(load_study(content)))
    arms = {arm["method"]: arm for arm in told["arms"]}
    assert {name: (arm["n_examples"], arm["unit"]) for name, arm in arms.items()} == {
        "dpo": (1, 1),
        "kto": (2, 16),
        "sft": (1, 1),
    }
    assert {name: arm["reads"] for name, arm in arms.items()}["sft"] == ["chosen"]
    assert arms["dpo"]["experiments"] == ["generator_delta", "again"]
    assert {name: len(arm["cells"]) for name, arm in arms.items()} == {"dpo": 5, "kto": 3, "sft": 3}
    # DPO's references hold the lengths of the same traces.
    assert arms["sft"]["has_lengths"]
    assert told["suite"] == "out_of_domain"
    alone = load_study(build.config(chosen=["qwen-s"], method=["sft"], versus=[]))
    assert all_references(alone) == []
    assert not json.loads(specs.whatif_spec(alone))["arms"][0]["has_lengths"]


def test_a_beta_changes_nothing_and_a_batch_does():
    def told(**change):
        content = build.config()
        content["methods"]["dpo"] |= change
        return specs.whatif_spec(load_study(content))

    assert told(beta=0.5) == told()
    assert told(batch_size=16) != told()


def test_a_study_is_not_predicted_by_its_own_arms():
    with pytest.raises(ConfigError, match="predictor: that of the study itself"):
        load_study({**build.config(), "predictor": "results/microworld/tables/predictor.json"})
    assert load_study({**build.config(), "predictor": "results/other/tables/predictor.json"}).predictor


def test_the_words_name_the_arms_to_look_at(whatif):
    whatif(an_arm(max_length=67), an_arm(method="sft", trainer="sft", reads=["chosen"], n_steps=60), cost=COST)
    size, cut, same, direction, budget = answer_whatif(read_result_csv("whatif.csv", WhatIf), **GATES)
    assert "at least 4 pairs" in size
    assert "Pairs are read more than 4 times: sft, good over bad, full." in size
    assert cut.endswith("Above the gate of 20%, so training would not start: dpo, good over bad, full.")
    assert "25.0% of pairs" in same
    assert same.endswith("Above the gate of 80%, so training would not start: none.")
    assert direction == "Mean overall delta of 0 or less: none."
    assert "2 trainings of 2 arms read 4.08e+03 completion tokens" in budget
    assert "cost 4.68." in budget


def test_the_words_do_not_know_what_the_table_does_not(whatif):
    whatif(an_arm(has_lengths=False))
    lines = answer_whatif(read_result_csv("whatif.csv", WhatIf), **GATES)
    assert "Truncation by max_length: unknown." in lines
    assert "unknown without `cost`" in lines[-1]
    assert not [line for line in lines if "Predicted" in line]


@pytest.mark.parametrize("predictor", [paths.SHIPPED, None])
def test_the_figure_says_where_its_prediction_comes_from(whatif, predictor):
    names = {"study": "s", "judge": "j", "chosen": "good", "rejected": "bad"}
    sets = [{**names, "selection": selection} for selection in ("full", "top3-overall", "flipped-3")]
    for words, pairs in zip(sets[1:], (four_pairs()[1:], flip(four_pairs()[:3])), strict=True):
        write_table(pairs, Pairs, paths.PAIRS.format(**words))
    whatif(*(an_arm(selection=words["selection"]) for words in sets), predictor=predictor)
    tabulate_overlap("overlap.csv", groups=[sets])
    words = {"study": "s", "suite": "ood", "predictor": predictor}
    draw_whatif("whatif.csv", "overlap.csv", "figure.png", **words, **GATES)
    told, drawn = Path("figure.rst").read_text(), Path("figure.svg").stat().st_size
    assert ("arms of the micro-world (out_of_domain)" in told) == (predictor is not None)
    assert "Mean overall delta of 0 or less: good over bad, flipped-3." in told
    assert "own arms" not in told
    write_result_table(rows_to_table([], Overlap), Overlap, "overlap.csv")
    draw_whatif("whatif.csv", "overlap.csv", "figure.png", **words, **GATES)
    assert 0 < Path("figure.svg").stat().st_size < drawn
