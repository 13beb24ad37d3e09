"""Every table that passes between stages: a pandera model each, one writer and one reader that enforce it."""

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors
from polars.io.plugins import register_io_source

from prefdelta.atomic import replacing, write_text
from prefdelta.errors import PrefdeltaError
from prefdelta.rubric import CRITERIA, DIMENSIONS, LEVELS

ARM = ["policy", "method", "judge", "chosen", "rejected", "selection"]  # the words of an arm


class TableError(PrefdeltaError):
    """A table is unreadable or breaks its model: the message names the file, the column and the check."""


class Table(pa.DataFrameModel):
    class Config:
        strict = True
        ordered = False


class Prompts(Table):
    """One row for each problem. Key: prompt_id (of an evaluation split: the item_id)."""

    prompt_id: str = pa.Field(unique=True)
    split: str
    task: str
    prompt: str = pa.Field(str_length={"min_value": 1})
    answer: str


class Dropped(Table):
    """One row for each training prompt that was left out, and why.

    ``item_id`` names the evaluation item that it is too like, ``overlap`` the runs of words that they share.
    """

    prompt_id: str
    task: str
    prompt: str
    reason: str
    detail: str = pa.Field(nullable=True)
    item_id: str = pa.Field(nullable=True)
    item_task: str = pa.Field(nullable=True)
    overlap: int = pa.Field(nullable=True, ge=0)


class Traces(Table):
    """One row for each completion by a generator. Key: trace_id.

    ``text`` is the whole completion, ``reasoning`` and ``response`` its parts; ``answer`` is null where none could be extracted.
    """

    trace_id: str = pa.Field(unique=True)
    prompt_id: str
    generator: str
    sample: int = pa.Field(ge=0)
    prompt: str
    text: str
    reasoning: str
    response: str
    answer: str = pa.Field(nullable=True)
    correct: bool
    n_tokens: int = pa.Field(ge=0)
    finish_reason: str = pa.Field(isin=["stop", "length"])


class Ratings(Table):
    """One row for each trace x dimension x repeat. A rating that can't be read is null and has a ``reason``."""

    trace_id: str
    judge: str
    dimension: str = pa.Field(isin=list(DIMENSIONS))
    repeat: int = pa.Field(ge=0)
    rating: int = pa.Field(nullable=True, ge=LEVELS[0], le=LEVELS[-1])
    reason: str = pa.Field(nullable=True)

    @pa.dataframe_check(name="missing_has_reason")
    def missing_has_reason(cls, data: Any) -> Any:
        return data.lazyframe.select(pl.col("rating").is_null() == pl.col("reason").is_not_null())

    class Config:
        unique = ["trace_id", "repeat", "dimension", "judge"]  # in the order in which they are sorted: see _Keys


class References(Table):
    """Log-probability (nats, summed over completion tokens) under the untrained policy. Key: trace_id, max_length.

    ``n_prompt_tokens`` and ``n_tokens`` are the lengths before prompt and completion together are cut to ``max_length`` tokens.
    """

    trace_id: str
    max_length: int = pa.Field(gt=0)
    logp: float = pa.Field(le=0)
    n_prompt_tokens: int = pa.Field(gt=0)
    n_tokens: int = pa.Field(gt=0)

    class Config:
        unique = ["trace_id", "max_length"]


class Predictions(Table):
    """One row for each answer to an evaluation item. Key: item_id, decoding, sample."""

    item_id: str
    suite: str
    task: str
    decoding: str = pa.Field(isin=["sampled", "greedy"])
    sample: int = pa.Field(ge=0)
    text: str
    answer: str = pa.Field(nullable=True)
    correct: bool
    n_tokens: int = pa.Field(ge=0)
    finish_reason: str = pa.Field(isin=["stop", "length"])

    class Config:
        unique = ["item_id", "decoding", "sample"]


def _rating() -> Any:
    return pa.Field(ge=LEVELS[0], le=LEVELS[-1])


def _delta() -> Any:
    return pa.Field(ge=LEVELS[0] - LEVELS[-1], le=LEVELS[-1] - LEVELS[0])


