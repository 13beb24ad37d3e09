"""Overlap: pairs of two sets are counted by their traces, and only sets of the same two generators are compared."""

import build
import pytest

from prefdelta.forecast.overlap import tabulate_overlap
from prefdelta.pairs.select import flip
from prefdelta.study import paths
from prefdelta.study.config import load_study
from prefdelta.study.lattice import pair_groups
from prefdelta.tables.findings import Overlap
from prefdelta.tables.io import read_result_csv, write_table
from prefdelta.tables.stages import Pairs


def pair_set(selection, pairs, judge="j"):
    words = {"study": "s", "judge": judge, "chosen": "good", "rejected": "bad", "selection": selection}
    write_table(pairs, Pairs, paths.PAIRS.format(**words))
    return words


@pytest.fixture
def overlap(tmp_path, monkeypatch):
    """``overlap(*groups)``: rows of the table by the two selections."""
    monkeypatch.chdir(tmp_path)

    def tabulate(*groups):
        tabulate_overlap("overlap.csv", groups=list(groups))
        rows = read_result_csv("overlap.csv", Overlap).iter_rows(named=True)
        return {(row["selection"], row["other_selection"]): row for row in rows}

    return tabulate


def test_shared_pairs_are_counted_and_are_a_share_of_the_smaller_set(overlap):
    pairs = build.pairs(10)
    sets = [pair_set("full", pairs), pair_set("top4", pairs[:4]), pair_set("bottom7", pairs[3:])]
    rows = overlap(sets)
    assert {words: (row["n_pairs"], row["n_other"], row["n_shared"], row["share"]) for words, row in rows.items()} == {
        ("full", "top4"): (10, 4, 4, 1),
        ("full", "bottom7"): (10, 7, 7, 1),
        ("top4", "bottom7"): (4, 7, 1, 0.25),
    }


def test_exchanged_sides_are_the_same_pairs(overlap):
    pairs = build.pairs(10)
    row = overlap([pair_set("full", pairs), pair_set("flipped-5", flip(pairs)[:5])])["full", "flipped-5"]
    assert (row["n_shared"], row["share"]) == (5, 1)


def test_other_traces_of_the_same_prompts_are_other_pairs(overlap):
    pairs = build.pairs(4)
    crossed = pairs.with_columns(rejected_trace_id=pairs["rejected_trace_id"].reverse(), pair_id=pairs["pair_id"] + "x")
    assert overlap([pair_set("full", pairs), pair_set("correct_over_wrong-4", crossed)]).popitem()[1]["n_shared"] == 0


def test_groups_are_not_compared_with_each_other(overlap):
    pairs = build.pairs(4)
    one = [pair_set("full", pairs, judge) for judge in ("j", "k")]
    other = [words | {"chosen": "better"} for words in one]
    for words in other:
        write_table(pairs, Pairs, paths.PAIRS.format(**words))
    overlap(one, other)
    rows = read_result_csv("overlap.csv", Overlap)
    assert rows.select("chosen", "judge", "other_judge").rows() == [("good", "j", "k"), ("better", "j", "k")]


def test_nothing_to_compare_is_an_empty_table(overlap):
    assert overlap() == {}


def test_a_study_compares_each_pair_set_once():
    words = {"chosen": ["qwen-s", "qwen-m"], "method": ["dpo", "sft"], "selection": ["full", "random40"]}
    groups = pair_groups(load_study(build.config(**words, versus=[])))
    assert [[(cell["chosen"], cell["selection"]) for cell in group] for group in groups] == [
        [("qwen-s", "full"), ("qwen-s", "random40-draw0")],
        [("qwen-m", "full"), ("qwen-m", "random40-draw0")],
    ]
    assert pair_groups(load_study(build.config(chosen=["qwen-s"], method=["dpo", "kto"], versus=[]))) == []
