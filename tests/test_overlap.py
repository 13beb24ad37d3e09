"""Overlap: pairs of two sets are counted by their traces, and only sets of the same two generators are compared."""

from dataclasses import replace

import build
import pytest

from prefdelta.configure.load import load_study
from prefdelta.forecast.overlap import Overlap, tabulate_overlap
from prefdelta.forecast.settings import OverlapSettings
from prefdelta.pairs.select import flip
from prefdelta.plan import forecasts
from prefdelta.study.lattice import PairSet
from prefdelta.tables.io import read_result_csv, write_table
from prefdelta.tables.stages import Pairs


def pair_set(selection, judge="j"):
    return PairSet(judge, "good", "bad", selection)


@pytest.fixture
def overlap(tmp_path):
    """``overlap(*groups)``: the table of groups of pairs, each by its set."""

    def tabulate(*groups):
        files = {}
        for named, pairs in (item for group in groups for item in group.items()):
            files[named] = tmp_path / f"{len(files)}.parquet"
            write_table(pairs, Pairs, files[named])
        settings = OverlapSettings(groups=[list(group) for group in groups])
        tabulate_overlap(files, tmp_path / "overlap.csv", settings=settings)
        return read_result_csv(tmp_path / "overlap.csv", Overlap)

    return tabulate


def test_shared_pairs_are_counted_and_are_a_share_of_the_smaller_set(overlap):
    pairs = build.pairs(10)
    rows = overlap({pair_set("full"): pairs, pair_set("top4"): pairs[:4], pair_set("bottom7"): pairs[3:]})
    assert rows.select("selection", "other_selection", "n_pairs", "n_other", "n_shared", "share").rows() == [
        ("full", "top4", 10, 4, 4, 1),
        ("full", "bottom7", 10, 7, 7, 1),
        ("top4", "bottom7", 4, 7, 1, 0.25),
    ]


def test_exchanged_sides_are_the_same_pairs(overlap):
    pairs = build.pairs(10)
    rows = overlap({pair_set("full"): pairs, pair_set("flipped-5"): flip(pairs)[:5]})
    assert rows.select("n_shared", "share").rows() == [(5, 1)]


def test_other_traces_of_the_same_prompts_are_other_pairs(overlap):
    pairs = build.pairs(4)
    crossed = pairs.with_columns(rejected_trace_id=pairs["rejected_trace_id"].reverse(), pair_id=pairs["pair_id"] + "x")
    assert overlap({pair_set("full"): pairs, pair_set("correct_over_wrong-4"): crossed})["n_shared"].to_list() == [0]


def test_groups_are_not_compared_with_each_other(overlap):
    pairs = build.pairs(4)
    one = {pair_set("full", judge): pairs for judge in ("j", "k")}
    rows = overlap(one, {replace(named, chosen="better"): pairs for named in one})
    assert rows.select("chosen", "judge", "other_judge").rows() == [("good", "j", "k"), ("better", "j", "k")]


def test_nothing_to_compare_is_an_empty_table(overlap):
    assert overlap().is_empty()


def test_a_study_compares_each_pair_set_once():
    words = {"chosen": ["rung1", "rung2"], "method": ["dpo", "sft"], "selection": ["full", "random40"]}
    job = forecasts.tabulate_overlap(load_study(build.config(**words, versus=[])), {})
    assert [[(pairs.chosen, pairs.selection) for pairs in group] for group in job.settings.groups] == [
        [("rung1", "full"), ("rung1", "random40-draw0")],
        [("rung2", "full"), ("rung2", "random40-draw0")],
    ]
    assert list(job.inputs["pairs"]) == [pairs for group in job.settings.groups for pairs in group]
    alone = load_study(build.config(chosen=["rung1"], method=["dpo", "kto"], versus=[]))
    assert forecasts.tabulate_overlap(alone, {}).settings.groups == []