class Pairs(Table):
    """One row for each preference pair: both traces, mean ratings of both sides and deltas (chosen minus rejected)."""

    pair_id: str = pa.Field(unique=True)
    prompt_id: str
    prompt: str
    judge: str
    chosen_generator: str
    rejected_generator: str
    chosen_trace_id: str
    rejected_trace_id: str
    chosen: str
    rejected: str
    chosen_correct: bool
    rejected_correct: bool
    chosen_tokens: int = pa.Field(ge=0)
    rejected_tokens: int = pa.Field(ge=0)
    chosen_factuality: float = _rating()
    chosen_strategy_coherence: float = _rating()
    chosen_step_coherence: float = _rating()
    chosen_computational_precision: float = _rating()
    chosen_signal_to_noise: float = _rating()
    chosen_overall: float = _rating()
    rejected_factuality: float = _rating()
    rejected_strategy_coherence: float = _rating()
    rejected_step_coherence: float = _rating()
    rejected_computational_precision: float = _rating()
    rejected_signal_to_noise: float = _rating()
    rejected_overall: float = _rating()
    delta_factuality: float = _delta()
    delta_strategy_coherence: float = _delta()
    delta_step_coherence: float = _delta()
    delta_computational_precision: float = _delta()
    delta_signal_to_noise: float = _delta()
    delta_overall: float = _delta()


class Results(Table):
    """A result table: ``estimate`` is accuracy, or the paired difference to ``versus`` (both in points, 0 to 100).

    Where ``task`` is null, it is the mean over the suite's tasks. Differences have p-values (two-sided; ``p_holm``:
    corrected for all differences of the experiment on the same suite, task and decoding; ``p_mcnemar``: of greedy answers, seeds
    taken as fixed), the smallest true difference that such a comparison finds in 80 % of cases, and ``budget``: in what the arms'
    training differs by more than 2 %. ``n_tokens`` are the completion tokens that training reads. In ``delta_profile`` tables
    ``estimate`` is a mean sample-level delta (levels, -4 to 4) of ``dimension``.
    """

    experiment: str
    arm: str
    policy: str = pa.Field(nullable=True)
    method: str = pa.Field(nullable=True)
    judge: str
    chosen: str
    rejected: str
    selection: str
    suite: str = pa.Field(nullable=True)
    task: str = pa.Field(nullable=True)
    decoding: str = pa.Field(nullable=True)
    dimension: str = pa.Field(nullable=True)
    estimate: float
    ci_low: float
    ci_high: float
    versus: str = pa.Field(nullable=True)
    p_value: float = pa.Field(nullable=True, ge=0, le=1)
    p_holm: float = pa.Field(nullable=True, ge=0, le=1)
    p_mcnemar: float = pa.Field(nullable=True, ge=0, le=1)
    minimum_detectable: float = pa.Field(nullable=True, ge=0)
    budget: str = pa.Field(nullable=True)
    n_items: int = pa.Field(gt=0)
    n_seeds: int = pa.Field(nullable=True, gt=0)
    n_pairs: int = pa.Field(gt=0)
    n_tokens: int = pa.Field(nullable=True, gt=0)
    n_steps: int = pa.Field(nullable=True, gt=0)
    n_chosen_truncated: int = pa.Field(nullable=True, ge=0)
    n_rejected_truncated: int = pa.Field(nullable=True, ge=0)
    generator_delta: float = pa.Field(ge=-100, le=100)
    mean_delta: float = _delta()

    @pa.dataframe_check(name="estimate_within_interval")
    def estimate_within_interval(cls, data: Any) -> Any:
        inside = (
            pl.col("estimate").is_finite() & (pl.col("ci_low") <= pl.col("estimate")) & (pl.col("estimate") <= pl.col("ci_high"))
        )
        return data.lazyframe.select(inside)


