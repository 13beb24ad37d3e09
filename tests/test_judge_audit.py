"""The audit of judges: statistics against textbook values, and judges with planted faults."""

import build
import numpy as np
import polars as pl
import pytest
from build import config
from scipy.stats import spearmanr

from prefdelta.audit.agreement import (
    Rated,
    icc,
    kappa,
    moments,
    rank_correlation,
    slope,
    spearman_brown,
    steps,
    variance_columns,
)
from prefdelta.audit.judge_audit import JudgeAudit, tabulate_judge_audit
from prefdelta.audit.judge_audit_figure import plot_judge_audit
from prefdelta.audit.levels import MISSING, NOT_ASKED, mean_ratings
from prefdelta.audit.settings import AuditedJudge, JudgeAuditSettings, ReferenceJudgeSettings
from prefdelta.configure.load import load_study
from prefdelta.measure.intervals import item_weights
from prefdelta.measure.settings import Bootstrap
from prefdelta.run.errors import ConfigError
from prefdelta.study.dimensions import DIMENSIONS, THE_FIVE
from prefdelta.study.lattice import rated_generators
from prefdelta.tables.io import read_result_csv, write_table
from prefdelta.tables.stages import Ratings, Traces

PROMPTS, SAMPLES = 150, 2


def group(prompt, levels, n_resamples=400, reference=None):
    n = len(prompt)
    n_prompts = int(prompt.max()) + 1
    weights = n_prompts * item_weights((n_prompts,), n_resamples, 0)
    reference = np.full((n, len(THE_FIVE.criteria)), np.nan) if reference is None else reference
    return Rated(prompt, np.arange(n), np.ones(n), levels, reference, np.full(n, np.nan), weights)


def test_icc_is_that_of_shrout_and_fleiss():
    ratings = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    single = icc(variance_columns(ratings[:, :, None]).sum(axis=0))
    assert single == pytest.approx(0.17, abs=0.005)  # their table 4: ICC(1,1) and ICC(1,4)
    assert spearman_brown(single, 4) == pytest.approx(0.44, abs=0.005)


def test_the_reliability_of_several_ratings_is_between_none_and_all():
    singles = np.array([-0.5, -1 / 9, -0.12, 0.0, 0.5, 1.0, np.nan])
    for n in (1, 2, 10):
        found = spearman_brown(singles, n)
        assert found[:4] == pytest.approx(np.zeros(4)) and found[5] == pytest.approx(1) and np.isnan(found[6])
    assert spearman_brown(singles, 10)[4] == pytest.approx(5 / 5.5)


def test_icc_with_missing_ratings_is_near_the_truth():
    rng = np.random.default_rng(0)
    ratings = rng.normal(size=(4000, 1)) + rng.normal(size=(4000, 5))
    ratings[rng.random(ratings.shape) < 0.3] = np.nan
    assert icc(variance_columns(ratings[:, :, None]).sum(axis=0)) == pytest.approx(0.5, abs=0.02)


def test_intervals_of_the_icc_hold_the_truth():
    rng = np.random.default_rng(1)
    prompt = np.repeat(np.arange(60), 4)
    held = 0
    for _ in range(150):  # traces of a prompt are alike, which an interval over traces would not see
        truth = (rng.normal(size=60) / np.sqrt(2))[prompt] + rng.normal(size=240) / np.sqrt(2)
        ratings = truth[:, None] + rng.normal(size=(240, 3))
        _, low, high = group(prompt, np.zeros((240, 1, 5))).intervals(icc, variance_columns(ratings[:, :, None]))
        held += bool(low[0] <= 0.5 <= high[0])
    assert 0.88 <= held / 150 <= 0.99


