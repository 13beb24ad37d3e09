"""Plans of what is known, or predicted, of arms before they are trained."""

import json
from collections.abc import Mapping
from dataclasses import asdict

from prefdelta.forecast.settings import (
    STEP,
    Asked,
    OverlapSettings,
    PlannedArm,
    PredictionSettings,
    RequestsSettings,
    WhatIfFigureSettings,
    WhatIfSettings,
)
from prefdelta.judge import rubric
from prefdelta.measure.settings import SuiteSettings
from prefdelta.plan.findings import (
    base_evals,
    bootstrap,
    eval_files,
    models_of_generators,
    pair_files,
    table,
    trained_pairs,
    with_cells,
)
from prefdelta.plan.generation import generator_sampling, requests_run
from prefdelta.plan.job import Files, Job, made_elsewhere
from prefdelta.plan.rating import judge_requests
from prefdelta.plan.training import Reference, kind_of_references, stored_references
from prefdelta.study import paths
from prefdelta.study.endpoints import UrlEndpoint
from prefdelta.study.generators import DatasetGenerator, OpenAIGenerator
from prefdelta.study.lattice import Arm, PairSet, arms, rated_generators, trained_arms, trained_cells
from prefdelta.study.study import Study


def predictor_file(study: Study) -> list[str]:
    """The file that gains are predicted by; none where none are. Raises ConfigError."""
    return made_elsewhere([study.predictor] if study.predictor else [])


def _planned(study: Study, arm: Arm, seeds: int, uses: list[str], stored: Mapping[Reference, str]) -> PlannedArm:
    recipe, cells = study.methods[arm.method], arm.cells(study, seeds)
    return PlannedArm(
        **asdict(arm),
        cells=cells,
        experiments=uses,
        trainer=recipe.trainer,
        batch_size=recipe.batch_size,
        n_examples=recipe.n_examples,
        unit=recipe.unit(study.training_run(arm.method)),
        max_length=recipe.max_length,
        n_steps=recipe.n_steps(study.n_full_pairs),
        reads=recipe.reads,
        lengths=kind_of_references(study, cells, stored),
    )


def tabulate_whatif(study: Study, words: Mapping[str, str]) -> Job:
    uses: dict[Arm, list[str]] = {}
    for name in study.trained:
        for arm in arms(study, name):
            uses.setdefault(arm, []).append(name)
    stored = stored_references(study)
    planned = [_planned(study, arm, seeds, uses[arm], stored) for arm, seeds in trained_arms(study).items()]
    inputs: dict[str, Files] = {
        "generator_deltas": table(study, "generator_level_delta"),
        "capability": table(study, "capability"),
        "pairs": trained_pairs(study),
        "references": stored,
        "bases": base_evals(study, [arm.policy for arm in planned]),
        "predictor": predictor_file(study),
    }
    return Job(inputs, WhatIfSettings(suite=study.answered_suite, arms=planned, cost=study.cost))


def plot_whatif(study: Study, words: Mapping[str, str]) -> Job:
    settings = WhatIfFigureSettings(
        study=study.study,
        suite=study.answered_suite,
        identical_pairs=study.gates.identical_pairs,
        truncated=study.gates.truncated,
    )
    inputs: dict[str, Files] = {
        "table": table(study, "whatif"),
        "overlap": table(study, "overlap"),
        "requests": table(study, "requests"),
        "predictor": predictor_file(study),
    }
    return Job(inputs, settings)


def _asked_generators(study: Study) -> list[Asked]:
    found = []
    for name, generator in study.generators.items():
        if isinstance(generator, OpenAIGenerator) and isinstance(generator.endpoint, UrlEndpoint):
            sampling, run = generator_sampling(study, generator), requests_run(study, name)
            found.append(
                Asked(
                    name=name,
                    generator=name,
                    model=generator.model,
                    requests_per_prompt=sampling.samples,
                    characters=len(generator.system or ""),
                    trace_tokens=0,
                    max_tokens=sampling.max_new_tokens,
                    prices=run.prices,
                    cap=run.cap,
                )
            )
    return found


def _asked_judges(study: Study) -> list[Asked]:
    found = []
    for name, generators in rated_generators(study).items():
        judge = study.judges[name]
        if not isinstance(judge.endpoint, UrlEndpoint):
            continue
        of, run = judge.rubric, judge_requests(study, name)
        sent = [json.dumps([rubric.messages(of, group, "", ""), rubric.response_format(of, group)]) for group in judge.groups]
        by_step = of.step if judge.step_coherence == "prefix" else None
        step = (
            json.dumps([rubric.step_messages(of, "", "", (0, 0)), rubric.response_format(of, (by_step.name,))]) if by_step else ""
        )
        for writer in generators:
            generator = study.generators[writer]
            sampling = study.sampling if isinstance(generator, DatasetGenerator) else generator_sampling(study, generator)
            # Of a request about a step, the trace is what stands before it: half of it on average.
            n_steps = -(-sampling.max_new_tokens // STEP) if by_step else 0
            n_requests = len(sent) + n_steps
            found.append(
                Asked(
                    name=name,
                    generator=writer,
                    model=judge.model,
                    requests_per_prompt=sampling.samples * judge.repeats // judge.choices_per_request * n_requests,
                    characters=(sum(map(len, sent)) + n_steps * len(step)) // n_requests,
                    trace_tokens=sampling.max_new_tokens * (2 * len(sent) + n_steps) // (2 * n_requests),
                    max_tokens=judge.max_tokens * judge.choices_per_request,
                    prices=run.prices,
                    cap=run.cap,
                )
            )
    return found


def tabulate_requests(study: Study, words: Mapping[str, str]) -> Job:
    settings = RequestsSettings(asked=[*_asked_generators(study), *_asked_judges(study)])
    return Job({"prompts": paths.TRAINING_PROMPTS.format(study=study.study)}, settings)


def tabulate_overlap(study: Study, words: Mapping[str, str]) -> Job:
    """The trained arms' pair sets, of the first seed, by their two generators; those of which there are several."""
    groups: dict[tuple[str, str], list[PairSet]] = {}
    for arm in trained_arms(study):
        pairs = arm.cell(study, 0).pairs
        group = groups.setdefault((arm.chosen, arm.rejected), [])
        if pairs not in group:
            group.append(pairs)
    several = [group for group in groups.values() if len(group) > 1]
    return Job({"pairs": pair_files(study, [pairs for group in several for pairs in group])}, OverlapSettings(groups=several))


def tabulate_prediction(study: Study, words: Mapping[str, str]) -> Job:
    settings = PredictionSettings(
        study=study.study,
        suite=study.answered_suite,
        arms=with_cells(study, trained_arms(study)),
        models=models_of_generators(study),
        bootstrap=bootstrap(study),
    )
    inputs: dict[str, Files] = {
        "whatif": table(study, "whatif"),
        "evals": eval_files(study, trained_cells(study)),
        "bases": base_evals(study, study.policies),
    }
    return Job(inputs, settings)


def plot_prediction(study: Study, words: Mapping[str, str]) -> Job:
    settings = SuiteSettings(study=study.study, suite=study.answered_suite)
    return Job({"table": table(study, "prediction"), "arms": table(study, "predicted_arms")}, settings)