class WhatIf(Table):
    """Every planned arm before training: means over its cells (seeds and draws of traces). Key: the six words.

    ``chosen_tokens`` and ``rejected_tokens`` are completion tokens of a pair, the policy's and cut to ``max_length`` where stored
    references have them (then ``_truncated``, the shares that are cut, are known of the sides that training reads), else as the
    generator counted them. ``n_passes``: how often the steps read each pair; ``n_training_tokens``: completion tokens that they
    read in one cell; ``n_evaluation_tokens``: that one evaluation of the untuned policy wrote. ``negative``: share of pairs with
    an overall delta below 0; ``identical``: with equal texts. Shares are 0 to 1; deltas are in levels (-4 to 4), generator_delta
    and gains in points. ``generator_delta_overall``: mean rating of all traces by the arm's judge, chosen generator minus
    rejected one. Hours and ``cost`` are those of all ``n_seeds`` cells together.
    """

    policy: str
    method: str
    judge: str
    chosen: str
    rejected: str
    selection: str
    trainer: str
    experiments: str
    n_seeds: int = pa.Field(gt=0)
    n_pairs: float = pa.Field(gt=0)
    n_steps: int = pa.Field(gt=0)
    n_passes: float = pa.Field(ge=0)
    chosen_tokens: float = pa.Field(ge=0)
    rejected_tokens: float = pa.Field(ge=0)
    n_training_tokens: float = pa.Field(ge=0)
    n_evaluation_tokens: float = pa.Field(ge=0)
    delta_factuality: float
    delta_strategy_coherence: float
    delta_step_coherence: float
    delta_computational_precision: float
    delta_signal_to_noise: float
    delta_overall: float
    delta_overall_sd: float = pa.Field(ge=0)
    delta_overall_q10: float
    delta_overall_q50: float
    delta_overall_q90: float
    chosen_overall: float
    rejected_overall: float
    negative: float = pa.Field(ge=0, le=1)
    identical: float = pa.Field(ge=0, le=1)
    chosen_correct: float = pa.Field(ge=0, le=1)
    rejected_correct: float = pa.Field(ge=0, le=1)
    chosen_truncated: float = pa.Field(nullable=True, ge=0, le=1)
    rejected_truncated: float = pa.Field(nullable=True, ge=0, le=1)
    generator_delta: float
    generator_delta_overall: float = pa.Field(nullable=True)
    base_accuracy: float = pa.Field(nullable=True, ge=0, le=100)
    training_hours: float = pa.Field(nullable=True, ge=0)
    evaluation_hours: float = pa.Field(nullable=True, ge=0)
    cost: float = pa.Field(nullable=True, ge=0)
    predicted_gain: float = pa.Field(nullable=True)
    predicted_low: float = pa.Field(nullable=True)
    predicted_high: float = pa.Field(nullable=True)

    class Config:
        unique = ARM


class Overlap(Table):
    """Pairs that two pair sets of the same generators share. ``share``: of the smaller one, 0 to 1.

    Of selections and generators with several draws: the first one.
    """

    chosen: str
    rejected: str
    judge: str
    selection: str
    other_judge: str
    other_selection: str
    n_pairs: int = pa.Field(gt=0)
    n_other: int = pa.Field(gt=0)
    n_shared: int = pa.Field(ge=0)
    share: float = pa.Field(ge=0, le=1)

    class Config:
        unique = ["chosen", "rejected", "judge", "selection", "other_judge", "other_selection"]


class Balance(Table):
    """Means of what compared arms may differ in, besides what they are to differ in. Key: experiment, arm, versus, covariate.

    ``smd`` is the standardised mean difference, (mean - mean_versus) / sqrt of the mean of both variances: null where nothing
    varies, but the means differ. ``imbalanced``: its size is above 0.1, or it is null. ``unit`` is that of the means: ``share``
    (0 to 1), ``tokens``, ``levels``, or ``log`` (natural, of chosen by rejected tokens). ``prompt_difficulty`` is the share of
    wrong answers to a pair's prompt; a trace is ``well_formed`` that ended by itself and whose answer could be extracted.
    Numbers of pairs are those of one seed, on average.
    """

    experiment: str
    arm: str
    versus: str
    covariate: str
    unit: str = pa.Field(isin=["share", "log", "tokens", "levels"])
    mean: float
    mean_versus: float
    smd: float = pa.Field(nullable=True)
    imbalanced: bool
    n_pairs: int = pa.Field(gt=0)
    n_pairs_versus: int = pa.Field(gt=0)

    class Config:
        unique = ["experiment", "arm", "versus", "covariate"]


