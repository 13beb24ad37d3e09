"""Pairs: which traces meet, and what their deltas are."""

import random
from pathlib import Path

import build
import polars as pl
import pytest

from prefdelta.audit.coverage import Coverage, tabulate_coverage
from prefdelta.pairs import build as pairs
from prefdelta.pairs.build import build_pairs
from prefdelta.pairs.select import candidates, select
from prefdelta.pairs.settings import PairsSettings
from prefdelta.study import paths
from prefdelta.study.dimensions import DIMENSIONS, THE_FIVE
from prefdelta.study.selections import SelectionError, parse
from prefdelta.tables import io as tables
from prefdelta.tables.check import TableError
from prefdelta.tables.io import read_result_csv, read_table, write_table
from prefdelta.tables.stages import Pairs, Ratings, References, Traces


def five(trace_id, dimension):
    rng = random.Random(f"{trace_id}/{dimension}")
    return [rng.randint(1, 5) for _ in range(5)]


def pair(folder, selection="full", levels=five, seed=0, judge="oracle", logps=None, **traces):
    """The pairs of generators ``c`` and ``r``; ``logps`` gives (log-probability, tokens) of a trace by its id."""
    correct = {"c": traces.pop("chosen_correct", None), "r": traces.pop("rejected_correct", None)}
    files, references = [], []
    for name in ("c", "r"):
        table = build.traces(name, correct=correct[name], **traces)
        write_table(table, Traces, folder / f"{name}.traces.parquet")
        write_table(build.ratings(table, levels), Ratings, folder / f"{name}.ratings.parquet")
        files += [folder / f"{name}.traces.parquet", folder / f"{name}.ratings.parquet"]
        if logps:
            names = ["trace_id", "n_prompt_tokens", "logp", "n_tokens"]
            stored = pl.DataFrame([(trace, 10, *logps(trace)) for trace in table["trace_id"]], names, orient="row")
            references.append(folder / f"{name}.references.parquet")
            write_table(stored.select(list(References.to_schema().columns)), References, references[-1])
    settings = PairsSettings(judge=judge, selection=selection, seed=seed, max_length=30)
    build_pairs(*files, references, folder / "pairs.parquet", settings=settings)
    return read_table(folder / "pairs.parquet", Pairs)


def mean(values):
    return sum(values) / len(values)


def test_deltas_are_chosen_minus_rejected_means_and_overall_is_their_mean(tmp_path):
    for row in pair(tmp_path).iter_rows(named=True):
        for side in ("chosen", "rejected"):
            means = [mean(five(row[f"{side}_trace_id"], name)) for name in DIMENSIONS]
            assert [row[f"{side}_{name}"] for name in THE_FIVE.criteria] == pytest.approx([*means, mean(means)])
        for name in THE_FIVE.criteria:
            assert row[f"delta_{name}"] == pytest.approx(row[f"chosen_{name}"] - row[f"rejected_{name}"])


def test_full_pairs_the_samples_of_the_same_number_and_prompt(tmp_path):
    found = pair(tmp_path, n_prompts=3, samples=2)
    ids = {(f"q{prompt}:c:{sample}", f"q{prompt}:r:{sample}") for prompt in range(3) for sample in range(2)}
    assert set(found.select("chosen_trace_id", "rejected_trace_id").iter_rows()) == ids
    assert len(found) == len(ids)


def test_a_pair_carries_its_traces_over(tmp_path):
    found = pair(tmp_path, faults={"factuality": 0.5})
    assert found["judge"].unique().to_list() == ["oracle"]
    for side, name in (("chosen", "c"), ("rejected", "r")):
        traces = build.traces(name, faults={"factuality": 0.5})
        joined = found.join(traces, left_on=f"{side}_trace_id", right_on="trace_id", suffix="_of_trace")
        assert len(joined) == len(found)
        for own, its in ((side, "text"), (f"{side}_correct", "correct"), (f"{side}_tokens", "n_tokens")):
            assert joined[own].equals(joined[its], check_names=False)
        assert joined["prompt_id"].equals(joined["prompt_id_of_trace"], check_names=False)
        assert found[f"{side}_generator"].unique().to_list() == [name]


