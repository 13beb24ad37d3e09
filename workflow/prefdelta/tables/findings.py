"""The tables of findings: a pandera model each."""

from typing import Any

import pandera.polars as pa
import polars as pl

from prefdelta.study.dimensions import CRITERIA
from prefdelta.tables.io import ARM, Table
from prefdelta.tables.stages import _delta


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