class Prediction(Table):
    """How well gains (points) are predicted from what is known before training. Key: split.

    ``r2`` is 1 - squared error / variance of the measured gains of that split's arms: null where they do not vary or are fewer
    than three.
    """

    split: str = pa.Field(unique=True)
    r2: float = pa.Field(nullable=True, le=1)
    spearman: float = pa.Field(nullable=True, ge=-1, le=1)
    n_arms: int = pa.Field(ge=0)
    rmse: float = pa.Field(nullable=True, ge=0)


class PredictedArms(Table):
    """Measured gain (points) of every arm, and its predictions by a fit without its pair of generator models.

    ``predicted_new_generators``: without any arm that has either model; ``predicted_in_sample``: with all arms. Null where the
    fit has too few arms, or none of the arm's kind. Key: the six words.
    """

    policy: str
    method: str
    judge: str
    chosen: str
    rejected: str
    selection: str
    n_seeds: int = pa.Field(gt=0)
    estimate: float
    ci_low: float
    ci_high: float
    predicted: float = pa.Field(nullable=True)
    predicted_new_generators: float = pa.Field(nullable=True)
    predicted_in_sample: float = pa.Field(nullable=True)

    class Config:
        unique = ARM


class Regressions(Table):
    """What the gain (points of sampled accuracy over the base policy) depends on. Key: model, term.

    Slopes are for 10 points of a generator's accuracy or of a generator-level delta (``quality``, ``trend``), and for a level of
    a mean sample-level delta (``dimensions``). ``vif``: variance inflation factor; ``r2``: of the whole model.
    """

    model: str
    kind: str = pa.Field(isin=["trend", "quality", "dimensions"])
    term: str
    suite: str
    estimate: float
    ci_low: float
    ci_high: float
    p_value: float = pa.Field(ge=0, le=1)
    minimum_detectable: float = pa.Field(ge=0)
    vif: float = pa.Field(nullable=True, ge=0)
    r2: float = pa.Field(nullable=True, le=1)
    n_arms: int = pa.Field(gt=0)
    n_items: int = pa.Field(gt=0)

    class Config:
        unique = ["model", "term"]


class Claims(Table):
    """Every finding of a study in words, with what it rests on (points, or the unit that the claim names).

    ``p_holm`` is corrected for the other claims of the same experiment. ``minimum_detectable``: the smallest true size that such
    a test finds in 80 % of cases. A claim without a test (``test`` is none) has an estimate only.
    """

    question: str
    claim: str
    estimate: float = pa.Field(nullable=True)
    ci_low: float = pa.Field(nullable=True)
    ci_high: float = pa.Field(nullable=True)
    test: str
    p_value: float = pa.Field(nullable=True, ge=0, le=1)
    p_holm: float = pa.Field(nullable=True, ge=0, le=1)
    minimum_detectable: float = pa.Field(nullable=True, ge=0)
    caveat: str


class Capability(Table):
    """Measured accuracy (points) of every model before any preference tuning."""

    model: str
    family: str
    hidden_size: int
    layers: int
    parameters: int = pa.Field(gt=0)
    suite: str
    task: str = pa.Field(nullable=True)
    decoding: str
    estimate: float = pa.Field(ge=0, le=100)
    ci_low: float
    ci_high: float
    n_items: int = pa.Field(gt=0)


class GeneratorDeltas(Table):
    """Generator-level delta of every (chosen, rejected) on the same prompts: in accuracy (points), or in mean rating."""

    chosen: str
    rejected: str
    judge: str
    quantity: str = pa.Field(isin=["accuracy", *CRITERIA])
    chosen_mean: float
    rejected_mean: float
    estimate: float
    ci_low: float
    ci_high: float
    n_prompts: int = pa.Field(gt=0)