def test_a_missing_rating_does_not_count_in_the_mean(tmp_path):
    found = pair(tmp_path, levels=lambda trace_id, dimension: [2, None, 5] if ":c:" in trace_id else [1, 1, 1])
    assert found["chosen_factuality"].unique().to_list() == [3.5]
    assert found["delta_overall"].to_list() == pytest.approx([2.5] * len(found))


@pytest.mark.parametrize("side", ["c", "r"])
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_a_trace_without_any_readable_rating_in_a_dimension_has_no_pair(side, dimension, tmp_path):
    unreadable = f"q1:{side}:0"
    found = pair(tmp_path, levels=lambda *of: [None] * 5 if of == (unreadable, dimension) else five(*of), n_prompts=3, samples=2)
    side = {"c": "chosen", "r": "rejected"}[side]
    assert len(found) == 5
    assert unreadable not in found[f"{side}_trace_id"].to_list()


def test_strata_let_any_samples_of_a_prompt_meet(tmp_path):
    # Samples of the same number are never both right or both wrong, so only crossed samples fill all four strata.
    sides = {"chosen_correct": [True, False] * 3, "rejected_correct": [False, True] * 3}
    both = pair(tmp_path, "both_correct-3", **sides, n_prompts=3, samples=2)
    assert set(both["chosen_trace_id"]) == {f"q{prompt}:c:0" for prompt in range(3)}
    assert set(both["rejected_trace_id"]) == {f"q{prompt}:r:1" for prompt in range(3)}
    assert pair(tmp_path, "wrong_over_correct-3", **sides, n_prompts=3, samples=2)["rejected_correct"].all()


def test_too_small_a_stratum_names_the_file_and_writes_none(tmp_path):
    sides = {"chosen_correct": [True] * 6, "rejected_correct": [False, True] * 3}
    with pytest.raises(SelectionError, match=rf"{tmp_path}/pairs.parquet: .* only 0 prompts"):
        pair(tmp_path, "both_correct-2", **sides, n_prompts=3, samples=2)
    assert not (tmp_path / "pairs.parquet").exists()


def test_the_samples_of_both_generators_are_one_set_for_pairs_of_one_policy(tmp_path):
    levels = {"q0:c:0": 4, "q0:c:1": 1, "q0:r:0": 5, "q0:r:1": 3, "q1:c:0": 2, "q1:c:1": 5, "q1:r:0": 4, "q1:r:1": 3}
    found = pair(tmp_path, "best_over_worst-2-overall", lambda trace, _: [levels[trace]], n_prompts=2, samples=2)
    sides = list(found.select("chosen_trace_id", "rejected_trace_id").iter_rows())
    assert sides == [("q0:r:0", "q0:c:1"), ("q1:c:1", "q1:c:0")]
    assert found.select("chosen_generator", "rejected_generator").rows() == [("r", "c"), ("c", "c")]
    texts = dict(pl.concat([build.traces(name, 2, 2) for name in "cr"]).select("trace_id", "text").iter_rows())
    assert [(row["chosen"], row["rejected"]) for row in found.iter_rows(named=True)] == [
        (texts[chosen], texts[rejected]) for chosen, rejected in sides
    ]
    assert found["delta_overall"].to_list() == [4, 3]


def test_margins_are_of_the_tokens_that_are_read(tmp_path):
    levels = {"c": 5, "r": 1}
    # Of q0's chosen trace 40 tokens, of which 20 fit beside the prompt: -0.5 each, as much as of the rejected one.
    logps = {"q0:c:0": (-10.0, 40), "q0:r:0": (-10.0, 20), "q1:c:0": (-2.0, 10), "q1:r:0": (-4.0, 10)}
    found = {
        kind: pair(
            tmp_path, f"{kind}_margin-1-overall", lambda trace, _: [levels[trace[3]]], logps=logps.get, n_prompts=2, samples=1
        )["prompt_id"].to_list()
        for kind in ("largest", "smallest")
    }
    assert found == {"largest": ["q1"], "smallest": ["q0"]}


