"""The audit of judges: how far ratings repeat, agree with a reference, and depend on length or on the judge's own family."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl

from prefdelta.audit.agreement import (
    Rated,
    as_columns,
    icc,
    kappa,
    moments,
    noise_sd,
    rank_correlation,
    share,
    slope,
    spearman_brown,
    steps,
    variance_columns,
    whole,
    with_mean,
)
from prefdelta.audit.levels import NOT_ASKED, mean_ratings, read_levels, with_overall
from prefdelta.audit.settings import AuditedJudge, JudgeAuditSettings
from prefdelta.measure.intervals import LEVEL, Array, item_weights
from prefdelta.measure.verdict import percentile_verdict
from prefdelta.study.dimensions import Dimensions
from prefdelta.tables.check import Table
from prefdelta.tables.io import judge_dimensions, read_dimensions, rows_to_table, write_result_table

CURVE = range(1, 11)  # numbers of ratings that the Spearman-Brown curve shows
PARTS = 11  # levels that a scale is looked at by; of one with more, as many equal parts
RELIABLE = 0.8  # what is usually asked of a measure before differences are studied by it (Nunnally and Bernstein 1994)


class JudgeAudit(Table):
    """How far a judge can be trusted, over all its generators (``generator`` is null) or on one. Key: all words and n_ratings.

    ``statistic``: ``icc`` (ICC(1) of the mean of ``n_ratings``: of a single one, and of as many as are used); ``spearman_brown``
    (the same for other numbers); ``noise_sd`` (levels, of a single rating of the same trace); ``missing`` (share of the asked
    ratings; overall: where a dimension is missing); ``share_of_{level}`` (of the readable ratings, where there are at most 11
    levels). Against the reference judge, in criteria that both rate: ``spearman`` (of means), and where both have one scale
    ``kappa`` (quadratic weights, of means, which are whole levels where ratings are), ``bias`` (mean of rating minus reference,
    levels), and where it has ends, among traces of the same level (or eleventh of the scale) by the reference, ``length_bias``
    (slope of rating minus reference, levels for a standard deviation of tokens) and ``family_bias`` (rating minus reference, own
    family minus others, levels).
    ``length_slope``: slope of the rating itself among traces of one prompt and generator that are equally correct, which holds
    real quality, too. The overall slope is the mean of all dimensions'. ``requests``: that a trace takes for ``n_ratings``. An
    estimate that the ratings can't tell (of repeats, where there is one rating of each trace) is null. ``n``: traces, but for
    ``missing`` answers asked, for ``share_of`` ratings.
    """

    judge: str
    generator: str = pa.Field(nullable=True)
    dimension: str
    statistic: str
    n_ratings: int = pa.Field(nullable=True, gt=0)
    requests: int = pa.Field(nullable=True, gt=0)
    estimate: float = pa.Field(nullable=True)
    ci_low: float = pa.Field(nullable=True)
    ci_high: float = pa.Field(nullable=True)
    n: int = pa.Field(ge=0)

    class Config:
        unique = ["judge", "generator", "dimension", "statistic", "n_ratings"]


def tabulate_judge_audit(
    traces: dict[str, Path], ratings: dict[tuple[str, str], Path], table: Path, *, settings: JudgeAuditSettings
) -> None:
    """Writes the `JudgeAudit` of every judge, over all its generators and for each.

    ``traces`` are by generator, ``ratings`` by judge and generator. Intervals are bootstrap percentiles over prompts.
    """
    reference_judge = settings.reference_judge

    @cache
    def by_reference_judge(generator: str) -> dict[str, Array]:
        if reference_judge is None:
            return {}
        file = ratings[reference_judge, generator]
        return dict(zip(read_dimensions(file).criteria, mean_ratings(read_levels(traces[generator], file)[1]).T, strict=True))

    rows = []
    for judge in settings.judges:
        rated = judge_dimensions(ratings, judge.judge)
        frames, levels, references = [], [], []
        for name, draws in judge.generators.items():
            family = settings.families[name]
            own = float(family == judge.family) if family and judge.family else np.nan
            for draw in draws:
                light, given = read_levels(traces[draw], ratings[judge.judge, draw])
                frames.append(light.with_columns(owner=pl.lit(name), own=pl.lit(own)))
                levels.append(given)
                unknown, known = np.full(len(light), np.nan), by_reference_judge(draw)
                references.append(np.stack([known.get(criterion, unknown) for criterion in rated.criteria], axis=1))
        frame = pl.concat(frames)
        prompt = frame["prompt_id"].rank("dense").to_numpy().astype(np.int64) - 1
        # What could not be graded is like nothing else.
        alone = pl.when(pl.col("correct").is_null()).then("trace_id").alias("alone")
        stratum = frame.select(pl.struct("prompt_id", "generator", "correct", alone).rank("dense")).to_series().to_numpy()
        repeats = max(given.shape[1] for given in levels)
        padded = [np.pad(given, ((0, 0), (0, repeats - given.shape[1]), (0, 0)), constant_values=NOT_ASKED) for given in levels]
        n_prompts = int(prompt.max()) + 1
        # How often each prompt is drawn.
        weights = n_prompts * item_weights((n_prompts,), settings.bootstrap.n_resamples, settings.bootstrap.seed)
        group = Rated(
            prompt,
            stratum.astype(np.int64),
            frame["n_tokens"].to_numpy().astype(float),
            np.concatenate(padded),
            np.concatenate(references),
            frame["own"].to_numpy(),
            weights,
        )
        reference = judge_dimensions(ratings, reference_judge) if reference_judge and judge.judge != reference_judge else None
        found = _audit(group, judge, rated, reference, whole_judge=True)
        rows += [{"judge": judge.judge, "generator": None, **row} for row in found]
        for name in judge.generators:
            part = group.take((frame["owner"] == name).to_numpy())
            found = _audit(part, judge, rated, reference, whole_judge=False)
            rows += [{"judge": judge.judge, "generator": name, **row} for row in found]
    write_result_table(rows_to_table(rows, JudgeAudit), JudgeAudit, table)


def _levels(means: Array, rated: Dimensions) -> Array:
    """(..., level) whether ``means`` are nearest to a level; of none, or more than `PARTS`, whether in a part of the scale."""
    assert rated.scale
    low, high = rated.scale
    if 0 < len(rated.levels) <= PARTS:
        return np.asarray((whole(means) - low)[..., None] == np.arange(len(rated.levels)))
    places = np.floor((means - low) / (high - low) * PARTS).clip(max=PARTS - 1)
    return np.asarray(places[..., None] == np.arange(PARTS))


def _bias_columns(group: Rated, x: Array, rated: Dimensions) -> Array:
    """Columns for the `slope` of rating minus reference on ``x`` among traces of the same level by the reference.

    The same level, because ratings that are pulled to the middle of the scale would else look like a bias against whatever goes
    with quality.
    """
    gap = mean_ratings(group.levels)[:, :-1] - group.reference_means[:, :-1]
    x = np.broadcast_to(x[:, None], gap.shape)
    known = ~np.isnan(gap + x)
    gap, x = np.where(known, gap, 0), np.where(known, x, 0)
    columns = as_columns(known.astype(float), x, gap, x * x, x * gap)
    result: Array = _levels(group.reference_means[:, :-1], rated)[..., None] * columns[:, :, None, :]
    return result


def _within_strata(group: Rated, x: Array) -> Array:
    """Columns for the `slope` of the rating itself on ``x`` among traces of a generator and prompt that are equally correct."""
    y = mean_ratings(group.levels)[:, :-1]
    _, stratum = np.unique(group.stratum, return_inverse=True)
    known = ~np.isnan(y)
    x, y = np.where(known, x[:, None], 0), np.where(known, y, 0)

    def centred(values: Array) -> Array:
        columns = []
        for column, counted in zip(values.T, known.T, strict=True):
            mean = np.bincount(stratum, column) / np.maximum(np.bincount(stratum, counted), 1)
            columns.append(np.where(counted, column - mean[stratum], 0))
        return np.stack(columns, axis=1)

    x, y = centred(x), centred(y)
    return as_columns(known.astype(float), np.zeros_like(x), np.zeros_like(x), x * x, x * y)[:, :, None, :]


def _requests(judge: AuditedJudge, n: int, n_dimensions: int) -> int | None:
    """Requests for ``n`` ratings of a trace; None for a judge whose requests are not counted."""
    if judge.choices_per_request is None:
        return None
    return -(-n // judge.choices_per_request) * (n_dimensions if judge.separate_dimensions else 1)


def _audit(
    group: Rated, judge: AuditedJudge, rated_by: Dimensions, reference: Dimensions | None, *, whole_judge: bool
) -> list[dict[str, Any]]:
    """The rows of one judge on some traces; the curve, shares of levels and slopes of ``whole_judge`` only.

    ``rated_by`` is what it rates, ``reference`` what the reference judge does, if there is another one.
    """
    rows: list[dict[str, Any]] = []
    repeats = group.levels.shape[1]

    def add(statistic: str, intervals: Array, n: Array, n_ratings: int | None = None) -> None:
        for criterion, interval, number in zip(rated_by.criteria, intervals.T, n, strict=False):
            estimate, low, high = (None if np.isnan(value) else float(value) for value in interval)
            if estimate is not None or whole_judge:
                row = {"dimension": criterion, "statistic": statistic, "n_ratings": n_ratings, "n": int(number)}
                row["requests"] = n_ratings and _requests(judge, n_ratings, len(rated_by.names))
                rows.append({**row, "estimate": estimate, "ci_low": low, "ci_high": high})

    ratings = with_overall(group.levels)
    variances = variance_columns(ratings)
    rated = variances[..., 0].sum(axis=0)
    single = group.intervals(icc, variances)
    add("icc", single, rated, 1)
    if repeats > 1:
        add("icc", group.intervals(lambda sums: spearman_brown(icc(sums), repeats), variances), rated, repeats)
    add("noise_sd", group.intervals(noise_sd, variances), rated, 1)

    asked, absent = (group.levels != NOT_ASKED).all(axis=2, keepdims=True), np.isnan(group.levels)
    absent = np.concatenate([absent, absent.any(axis=2, keepdims=True)], axis=2)
    missing = group.intervals(share, as_columns((absent & asked).sum(axis=1), np.broadcast_to(asked, absent.shape).sum(axis=1)))
    # Of none in n, resamples know nothing: then the bound is that of n independent prompts (Clopper and Pearson 1934).
    bound = 1 - ((1 - LEVEL) / 2) ** (1 / max(1, len(np.unique(group.prompt[np.any(asked, axis=(1, 2))]))))
    missing[2] = np.where(missing[0] == 0, bound, missing[2])
    add("missing", missing, np.full(len(rated_by.criteria), asked.sum()))

    means = mean_ratings(group.levels)
    one_scale = reference is not None and (reference.scale, reference.whole) == (rated_by.scale, rated_by.whole)
    if reference:
        exact = moments(means, group.reference_means)
        both = exact[..., 0].sum(axis=0)
        if one_scale:
            near = moments(whole(means), whole(group.reference_means)) if rated_by.whole else exact
            add("kappa", group.intervals(kappa, near), both)
            add("bias", group.intervals(lambda sums: (sums[..., 1] - sums[..., 2]) / sums[..., 0], exact), both)
        ranked = [
            rank_correlation(group, steps(own, rated_by.scale), steps(other, reference.scale))
            for own, other in zip(means.T, group.reference_means.T, strict=True)
        ]
        add("spearman", np.asarray(ranked).T, both)
    if not whole_judge:
        return rows
    for n in CURVE:
        add("spearman_brown", spearman_brown(single, n), rated, n)
    readable = np.isfinite(group.levels)
    for level in rated_by.levels if len(rated_by.levels) <= PARTS else ():
        at = as_columns((group.levels == level).sum(axis=1), readable.sum(axis=1))
        add(f"share_of_{level}", group.intervals(share, at), readable.sum(axis=(0, 1)))
    spread = float(group.tokens.std())
    add(
        "length_slope",
        group.intervals(lambda sums: spread * with_mean(slope(sums)), _within_strata(group, group.tokens)),
        rated,
    )
    if one_scale and rated_by.scale:
        by_length = _bias_columns(group, group.tokens, rated_by)
        add("length_bias", group.intervals(lambda sums: spread * with_mean(slope(sums)), by_length), both)
        if len(np.unique(group.own[~np.isnan(group.own)])) > 1:
            by_family = _bias_columns(group, group.own, rated_by)
            add("family_bias", group.intervals(lambda sums: with_mean(slope(sums)), by_family), both)
    return rows


def judge_findings(table: pl.DataFrame, reference_judge: str | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(judge, what was found of it, the row that says so) from a `JudgeAudit`: can it be trusted?"""
    for judge in table["judge"].unique(maintain_order=True):
        rows = table.filter(judge=judge)
        everywhere = rows.filter(pl.col("generator").is_null() & pl.col("estimate").is_not_null())
        used, requests = max(rows.filter(statistic="icc").select("n_ratings", "requests").iter_rows())
        asked = f"{used} rating{'s'[: used - 1]} of a trace" + (
            f" in {requests} request{'s'[: requests - 1]}" if requests else ""
        )
        repeated = everywhere.filter(statistic="icc", n_ratings=used).sort("estimate")
        for row in repeated.filter(dimension="overall").iter_rows(named=True):
            worst = repeated.row(0, named=True)
            lowest = f"lowest in {worst['dimension']} {_with_interval(worst)}"
            yield judge, f"with {asked}, the reliability of overall is {_with_interval(row)}, {lowest}", row
            curve = everywhere.filter(pl.col("statistic") == "spearman_brown", pl.col("dimension") != "overall")
            worst_of = curve.group_by("n_ratings").agg(pl.col("ci_low").min()).sort("n_ratings")
            enough = worst_of.filter(pl.col("ci_low") >= RELIABLE)["n_ratings"].to_list()
            needed = f"{enough[0]} ratings are enough" if enough else f"more than {worst_of['n_ratings'][-1]} ratings are needed"
            yield judge, f"{needed} for {RELIABLE} in every dimension", {"estimate": enough[0] if enough else None}
        if repeated.is_empty():
            yield judge, f"with {asked}, whether it would rate the same trace alike again is unknown", {}
        for row in everywhere.filter(statistic="spearman", dimension="overall").iter_rows(named=True):
            yield judge, f"its rank correlation with {reference_judge} is {_with_interval(row)}", row
        compared = {
            "bias": ("its ratings", f"those of {reference_judge}"),
            "length_bias": ("its ratings, at equal quality, of traces with a standard deviation more tokens", "others"),
            "family_bias": ("its ratings, at equal quality, of traces of its own family", "others"),
        }
        for statistic, (what, others) in compared.items():
            for row in everywhere.filter(statistic=statistic, dimension="overall").iter_rows(named=True):
                words = (f"higher than {others} by", f"lower than {others} by")
                found = percentile_verdict(row["estimate"], row["ci_low"], row["ci_high"], 2, words)
                yield judge, f"{what}: {found} levels", row
        missing = rows.filter(statistic="missing", dimension="overall").drop_nulls("generator").sort("estimate")
        worst = missing.row(-1, named=True)
        most, bound = 100 * worst["estimate"], 100 * worst["ci_high"]
        yield judge, f"at most {most:.1f} % of its ratings are missing (of {worst['generator']}, up to {bound:.1f} %)", worst


def _with_interval(row: dict[str, Any]) -> str:
    return f"{row['estimate']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