def test_kappa_is_that_of_its_definition():
    rng = np.random.default_rng(2)
    a, b = rng.integers(1, 6, 500), rng.integers(1, 6, 500)
    b[:300] = a[:300]
    weights = (np.arange(1, 6)[:, None] - np.arange(1, 6)) ** 2
    table = np.zeros((5, 5))
    np.add.at(table, (a - 1, b - 1), 1 / 500)
    expected = 1 - (weights * table).sum() / (weights * np.outer(table.sum(axis=1), table.sum(axis=0))).sum()
    assert kappa(moments(a.astype(float), b.astype(float)).sum(axis=0)) == pytest.approx(expected)


def test_rank_correlation_is_scipys_and_its_interval_is_around_it():
    rng = np.random.default_rng(3)
    a = rng.integers(5, 26, 600) / 5
    b = np.clip(a + rng.normal(size=600), 1, 5).round()
    b[7] = np.nan
    prompt = np.repeat(np.arange(200), 3)
    estimate, low, high = rank_correlation(group(prompt, np.zeros((600, 1, 5))), steps(a, (1, 5)), steps(b, (1, 5)))
    assert estimate == pytest.approx(spearmanr(np.delete(a, 7), np.delete(b, 7)).statistic)
    assert low < estimate < high
    assert high - low < 0.2


def test_slope_within_strata_does_not_see_differences_between_them():
    rng = np.random.default_rng(4)
    stratum, x = np.repeat([0, 1], 500), rng.normal(size=1000) + np.repeat([0, 3], 500)
    y = 0.25 * x - 5 * stratum
    columns = np.stack([np.ones(1000), x, y, x * x, x * y], axis=1)
    sums = np.stack([columns[stratum == number].sum(axis=0) for number in (0, 1)])
    assert slope(sums) == pytest.approx(0.25)


def test_means_are_null_without_a_rating():
    levels = np.full((2, 3, 5), 4.0)
    levels[0, :, 2] = MISSING
    levels[1, 0, :] = [1, MISSING, 4, 4, NOT_ASKED]
    means = mean_ratings(levels)
    assert np.isnan(means[0]).tolist() == [False, False, True, False, False, True]
    assert means[1] == pytest.approx([3, 4, 4, 4, 4, 3.8])


@pytest.fixture
def study(tmp_path):
    """Files of two generators' traces, rated exactly by ``exact`` and as a test wants by ``j``. Longer traces are worse."""
    rng = np.random.default_rng(5)
    traces, ratings = {}, {}
    n = PROMPTS * SAMPLES

    def rate(judge, generator, levels, asked=None):
        """``levels``: (trace, repeat, dimension), 0 for one that is missing."""
        trace, repeat, dimension = (axis.ravel() for axis in np.indices(levels.shape))
        rating = pl.Series(levels.ravel()).cast(pl.Int64)
        frame = pl.DataFrame(
            {
                "trace_id": [f"q{i // SAMPLES:03}:{generator}:{i % SAMPLES}" for i in trace],
                "judge": judge,
                "dimension": [DIMENSIONS[i] for i in dimension],
                "repeat": repeat,
                "rating": rating.replace(0, None),
                "reason": pl.select(pl.when(rating == 0).then(pl.lit("not JSON"))).to_series(),
            }
        )
        frame = frame if asked is None else frame.filter(pl.Series(asked[trace]))
        ratings[judge, generator] = tmp_path / f"{judge}-{generator}.parquet"
        write_table(frame, Ratings, ratings[judge, generator])

    truth, tokens = {}, {}
    for generator in ("own", "other"):
        truth[generator] = rng.integers(1, 6, (n, 5))
        tokens[generator] = 100 - 10 * truth[generator].mean(axis=1).round().astype(int) + rng.integers(0, 20, n)
        frame = pl.DataFrame(
            {
                "trace_id": [f"q{i // SAMPLES:03}:{generator}:{i % SAMPLES}" for i in range(n)],
                "prompt_id": [f"q{i // SAMPLES:03}" for i in range(n)],
                "generator": generator,
                "sample": [i % SAMPLES for i in range(n)],
                "prompt": "p",
                "text": "t",
                "reasoning": "",
                "response": "t",
                "answer": "1",
                "correct": (truth[generator].mean(axis=1) > 3).tolist(),
                "n_tokens": tokens[generator],
                "finish_reason": "stop",
            }
        )
        traces[generator] = tmp_path / f"{generator}.parquet"
        write_table(frame, Traces, traces[generator])
        rate("exact", generator, truth[generator][:, None, :])

    def audit(reference_judge="exact"):
        judges = [
            AuditedJudge(
                judge=name,
                generators={"own": ["own"], "other": ["other"]},
                family="qwen3" if name == "j" else None,
                choices_per_request=2,
                separate_dimensions=False,
            )
            for name in ("j", "exact")
        ]
        settings = JudgeAuditSettings(
            judges=judges,
            families={"own": "qwen3", "other": "llama"},
            reference_judge=reference_judge,
            bootstrap=Bootstrap(n_resamples=300, seed=0),
        )
        tabulate_judge_audit(traces, ratings, tmp_path / "audit.csv", settings=settings)
        settings = ReferenceJudgeSettings(reference_judge=reference_judge)
        plot_judge_audit(tmp_path / "audit.csv", tmp_path / "audit.png", settings=settings)
        return read_result_csv(tmp_path / "audit.csv", JudgeAudit)

    return rng, truth, tokens, rate, audit