# Means of five ratings whose difference is 1.6 each time: 3.8 - 2.2, 5 - 3.4, and so on.
SIXTEEN = {"q0": ([4, 4, 4, 4, 3], [2, 2, 2, 2, 3]), "q1": ([5] * 5, [3, 3, 3, 4, 4]), "q2": ([3, 3, 3, 2, 2], [1] * 5)}


def test_equal_differences_of_ratings_are_equal_deltas(tmp_path):
    found = pair(tmp_path, levels=lambda trace, _: SIXTEEN[trace[:2]][":r:" in trace], n_prompts=3, samples=1)
    assert found["delta_factuality"].to_list() == pytest.approx([1.6] * 3)
    # Otherwise rounding errors, not the seeded hash, decide between ties of top and bottom.
    assert found["delta_factuality"].n_unique() == found["delta_overall"].n_unique() == 1


def test_min_keeps_pairs_with_exactly_that_delta(tmp_path):
    found = pair(tmp_path, "min1.6-factuality", lambda trace, _: SIXTEEN[trace[:2]][":r:" in trace], n_prompts=3, samples=1)
    assert set(found["prompt_id"]) == set(SIXTEEN)


def test_pairs_are_the_same_for_the_same_seed_whatever_the_order_of_traces(tmp_path):
    first = pair(tmp_path, "random3-draw0")
    for name in ("c", "r"):
        for kind, model in (("traces", Traces), ("ratings", Ratings)):
            path = tmp_path / f"{name}.{kind}.parquet"
            write_table(read_table(path, model).sample(fraction=1, shuffle=True, seed=1), model, path)
    files = [tmp_path / f"{name}.{kind}.parquet" for name in ("c", "r") for kind in ("traces", "ratings")]
    build_pairs(*files, [], tmp_path / "again.parquet", settings=PairsSettings(judge="oracle", selection="random3-draw0", seed=0))
    again = read_table(tmp_path / "again.parquet", Pairs)
    assert again.drop(pl.selectors.float()).equals(first.drop(pl.selectors.float()))
    assert again["delta_overall"].to_list() == pytest.approx(first["delta_overall"].to_list())


FORMS = ["full", "min0.5-overall", "top7-overall", "bottom7-factuality", "random7-draw1", "both_wrong-4", "flipped-7"]
FORMS += ["band8-factuality-minus1to1-draw0", "best_over_worst-7-overall", "best_over_low-7-overall", "right_over_wrong-7"]
FORMS += ["largest_margin-7-overall"]
BALANCED = ["top7-overall-within_length", "random7-within_length-draw1", "bottom7-factuality-within_correctness"]
BALANCED += ["random7-within_correctness-draw1", "top7-overall-within_both_correct", "matched7-overall-draw1"]
BALANCED += ["matched20-factuality-draw0"]


def in_small_parts(monkeypatch):
    monkeypatch.setattr(pairs, "PART", 12)
    monkeypatch.setattr(tables, "BATCH", 20)  # so a trace's 25 ratings are in several batches


@pytest.mark.parametrize("selection", FORMS + BALANCED)
def test_pairs_built_in_parts_are_those_built_at_once(selection, tmp_path, monkeypatch):
    rng = random.Random(1)
    correct = {f"{side}_correct": [rng.random() < 0.5 for _ in range(60)] for side in ("chosen", "rejected")}
    few = {f"q{number}:{side}:2" for number in range(3) for side in "cr"}  # without any rating

    def levels(trace_id, dimension):
        return [None] * 2 if trace_id in few else five(trace_id, dimension)

    needs = {"logps": lambda trace: (-float(sum(map(ord, trace)) % 17), 9)} if "margin" in selection else {}
    whole = pair(tmp_path, selection, levels, n_prompts=20, samples=3, **needs, **correct)
    in_small_parts(monkeypatch)
    assert pair(tmp_path, selection, levels, n_prompts=20, samples=3, **needs, **correct).equals(whole)
    assert whole.select("prompt_id", "pair_id").equals(whole.select("prompt_id", "pair_id").sort("prompt_id", "pair_id"))
    assert len(whole) > 3