class JudgeAudit(Table):
    """How far a judge can be trusted, over all its generators (``generator`` is null) or on one. Key: all words and n_ratings.

    ``statistic``: ``icc`` (ICC(1) of the mean of ``n_ratings``: of a single one, and of as many as are used); ``spearman_brown``
    (the same for other numbers); ``noise_sd`` (levels, of a single rating of the same trace); ``missing`` (share of the asked
    ratings; overall: where a dimension is missing); ``share_of_{level}`` (of the readable ratings). Against the reference judge:
    ``kappa`` (quadratic weights, of means as whole levels), ``spearman`` (of means), ``bias`` (mean of rating minus reference,
    levels), and among traces of the same level by the reference ``length_bias`` (slope of rating minus reference, levels for a
    standard deviation of tokens) and ``family_bias`` (rating minus reference, own family minus others, levels).
    ``length_slope``: slope of the rating itself among traces of one prompt and generator that are equally correct, which holds
    real quality, too. The overall slope is the mean of the five. ``requests``: that a trace takes for ``n_ratings``. An estimate
    that the ratings can't tell (of repeats, where there is one rating of each trace) is null. ``n``: traces, but for ``missing``
    answers asked, for ``share_of`` ratings.
    """

    judge: str
    generator: str = pa.Field(nullable=True)
    dimension: str = pa.Field(isin=list(CRITERIA))
    statistic: str
    n_ratings: int = pa.Field(nullable=True, gt=0)
    requests: int = pa.Field(nullable=True, gt=0)
    estimate: float = pa.Field(nullable=True)
    ci_low: float = pa.Field(nullable=True)
    ci_high: float = pa.Field(nullable=True)
    n: int = pa.Field(ge=0)

    class Config:
        unique = ["judge", "generator", "dimension", "statistic", "n_ratings"]


class DeltaCorrection(Table):
    """Mean deltas (levels) of selected pairs as judged, without the judge's noise, and by the reference judge.

    Means over the pairs of all cells of the trained arms. ``criterion`` is the selection's own, else overall. Where pairs are
    selected by the judged delta, those whose noise was favourable are preferred: ``corrected`` takes that back; for other
    selections it is ``judged``. The interval is that of ``corrected``. ``reliability``: share of the deltas' variance that is no
    noise, among the pairs that were selected from. ``reference``: the same pairs' mean delta by the reference judge;
    ``reference_scaled``: that on the judge's scale, with which ``judged`` and ``corrected`` can be compared. Null is what needs
    repeats, or a reference judge, where there are none. Key: judge, chosen, rejected, selection.
    """

    judge: str
    chosen: str
    rejected: str
    selection: str
    criterion: str = pa.Field(isin=list(CRITERIA))
    n_pairs: int = pa.Field(gt=0)
    judged: float = _delta()
    corrected: float = pa.Field(nullable=True)
    ci_low: float = pa.Field(nullable=True)
    ci_high: float = pa.Field(nullable=True)
    reference: float = pa.Field(nullable=True)
    reference_scaled: float = pa.Field(nullable=True)
    reliability: float = pa.Field(nullable=True, ge=0, le=1)

    class Config:
        unique = ["judge", "chosen", "rejected", "selection"]


class Decontamination(Table):
    """Training prompts by what became of them: ``kept``, or the reason why they were left out."""

    task: str
    outcome: str
    item_task: str = pa.Field(nullable=True)
    n_prompts: int = pa.Field(ge=0)


class Coverage(Table):
    """Ratings asked and missing, by judge, generator, dimension; ``reasons`` counts the causes."""

    judge: str
    generator: str
    dimension: str
    n_asked: int = pa.Field(gt=0)
    n_missing: int = pa.Field(ge=0)
    reasons: str


BATCH = 2**20  # rows of a narrow table that are in memory at once
ROW_GROUP = 2**15  # rows: a reader that wants some of them should not have to hold many others
ROW_GROUP_BYTES = 2**26  # fewer rows where texts are long
_LATEX = str.maketrans({character: f"\\{character}" for character in "_%&#${}"})


@cache
def _row_checks(model: type[Table], columns: tuple[str, ...]) -> Any:
    """The schema of ``columns`` of ``model`` without the check of unique keys: what batches can be checked against one by one."""
    schema = deepcopy(model.to_schema())
    if len(columns) < len(schema.columns):
        schema = schema.select_columns(list(columns))
    schema.unique = None
    for column in schema.columns.values():
        column.unique = False
    return schema