def found(table, statistic, dimension="overall", judge="j", generator=None, n_ratings=None):
    rows = table.filter(judge=judge, statistic=statistic, dimension=dimension)
    rows = rows.filter(pl.col("generator").eq_missing(generator), pl.col("n_ratings").eq_missing(n_ratings))
    return rows.row(0, named=True)


def noisy(rng, truth, repeats=4, noise=0.8):
    return np.clip((truth[:, None, :] + rng.normal(scale=noise, size=(len(truth), repeats, 5))).round(), 1, 5).astype(int)


def test_a_noisy_but_fair_judge_has_no_bias_where_quality_is_equal(study):
    rng, truth, _, rate, audit = study
    for generator, levels in truth.items():
        rate("j", generator, noisy(rng, levels))
    table = audit()
    for statistic in ("length_bias", "family_bias"):
        row = found(table, statistic)
        assert row["ci_low"] < 0 < row["ci_high"]
        assert row["ci_high"] - row["ci_low"] < 0.2
    assert found(table, "bias", "factuality")["n"] == 2 * PROMPTS * SAMPLES
    single, used = (found(table, "icc", "factuality", n_ratings=k) for k in (1, 4))
    assert 0.5 < single["estimate"] < used["estimate"] < 1
    assert found(table, "spearman_brown", "factuality", n_ratings=4)["estimate"] == pytest.approx(used["estimate"])
    assert [found(table, "spearman_brown", n_ratings=k)["requests"] for k in (1, 2, 3, 10)] == [1, 1, 2, 5]
    assert found(table, "kappa", "factuality")["estimate"] > 0.8
    shares = [found(table, f"share_of_{level}", "factuality")["estimate"] for level in range(1, 6)]
    assert sum(shares) == pytest.approx(1)


def test_planted_biases_are_found_in_size(study, tmp_path):
    rng, truth, tokens, rate, audit = study
    spread = np.concatenate(list(tokens.values())).std()
    for generator, levels in truth.items():
        kindness = (tokens[generator] - 70) / spread * 0.3 + (0.5 if generator == "own" else 0)
        # Dithered, so that rounding keeps the means; in the middle of the scale, so that its ends do not cut.
        middle = np.clip(levels, 2, 4)
        rate("exact", generator, middle[:, None, :])
        shifted = middle[:, None, :] + kindness[:, None, None] + rng.random((len(levels), 4, 5))
        rate("j", generator, np.clip(np.floor(shifted), 1, 5).astype(int))
    table = audit()
    for statistic, size in (("length_bias", 0.3), ("family_bias", 0.5)):
        row = found(table, statistic)
        assert row["ci_low"] - 0.05 < size < row["ci_high"] + 0.05
        assert row["estimate"] == pytest.approx(size, abs=0.08)
    assert found(table, "bias")["estimate"] > 0.1
    answers = (tmp_path / "audit.rst").read_text(encoding="utf-8").splitlines()
    assert "of traces of its own family: higher than others by" in next(line for line in answers if "**j**" in line)


