"""Balance of compared arms: are differences those of the pair sets, are planted ones found, and does matching remove them?"""

import math

import build
import numpy as np
import polars as pl
import pytest

from prefdelta.audit.balance import (
    Balance,
    Moments,
    covariates,
    mixture,
    plot_balance,
    standardised_difference,
    tabulate_balance,
)
from prefdelta.audit.settings import BalancedArm, BalancedExperiment, BalanceSettings
from prefdelta.findings.experiment import budget_difference
from prefdelta.pairs.build import build_pairs
from prefdelta.pairs.settings import PairsSettings
from prefdelta.study.dimensions import DIMENSIONS, THE_FIVE
from prefdelta.study.lattice import Cell, PairSet
from prefdelta.study.selections import draw_for_seed
from prefdelta.tables.io import read_result_csv, read_table, rows_to_table, write_table
from prefdelta.tables.stages import Pairs, Ratings, References, Traces

K = 250
SELECTIONS = [f"top{K}-overall", f"matched{K}-overall", f"random{K}", f"flipped-{K}", "full"]


def pair_set(selection, seed=0, chosen="good"):
    return PairSet("j", chosen, "bad", draw_for_seed(selection, seed))


def arm(selection, versus=(), seeds=1, chosen="good", name=None, references=None):
    words = {"policy": "p", "method": "dpo", "judge": "j", "chosen": chosen, "rejected": "bad", "selection": selection}
    sets = [pair_set(selection, seed, chosen) for seed in range(seeds)]
    cells = [Cell("p", "dpo", **vars(pairs), seed=seed) for seed, pairs in enumerate(sets)]
    versus = {one: place for place, one in enumerate(versus)}
    return BalancedArm(**words, arm=name or selection, versus=versus, cells=cells, references=references)


def traces_file(folder, generator):
    return folder / f"{generator}-traces.parquet"


def pairs_file(folder, pairs):
    return folder / f"{pairs.chosen}-{pairs.selection}.parquet"


def balance(folder, *arms, table=None, references=None):
    """The `Balance` of ``arms``, of which ``folder`` has the files; ``references`` as of `tabulate_balance`."""
    table = table or folder / "balance.csv"
    cells = [cell for arm in arms for cell in arm.cells]
    traces = {name: traces_file(folder, name) for cell in cells for name in (cell.chosen, cell.rejected)}
    pairs = {cell.pairs: pairs_file(folder, cell.pairs) for cell in cells}
    settings = BalanceSettings(experiments=[BalancedExperiment(experiment="e", arms=list(arms))])
    tabulate_balance(traces, pairs, references or {}, table, settings=settings)
    return read_result_csv(table, Balance)


def smds(table, **comparison):
    return dict(table.filter(**comparison).select("covariate", "smd").iter_rows())


def write_traces(folder, generator, frame):
    write_table(frame, Traces, traces_file(folder, generator))


def traces_of(pairs, side, generator):
    """A trace for each pair's side, all well formed."""
    found = pairs.select(trace_id=f"{side}_trace_id", prompt_id="prompt_id", correct=f"{side}_correct", n_tokens=f"{side}_tokens")
    columns = {"generator": generator, "text": "1", "reasoning": "", "response": "1", "answer": "1", "prompt": "prompt"}
    literals = {name: pl.lit(value) for name, value in {**columns, "finish_reason": "stop"}.items()}
    return found.with_columns(sample=pl.lit(0, pl.Int64), **literals).select(list(Traces.to_schema().columns))