def _check_types(found: pl.Schema, model: type[Table], path: Path | str, columns: tuple[str, ...]) -> None:
    expected = {name: str(model.to_schema().columns[name].dtype) for name in columns}
    types = {name: str(dtype) for name, dtype in found.items()}
    wrong = [
        f"column '{name}': expected {expected.get(name, 'no such column')}, found {types.get(name, 'none')}"
        for name in expected | types
        if expected.get(name) != types.get(name)
    ]
    if wrong:
        raise TableError(f"{path} is not a {model.__name__} table: " + "; ".join(wrong))


def _check_rows(batch: pl.DataFrame, model: type[Table], path: Path | str, columns: tuple[str, ...]) -> None:
    _check_types(batch.schema, model, path, columns)
    try:
        _row_checks(model, columns).validate(batch, lazy=True)
    except SchemaErrors as errors:
        causes = errors.failure_cases.select("column", "check").unique(maintain_order=True)
        wrong = [f"column '{column}' fails check {check}" for column, check in causes.head(5).iter_rows()]
        raise TableError(f"{path} breaks the {model.__name__} model: " + "; ".join(wrong)) from None


class _Keys:
    """Whether the keys of a table are unique, whose batches come one after the other.

    Where rows with the same first column lie together and increase in the others, it is enough to look at neighbours, and at a
    64-bit hash of each first column. In any other order, and where two hashes are equal, all keys are counted.
    """

    def __init__(self, model: type[Table]) -> None:
        schema = model.to_schema()
        self.model = model
        self.names = schema.unique or [name for name, column in schema.columns.items() if column.unique]
        self.hashes = [pl.Series([], dtype=pl.UInt64)]
        self.last: list[pl.DataFrame] = []
        self.increase = True

    def add(self, batch: pl.DataFrame) -> None:
        if not self.names or batch.is_empty():
            return
        keys = pl.concat([*self.last, batch.select(self.names)])
        first, *others = self.names
        new = keys[first].ne_missing(keys[first].shift())
        if self.last:
            new[0] = False  # it was counted with its own batch
        self.hashes.append(keys[first].filter(new).hash())
        tied = ~new
        tied[0] = False
        for name in others:
            before = keys[name].shift()
            self.increase &= not (tied & (keys[name] < before)).any()
            tied &= keys[name] == before
            if not tied.any():  # the rest can't change that
                break
        self.increase &= not tied.any()
        self.last = [keys.tail(1)]

    def check(self, table: pl.LazyFrame, path: Path | str) -> None:
        """Raises TableError where a key of the whole ``table`` is there twice."""
        hashes = pl.concat(self.hashes)
        if self.increase and hashes.n_unique() == len(hashes):
            return
        repeated = table.group_by(self.names).len("n").filter(pl.col("n") > 1).head(1).collect(engine="streaming")
        if len(repeated):
            what = f"column '{self.names[0]}' fails" if len(self.names) == 1 else f"columns {', '.join(self.names)} fail"
            example = ", ".join(map(str, repeated.select(self.names).row(0)))
            raise TableError(f"{path} breaks the {self.model.__name__} model: {what} check unique, such as {example}")


def _check(frame: pl.DataFrame, model: type[Table], path: Path | str) -> pl.DataFrame:
    _check_rows(frame, model, path, tuple(model.to_schema().columns))
    keys = _Keys(model)
    keys.add(frame)
    keys.check(frame.lazy(), path)
    return frame


def rows_to_table(rows: list[dict[str, Any]], model: type[Table]) -> pl.DataFrame:
    """Rows as a frame with the columns and types of ``model``; what a row does not name is null."""
    columns = model.to_schema().columns
    types: Any = {name: column.dtype.type for name, column in columns.items()}
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=types)