@pytest.mark.parametrize("selection", BALANCED)
def test_what_is_alike_is_judged_by_all_parts(selection, tmp_path, monkeypatch):
    rng = random.Random(1)
    correct = {f"{side}_correct": [rng.random() < 0.5 for _ in range(60)] for side in ("chosen", "rejected")}
    full = pair(tmp_path, n_prompts=20, samples=3, **correct)
    in_small_parts(monkeypatch)
    found = pair(tmp_path, selection, n_prompts=20, samples=3, **correct)
    assert found.equals(select(candidates(full.lazy(), parse(selection), "0/oracle"), parse(selection)).collect())


def test_parts_of_shuffled_tables_give_the_same_pairs(tmp_path, monkeypatch):
    whole = pair(tmp_path, n_prompts=20)
    in_small_parts(monkeypatch)
    for name in ("c", "r"):
        for kind, model in (("traces", Traces), ("ratings", Ratings)):
            path = tmp_path / f"{name}.{kind}.parquet"
            write_table(read_table(path, model).sample(fraction=1, shuffle=True, seed=1), model, path)
    files = [tmp_path / f"{name}.{kind}.parquet" for name in ("c", "r") for kind in ("traces", "ratings")]
    build_pairs(*files, [], tmp_path / "again.parquet", settings=PairsSettings(judge="oracle", selection="full", seed=0))
    assert read_table(tmp_path / "again.parquet", Pairs).equals(whole)


@pytest.mark.parametrize("kind, model", [("traces", Traces), ("ratings", Ratings)])
@pytest.mark.parametrize("name", ["c", "r"])
def test_a_key_that_is_in_two_parts_of_a_table_is_found(name, kind, model, tmp_path, monkeypatch):
    pair(tmp_path, n_prompts=20)
    path = tmp_path / f"{name}.{kind}.parquet"
    frame = pl.read_parquet(path)
    again = frame.head(1).with_columns(prompt_id=pl.lit("q19")) if kind == "traces" else frame.head(1)
    build.unchecked(pl.concat([frame, again]), path)
    in_small_parts(monkeypatch)
    files = [tmp_path / f"{name}.{kind}.parquet" for name in ("c", "r") for kind in ("traces", "ratings")]
    with pytest.raises(TableError, match=rf"{path} breaks .* check unique, such as q0:{name}:0"):
        build_pairs(*files, [], tmp_path / "again.parquet", settings=PairsSettings(judge="oracle", selection="full", seed=0))
    assert not (tmp_path / "again.parquet").exists()


def test_coverage_is_of_all_parts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("c", "r"):
        table = build.ratings(build.traces(name, n_prompts=10), lambda *of: [None if of[0].startswith("q1:") else 3, *five(*of)])
        write_table(table, Ratings, paths.RATINGS.format(study="s", judge="j", generator=name))
    in_small_parts(monkeypatch)
    ratings = {("j", name): Path(paths.RATINGS.format(study="s", judge="j", generator=name)) for name in ("c", "r")}
    tabulate_coverage(ratings, Path("coverage.csv"))
    found = read_result_csv("coverage.csv", Coverage)
    assert found["n_asked"].to_list() == [20 * 6] * 10
    assert found["n_missing"].to_list() == [2] * 10
    assert set(found["reasons"]) == {'{"not JSON": 2}'}


def test_each_judge_draws_pairs_at_random_for_itself(tmp_path):
    ids = [set(pair(tmp_path, "random6-draw0", judge=judge, n_prompts=20)["pair_id"]) for judge in ("oracle", "oracle", "other")]
    assert ids[0] == ids[1] != ids[2]