def write_sets(folder, all_pairs, **sets):
    """Traces of ``all_pairs``, and ``sets`` of them as pair sets by selection."""
    for side, generator in (("chosen", "good"), ("rejected", "bad")):
        write_traces(folder, generator, traces_of(all_pairs, side, generator))
    for selection, pairs in sets.items():
        write_table(pairs, Pairs, pairs_file(folder, pair_set(selection)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with 1,500 pairs, in which ratings go with correctness and length, and their `SELECTIONS`."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    hard = rng.random(500)
    files = []
    for generator, ability in (("good", 1.2), ("bad", 0.6)):
        right = rng.random((500, 3)) < (ability * (1 - hard))[:, None]
        long = np.round(20 * (1 + hard[:, None]) * rng.uniform(0.8, 1.6, (500, 3))).astype(int)
        traces = build.traces(generator, n_prompts=500, samples=3, correct=right.ravel().tolist())
        # Where the generator stops too early, no answer is found.
        cut = pl.Series((rng.random(1500) < 0.1).tolist())
        traces = traces.with_columns(
            n_tokens=pl.Series(long.ravel()),
            answer=pl.when(cut).then(None).otherwise(pl.lit("1")),
            finish_reason=pl.when(cut).then(pl.lit("length")).otherwise(pl.lit("stop")),
        )
        write_traces(folder, generator, traces)
        quality = 2 + 1.5 * right.ravel() + 0.02 * (long.ravel() - 30) + rng.normal(0, 0.5, 1500)
        levels = dict(zip(traces["trace_id"], np.clip(np.round(quality), 1, 5).astype(int).tolist(), strict=True))
        noise = {key: {name: rng.integers(-1, 2) for name in DIMENSIONS} for key in levels}

        def rate(trace, name, levels=levels, noise=noise):
            return [int(np.clip(levels[trace] + noise[trace][name], 1, 5))]

        files += [traces_file(folder, generator), folder / f"{generator}-ratings.parquet"]
        write_table(build.ratings(traces, rate), Ratings, files[-1])
    for selection in SELECTIONS:
        for seed in range(2):
            pairs = pair_set(selection, seed)
            settings = PairsSettings(judge="j", selection=pairs.selection, seed=0)
            build_pairs(*files, [], pairs_file(folder, pairs), settings=settings)
    return folder


def test_a_standardised_difference_by_hand():
    assert standardised_difference(5, 2, 4, 14) == 1
    assert standardised_difference(0.5, 0.75, 0.25, 0.1875) == pytest.approx(-0.25 / math.sqrt(0.21875))
    assert standardised_difference(0.1 + 0.2, 0.3, 0, 0) == 0
    assert standardised_difference(2, 1, 0, 0) is None
    assert standardised_difference(2, 1, 1e-30, 0) is None


def test_moments_of_parts_are_those_of_all_their_pairs():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, (30, 2)), rng.normal(3, 2, (70, 2))
    parts = [Moments(len(values), values.mean(axis=0), values.var(axis=0)) for values in (one, other)]
    together = np.concatenate([one, other])
    found = mixture(parts, [30, 70])
    assert (found.n, found.mean, found.variance) == (
        100,
        pytest.approx(together.mean(axis=0)),
        pytest.approx(together.var(axis=0)),
    )
    # With equal weights, the small part is as large as the other one.
    expected = (one.mean(axis=0) + other.mean(axis=0)) / 2
    assert mixture(parts).mean == pytest.approx(expected)
    squares = ((one**2).mean(axis=0) + (other**2).mean(axis=0)) / 2
    assert mixture(parts).variance == pytest.approx(squares - expected**2)


def test_every_covariate_of_a_few_pairs_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr("prefdelta.tables.io.BATCH", 3)  # so that four pairs are two batches, of different sizes
    right = [(True, False), (True, True), (False, False), (True, False)]
    pairs = build.pairs(4, per_prompt=2, correct=right).with_columns(
        chosen_tokens=pl.Series([10, 20, 30, 0]),
        rejected_tokens=pl.Series([5, 20, 60, 1]),
        chosen_factuality=pl.Series([4.0, 5.0, 2.0, 3.0]),
        delta_factuality=pl.Series([3.0, 3.0, 1.0, 2.0]),
    )
    write_sets(tmp_path, pairs, full=pairs, some=pairs.head(2))
    malformed = (
        pl.when(trace_id="c0").then(pl.lit("length")).otherwise("finish_reason").alias("finish_reason"),
        pl.when(trace_id="c3").then(None).otherwise("answer").alias("answer"),
    )
    write_traces(tmp_path, "good", traces_of(pairs, "chosen", "good").with_columns(malformed))
    references = {("p", 30, "float32", name): tmp_path / f"{name}-references.parquet" for name in ("good", "bad")}
    for (side, tokens), file in zip({"c": 10, "r": 20}.items(), references.values(), strict=True):
        ids = [f"{side}{number}" for number in range(4)]
        stored = {"trace_id": ids, "logp": [-5.0, -10.0, -20.0, -20.0], "n_prompt_tokens": [20] * 4, "n_tokens": [tokens] * 4}
        write_table(pl.DataFrame(stored), References, file)
    known = {"references": (30, "float32")}
    table = balance(tmp_path, arm("some", ["full"], **known), arm("full", **known), references=references)
    assert table["covariate"].to_list() == list(covariates(THE_FIVE))
    numbers = table.select("experiment", "arm", "versus", "n_pairs", "n_pairs_versus", "n_prompts", "n_prompts_versus")
    assert numbers.unique().rows() == [("e", "some", "full", 2, 4, 1, 2)]
    rows = {row["covariate"]: row for row in table.iter_rows(named=True)}
    # q0 has three right answers of four, q1 one of four.
    hand = {
        "prompt_difficulty": ([0.25, 0.25], [0.25, 0.25, 0.75, 0.75]),
        "log_length_ratio": ([math.log(2), 0], [math.log(2), 0, -math.log(2), 0]),
        "chosen_tokens": ([10, 20], [10, 20, 30, 0]),
        "rejected_tokens": ([5, 20], [5, 20, 60, 1]),
        "chosen_correct": ([1, 1], [1, 1, 0, 1]),
        "rejected_correct": ([0, 1], [0, 1, 0, 0]),
        "chosen_well_formed": ([0, 1], [0, 1, 1, 0]),
        "rejected_well_formed": ([1, 1], [1, 1, 1, 1]),
        "chosen_logp": ([-0.5, -1], [-0.5, -1, -2, -2]),
        "rejected_logp": ([-0.5, -1], [-0.5, -1, -2, -2]),  # of 20 tokens, 10 fit
        "chosen_factuality": ([4, 5], [4, 5, 2, 3]),
        "delta_factuality": ([3, 3], [3, 3, 1, 2]),
    }
    for covariate, (own, other) in hand.items():
        row, spread = rows[covariate], math.sqrt((np.var(own) + np.var(other)) / 2)
        expected = (np.mean(own) - np.mean(other)) / spread if spread else 0
        assert (row["mean"], row["mean_versus"]) == pytest.approx((np.mean(own), np.mean(other))), covariate
        assert row["smd"] == pytest.approx(expected), covariate
        assert row["imbalanced"] == (abs(expected) > 0.1), covariate
    assert not rows["chosen_well_formed"]["imbalanced"]
    assert rows["chosen_factuality"]["smd"] == pytest.approx(1 / math.sqrt((0.25 + 1.25) / 2))


def test_an_arm_without_stored_references_has_no_log_probabilities(tmp_path):
    pairs = build.pairs(4)
    write_sets(tmp_path, pairs, full=pairs, some=pairs.head(2))
    left = set(covariates(THE_FIVE)) - set(balance(tmp_path, arm("some", ["full"]), arm("full"))["covariate"])
    assert left == {"chosen_logp", "rejected_logp"}


def test_ungraded_answers_are_no_wrong_ones(tmp_path):
    folders = [tmp_path / name for name in ("some", "one", "none")]
    for folder in folders:
        folder.mkdir()
    pairs = build.pairs(4, per_prompt=2, correct=[(True, False), (True, True), (None, False), (True, None)])
    write_sets(folders[0], pairs, full=pairs, graded=pairs.head(2))
    table = balance(folders[0], arm("full", ["graded"]), arm("graded"))
    assert table.select("n_pairs", "n_pairs_versus").unique().rows() == [(2, 2)]
    assert set(table["smd"]) == {0}  # nothing of the pairs with an ungraded answer counts
    hard = build.pairs(4, per_prompt=4, correct=[(True, False), (True, True), (None, None), (None, True)])
    write_sets(folders[1], hard, full=hard)
    (row,) = balance(folders[1], arm("full", ["full"])).filter(covariate="prompt_difficulty").rows(named=True)
    assert row["mean"] == pytest.approx(1 / 5)  # of the graded answers to the prompt one is wrong
    write_sets(folders[2], hard, full=hard.tail(2))
    table = balance(folders[2], arm("full", ["full"]))  # as where no prompt has a right answer: all pairs count
    assert table["n_pairs"].unique().to_list() == [2]
    assert {"chosen_correct", "rejected_correct"} & {*table["covariate"]} == set()


def test_a_planted_imbalance_is_found_and_nothing_else(tmp_path):
    control = build.pairs(400)
    planted = control.with_columns(chosen_tokens=pl.col("chosen_tokens") + 5, rejected_correct=pl.lit(True))
    write_sets(tmp_path, control, full=control, planted=planted)
    table = balance(tmp_path, arm("planted", ["full"]), arm("full"))
    found = smds(table)
    marked = table.filter("imbalanced")["covariate"].to_list()
    assert marked == ["log_length_ratio", "chosen_tokens", "rejected_correct"]
    assert found["chosen_tokens"] == pytest.approx(5 / control["chosen_tokens"].std(ddof=0))
    assert {smd for covariate, smd in found.items() if covariate not in marked} == {0}


def test_where_nothing_varies_a_difference_has_no_size_but_is_marked(tmp_path):
    pairs = build.pairs(40)
    wrong, right = (pairs.with_columns(chosen_correct=pl.lit(value)) for value in (False, True))
    write_sets(tmp_path, pairs, right=right, wrong=wrong)
    table = balance(tmp_path, arm("right", ["wrong"]), arm("wrong"))
    (row,) = table.filter(covariate="chosen_correct").iter_rows(named=True)
    assert (row["mean"], row["mean_versus"], row["smd"], row["imbalanced"]) == (1, 0, None, True)
    plot_balance(tmp_path / "balance.csv", tmp_path / "balance.png")
    assert "**right** against wrong: chosen_correct (nothing varies)." in (tmp_path / "balance.rst").read_text()


def test_a_random_split_is_balanced_and_one_by_difficulty_is_not(tmp_path):
    pairs = build.pairs(8000)
    half = pairs.sample(fraction=0.5, seed=1)
    rest = pairs.join(half, on="pair_id", how="anti")
    right = pl.col("chosen_correct").cast(pl.Int64) + pl.col("rejected_correct")
    hard = pairs.filter(right.sum().over("prompt_id") < 2)
    write_sets(tmp_path, pairs, half=half, rest=rest, hard=hard)
    table = balance(tmp_path, arm("half", ["rest"]), arm("hard", ["rest"]), arm("rest"))
    assert table.filter(arm="half")["smd"].abs().max() < 0.08
    assert not table.filter(arm="half")["imbalanced"].any()
    marked = table.filter("imbalanced", arm="hard")["covariate"].to_list()
    assert marked == ["prompt_difficulty", "chosen_correct", "rejected_correct"]


def test_a_prompt_is_as_hard_in_both_arms_although_their_generators_differ(tmp_path):
    pairs = build.pairs(400)
    write_sets(tmp_path, pairs, full=pairs)
    better = pairs.with_columns(chosen_correct=pl.lit(True), chosen_trace_id=pl.format("b{}", "chosen_trace_id"))
    write_traces(tmp_path, "best", traces_of(better, "chosen", "best"))
    write_table(better, Pairs, pairs_file(tmp_path, pair_set("full", chosen="best")))
    table = balance(tmp_path, arm("full", ["good"], chosen="best", name="best"), arm("full", name="good"))
    (row,) = table.filter(covariate="prompt_difficulty").iter_rows(named=True)
    wrong = [not right for side in ("chosen", "rejected") for right in pairs[f"{side}_correct"]]
    assert row["mean"] == row["mean_versus"] == pytest.approx(sum(wrong) / 1200)
    assert table.filter("imbalanced")["covariate"].to_list() == ["chosen_correct"]


def test_matched_pairs_are_more_like_the_selected_ones_than_random_pairs_are(world):
    top, matched, random = SELECTIONS[:3]
    compared = arm(top, [matched, random], seeds=2), arm(matched, seeds=2), arm(random, seeds=2)
    table = balance(world, *compared)
    alike = [f"{side}_{name}" for side in ("chosen", "rejected") for name in ("correct", "tokens")]
    against_matched, against_random = (smds(table, versus=versus) for versus in (matched, random))
    for covariate in [*alike, "log_length_ratio"]:
        assert abs(against_matched[covariate]) < 0.15, covariate  # by chance about 0.08 even where nothing is matched
    for covariate in ["chosen_correct", "rejected_correct", "log_length_ratio"]:
        assert abs(against_random[covariate]) > 0.2, covariate
    # Their delta is what matched pairs lack.
    assert against_matched["delta_overall"] > 1


def test_seeds_count_alike_although_their_pairs_differ(world):
    random = SELECTIONS[2]
    (row,) = balance(world, arm(random, ["full"], seeds=2), arm("full")).filter(covariate="delta_overall").rows(named=True)
    files = [pairs_file(world, pair_set(random, seed)) for seed in range(2)]
    deltas = [read_table(file, Pairs)["delta_overall"] for file in files]
    assert deltas[0].to_list() != deltas[1].to_list()
    assert row["mean"] == pytest.approx((deltas[0].mean() + deltas[1].mean()) / 2)
    assert (row["n_pairs"], row["n_pairs_versus"]) == (K, 1500)


def test_of_flipped_pairs_the_sides_are_exchanged(world):
    flipped = SELECTIONS[3]
    table = balance(world, arm(flipped, ["full"]), arm("full"))
    found = {row["covariate"]: row for row in table.iter_rows(named=True)}
    pairs = read_table(pairs_file(world, pair_set(flipped)), Pairs)
    assert set(pairs["chosen_generator"]) == {"bad"}
    traces = read_table(traces_file(world, "bad"), Traces)
    ids = pairs["chosen_trace_id"].implode()
    well_formed = traces.filter(pl.col("trace_id").is_in(ids))["answer"].is_not_null().mean()
    assert well_formed < 1
    assert found["chosen_well_formed"]["mean"] == pytest.approx(well_formed)
    assert found["chosen_correct"]["smd"] < -0.3
    assert found["rejected_correct"]["smd"] > 0.3
    assert found["delta_overall"]["smd"] < -0.3
    # Which prompts are drawn has nothing to do with the flip.
    assert not found["prompt_difficulty"]["imbalanced"]


def test_the_figure_says_what_is_imbalanced_besides_deltas(world, tmp_path):
    top, _, random = SELECTIONS[:3]
    table = balance(world, arm(top, [random]), arm(random, ["full"]), arm("full"), table=tmp_path / "balance.csv")
    plot_balance(tmp_path / "balance.csv", tmp_path / "balance.png")
    assert all((tmp_path / f"balance.{suffix}").stat().st_size > 1000 for suffix in ("png", "svg", "pdf"))
    text = (tmp_path / "balance.rst").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"- e: **{top}** against {random}: ")]
    said = {part.split()[0] for part in line.removeprefix(f"- e: **{top}** against {random}: ").split(", ")}
    marked = table.filter("imbalanced", arm=top)["covariate"]
    assert said == {name for name in marked if not name.startswith("delta_")}
    assert "delta_overall" in marked.to_list()


def test_a_study_without_comparisons_has_an_empty_table_and_figure(tmp_path):
    assert balance(tmp_path, arm("full")).equals(rows_to_table([], Balance))
    plot_balance(tmp_path / "balance.csv", tmp_path / "balance.png")
    assert (tmp_path / "balance.png").exists()


BUDGET = {"n_pairs": 1000, "n_tokens": 50_000, "n_steps": 100}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"n_pairs": 1020, "n_tokens": 49_000, "n_steps": 98}, None),
        ({"n_pairs": 1021}, "pairs +2 %"),
        ({"n_tokens": 48_999}, "tokens -2 %"),
        ({"n_steps": 103}, "steps +3 %"),
        ({"n_pairs": 210, "n_tokens": 52_500}, "pairs -79 %, tokens +5 %"),
    ],
)
def test_budgets_that_differ_by_more_than_two_percent_are_named(changes, words):
    assert budget_difference(BUDGET | changes, BUDGET) == words