def sink_batches(batches: Iterable[pl.DataFrame], path: Path | str) -> None:
    """Writes one parquet file of all ``batches`` (at least one; same columns), of which a few are in memory at a time."""
    ahead = iter(batches)
    first = next(ahead)

    def read(*_: Any) -> Iterator[pl.DataFrame]:
        return chain([first], ahead)

    rows = max(1, min(ROW_GROUP, ROW_GROUP_BYTES * len(first) // int(first.estimated_size() + 1)))
    # Level 1 takes half the time of the default and is no larger here.
    register_io_source(read, schema=first.schema).sink_parquet(path, compression_level=1, row_group_size=rows)


def write_batches(batches: Iterable[pl.DataFrame], model: type[Table], path: Path | str) -> None:
    """Checks ``batches`` (at least one) against ``model`` and writes them as one parquet file, atomically.

    Raises TableError, and leaves no file, where a batch breaks the model or a key is in two batches.
    """
    columns, keys = tuple(model.to_schema().columns), _Keys(model)

    def checked() -> Iterator[pl.DataFrame]:
        for batch in batches:
            _check_rows(batch, model, path, columns)
            keys.add(batch)
            yield batch

    with replacing(path) as temporary:
        sink_batches(checked(), temporary)
        keys.check(pl.scan_parquet(temporary), path)


def write_table(frame: pl.DataFrame, model: type[Table], path: Path | str) -> None:
    """Checks ``frame`` against ``model`` and writes it as parquet, atomically. Raises TableError and leaves no file."""
    write_batches([frame], model, path)


def read_batches(path: Path | str, model: type[Table], columns: Sequence[str] = ()) -> Iterator[pl.DataFrame]:
    """Reads and checks a parquet table (of it ``columns``, all by default) in batches of about `BATCH` rows.

    ``columns`` must have those of the key. Raises TableError like `read_table`, for a repeated key after the last batch.
    """
    everything = tuple(model.to_schema().columns)
    names, keys = tuple(columns) or everything, _Keys(model)
    try:
        table = pl.scan_parquet(path)
        _check_types(table.collect_schema(), model, path, everything)
        table = table.select(names)
        for batch in table.collect_batches(chunk_size=BATCH, engine="streaming"):
            _check_rows(batch, model, path, names)
            keys.add(batch)
            yield batch
        keys.check(table, path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(f"{path} can't be read as parquet ({error}). Delete it and run again.") from None


def read_table(path: Path | str, model: type[Table]) -> pl.DataFrame:
    """Reads and checks a parquet table. Raises TableError with the file, the column and the check."""
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(f"{path} can't be read as parquet ({error}). Delete it and run again.") from None
    return _check(frame, model, path)


def read_result_csv(path: Path | str, model: type[Table]) -> pl.DataFrame:
    """Reads and checks a CSV result table."""
    types: Any = {name: column.dtype.type for name, column in model.to_schema().columns.items()}
    try:
        frame = pl.read_csv(path, schema_overrides=types)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TableError(f"{path} can't be read as a {model.__name__} table: {reason}. Delete it and run again.") from None
    return _check(frame, model, path)


def write_result_table(frame: pl.DataFrame, model: type[Table], path: Path | str) -> None:
    """Writes a checked result table as CSV, and beside it as Markdown (.md) and LaTeX booktabs (.tex)."""
    checked = _check(frame, model, path)
    columns = [name for name in checked.columns if checked[name].null_count() < len(checked)]
    cells = [
        ["" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value) for value in row]
        for row in checked.select(columns).iter_rows()
    ]
    lines = [columns, ["---"] * len(columns), *cells]
    markdown = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    escaped = [[cell.translate(_LATEX) for cell in line] for line in [columns, *cells]]
    head, *body = [" & ".join(line) + r" \\" for line in escaped]
    open_tabular, close_tabular = rf"\begin{{tabular}}{{{'l' * len(columns)}}}", r"\end{tabular}"
    tex = "\n".join([open_tabular, r"\toprule", head, r"\midrule", *body, r"\bottomrule", close_tabular, ""])
    write_text(markdown, Path(path).with_suffix(".md"))
    write_text(tex, Path(path).with_suffix(".tex"))
    with replacing(path) as temporary:
        checked.write_csv(temporary)