def test_missing_ratings_are_counted_and_those_not_asked_are_not(study):
    rng, truth, _, rate, audit = study
    for generator, levels in truth.items():
        given = noisy(rng, levels)
        if generator == "other":
            given[:30, 0, 1] = 0
        rate("j", generator, given, asked=np.arange(len(levels)) < 100)
    table = audit()
    assert found(table, "missing", DIMENSIONS[1], generator="other")["estimate"] == pytest.approx(30 / 400)
    assert found(table, "missing", generator="other")["n"] == 400
    none = found(table, "missing", generator="own")
    assert none["estimate"] == 0
    assert none["ci_high"] == pytest.approx(1 - 0.025 ** (1 / 50))  # prompts of the 100 traces


def test_what_one_rating_or_no_reference_can_not_tell_is_null(study):
    rng, truth, _, rate, audit = study
    for generator, levels in truth.items():
        rate("j", generator, noisy(rng, levels, repeats=1))
    table = audit(reference_judge=None)
    assert found(table, "icc", n_ratings=1)["estimate"] is None
    assert found(table, "noise_sd", n_ratings=1)["ci_low"] is None
    assert not set(table["statistic"]) & {"kappa", "spearman", "bias", "length_bias", "family_bias"}
    assert found(table, "length_slope")["estimate"] is not None


def test_an_ungraded_trace_is_like_no_other_where_quality_is_to_be_equal(tmp_path):
    judge = AuditedJudge(judge="j", generators={"g": ["g"]}, family=None, choices_per_request=1, separate_dimensions=False)
    bootstrap = Bootstrap(n_resamples=10, seed=0)
    settings = JudgeAuditSettings(judges=[judge], families={"g": None}, reference_judge=None, bootstrap=bootstrap)
    traces = build.traces("g", n_prompts=20, samples=2).with_columns(n_tokens=pl.int_range(40) % 2 + 1)
    # The second and longer trace of each prompt is rated lower.
    files = {"g": tmp_path / "traces.parquet"}, {("j", "g"): tmp_path / "ratings.parquet"}
    ratings = build.ratings(traces, lambda trace, _: [4 if trace.endswith(":0") else 2])
    write_table(ratings, Ratings, tmp_path / "ratings.parquet")
    slopes = []
    for second in (False, None, True):
        correct = pl.when(pl.int_range(40) % 2 == 1).then(pl.lit(second, pl.Boolean)).otherwise(pl.lit(False))
        write_table(traces.with_columns(correct=correct), Traces, tmp_path / "traces.parquet")
        tabulate_judge_audit(*files, tmp_path / "audit.csv", settings=settings)
        slopes.append(found(read_result_csv(tmp_path / "audit.csv", JudgeAudit), "length_slope")["estimate"])
    assert slopes == [pytest.approx(-1), None, None]  # levels for a standard deviation, where both are equally wrong


def test_the_reference_judge_rates_what_others_rate():
    content = config(chosen=["rung1"], judge=["oracle"], versus=[])
    content["judges"]["exact"] = content["judges"]["oracle"]
    without = rated_generators(load_study({**content, "reference_judge": None}))
    rated = rated_generators(load_study({**content, "reference_judge": "exact"}))
    assert "exact" not in without
    assert set(rated["exact"]) == set(rated["oracle"]) == set(without["oracle"])
    with pytest.raises(ConfigError, match="reference_judge: 'nobody' is unknown"):
        load_study({**content, "reference_judge": "nobody"})
