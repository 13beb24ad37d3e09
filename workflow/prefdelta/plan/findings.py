"""Plans of findings: tables and figures of what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from prefdelta.answers.settings import (
    ClaimsSettings,
    FitSettings,
    Question,
    RegressionsSettings,
    ReplicationSettings,
    TwoDeltasSettings,
)
from prefdelta.findings.settings import (
    ExperimentFigureSettings,
    ExperimentSettings,
    FigureSettings,
    GeneratorDeltasSettings,
    PrimaryContrast,
    SharpeningSettings,
    ShiftedArm,
    SuitesSettings,
)
from prefdelta.measure.settings import ArmSettings, Bootstrap, ComparedArm, SuiteSettings
from prefdelta.plan.checkpoints import base
from prefdelta.plan.job import Files, Job, made_elsewhere
from prefdelta.plan.pairs import pair_file
from prefdelta.plan.shift import held_out
from prefdelta.study import paths
from prefdelta.study.generators import CheckpointGenerator
from prefdelta.study.lattice import (
    Arm,
    Cell,
    PairSet,
    arms,
    controls,
    judged_sides,
    label,
    rated_generators,
    series,
    trained_arms,
    trained_cells,
    words_apart,
)
from prefdelta.study.models import MicroworldModel
from prefdelta.study.selections import draw_for_seed
from prefdelta.study.study import Study


def bootstrap(study: Study) -> Bootstrap:
    return Bootstrap(n_resamples=study.bootstrap, seed=study.seed, ungraded=study.gates.ungraded)


def table(study: Study, name: str) -> str:
    return paths.TABLE.format(study=study.study, table=name)


def figure(study: Study, name: str) -> str:
    return paths.FIGURE.format(study=study.study, figure=name)


def trace_files(study: Study, generators: Sequence[str]) -> dict[str, str]:
    """generator -> its traces."""
    return {name: paths.TRACES.format(study=study.study, generator=name) for name in dict.fromkeys(generators)}


def rating_files(study: Study, rated: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], str]:
    """(judge, generator) -> its ratings."""
    return {
        (judge, name): paths.RATINGS.format(study=study.study, judge=judge, generator=name)
        for judge, names in rated.items()
        for name in names
    }


def all_traces(study: Study) -> dict[str, str]:
    return trace_files(study, list(study.generators))


def all_ratings(study: Study) -> dict[tuple[str, str], str]:
    return rating_files(study, rated_generators(study))


def eval_files(study: Study, cells: Sequence[Cell], pattern: str = paths.EVAL) -> dict[Cell, str]:
    """cell -> its evaluation, or its checkpoint's manifest."""
    return {cell: pattern.format(study=study.study, **vars(cell)) for cell in cells}


def base_evals(study: Study, models: Sequence[str]) -> dict[str, str]:
    """model -> the evaluation of its untuned checkpoint."""
    return {model: paths.EVAL_BASE.format(study=study.study, model=model) for model in dict.fromkeys(models)}


def pair_files(study: Study, sets: Sequence[PairSet]) -> dict[PairSet, str]:
    """pair set -> its table."""
    return {pairs: pair_file(study, pairs) for pairs in dict.fromkeys(sets)}


def trained_pairs(study: Study) -> dict[PairSet, str]:
    """The pairs of every cell that an experiment trains."""
    return pair_files(study, [cell.pairs for cell in trained_cells(study)])


def with_cells(study: Study, seeds: Mapping[Arm, int]) -> list[ArmSettings]:
    return [ArmSettings(**asdict(arm), cells=arm.cells(study, n)) for arm, n in seeds.items()]


def compared_arms(study: Study, name: str) -> list[ComparedArm]:
    """The arms of an experiment by their names, with their cells and controls."""
    experiment = study.experiments[name]
    n_seeds = experiment.seeds if name in study.trained else 0
    return [
        ComparedArm(
            **asdict(arm),
            arm=label(experiment, arm),
            versus={label(experiment, control): place for control, place in controls(study, name, arm).items()},
            cells=arm.cells(study, n_seeds),
        )
        for arm in arms(study, name)
    ]


def models_of_generators(study: Study) -> dict[str, str]:
    """generator -> the model that it samples, where it is one of the study's."""
    return {name: generator.model for name, generator in study.generators.items() if isinstance(generator, CheckpointGenerator)}


def _experiment(study: Study, name: str) -> tuple[ExperimentSettings, dict[str, str]]:
    """Settings of an experiment's table, and the traces of its generators."""
    found = compared_arms(study, name)
    sides = dict.fromkeys(generator for arm in found for generator in (arm.chosen, arm.rejected))
    draws = {generator: study.draws(generator) for generator in sides}
    primary = study.experiments[name].primary
    settings = ExperimentSettings(
        experiment=name,
        arms=found,
        draws=draws,
        bootstrap=bootstrap(study),
        primary=PrimaryContrast(arm=primary.arm, versus=primary.versus, suite=study.answered_suite) if primary else None,
        smallest_effect=study.smallest_effect,
    )
    return settings, trace_files(study, [draw for several in draws.values() for draw in several])


def tabulate_experiment(study: Study, words: Mapping[str, str]) -> Job:
    settings, traces = _experiment(study, words["experiment"])
    cells = [cell for arm in settings.arms for cell in arm.cells]
    inputs: dict[str, Files] = {
        "traces": traces,
        "evals": eval_files(study, cells),
        "manifests": eval_files(study, cells, paths.CHECKPOINT),
        "bases": base_evals(study, [arm.policy for arm in settings.arms]),
    }
    return Job(inputs, settings)


def profile_pairs(study: Study, name: str) -> dict[str, str]:
    """arm -> its pair set, by the first draws of its generators and of its selection."""
    return {
        arm.arm: pair_file(study, PairSet(arm.judge, arm.chosen, arm.rejected, draw_for_seed(arm.selection, 0)))
        for arm in compared_arms(study, name)
    }


def tabulate_profile(study: Study, words: Mapping[str, str]) -> Job:
    settings, traces = _experiment(study, words["experiment"])
    return Job({"traces": traces, "pairs": profile_pairs(study, words["experiment"])}, settings)


def _figure(study: Study, name: str) -> FigureSettings:
    experiment = study.experiments[name]
    kept = {key: getattr(experiment, key) for key in ("title", "question", "caveat", "figure")}
    names = [label(experiment, arm) for arm in arms(study, name)]
    return FigureSettings(**kept, arms=names, suites=list(study.suites))


def plot_experiment(study: Study, words: Mapping[str, str]) -> Job:
    name = words["experiment"]
    settings = ExperimentFigureSettings(**dict(_figure(study, name)), series=series(study, name))
    return Job({"table": table(study, name)}, settings)


def plot_profile(study: Study, words: Mapping[str, str]) -> Job:
    name = words["experiment"]
    return Job({"table": table(study, name), "pairs": profile_pairs(study, name)}, _figure(study, name))


def evaluated_models(study: Study) -> list[str]:
    """Models whose capability is tabulated: policies, and of the micro-world all that write traces. Others cost too much to be
    asked in passing."""
    return [
        name
        for name, model in study.models.items()
        if name in study.policies or (isinstance(model, MicroworldModel) and model.writes == "traces")
    ]


def tabulate_capability(study: Study, words: Mapping[str, str]) -> Job:
    models = evaluated_models(study)
    return Job({"evals": base_evals(study, models), "manifests": {name: base(study, name) for name in models}}, bootstrap(study))


def plot_capability(study: Study, words: Mapping[str, str]) -> Job:
    return Job({"table": table(study, "capability")}, SuitesSettings(suites=list(study.suites)))


def tabulate_sharpening(study: Study, words: Mapping[str, str]) -> Job:
    """The arms of all experiments but crossed ones, which ask what gains depend on and not what they are made of."""
    experiments = [name for name, experiment in study.trained.items() if experiment.figure != "crossed"]
    arms = [
        ShiftedArm(
            **vars(arm),
            beta=study.methods[arm.method].beta,
            held_out=held_out(study, arm.cells[0].chosen, arm.cells[0].rejected)[1],
        )
        for arm in with_cells(study, trained_arms(study, experiments or study.trained))
    ]
    cells = list(dict.fromkeys(cell for arm in arms for cell in arm.cells))
    policies = list(dict.fromkeys(arm.policy for arm in arms))
    tempered = policies if study.evaluation.temperatures else []
    inputs: dict[str, Files] = {
        "evals": eval_files(study, cells),
        "bases": base_evals(study, policies),
        "tempered": {policy: paths.EVAL_TEMPERATURES.format(study=study.study, model=policy) for policy in tempered},
        "shifts": eval_files(study, cells, paths.SHIFT),
        "base_shifts": {policy: paths.SHIFT_BASE.format(study=study.study, model=policy) for policy in policies},
        "manifests": eval_files(study, cells, paths.CHECKPOINT),
    }
    settings = SharpeningSettings(
        arms=arms, suites=list(study.suites), temperature=study.evaluation.temperature, bootstrap=bootstrap(study)
    )
    return Job(inputs, settings)


def plot_sharpening(study: Study, words: Mapping[str, str]) -> Job:
    return Job({"table": table(study, "sharpening")}, SuiteSettings(study=study.study, suite=study.answered_suite))


def tabulate_generator_deltas(study: Study, words: Mapping[str, str]) -> Job:
    settings = GeneratorDeltasSettings(sides=judged_sides(study), bootstrap=bootstrap(study))
    return Job({"traces": all_traces(study), "ratings": all_ratings(study)}, settings)


FITS: dict[str, Literal["trend", "quality"]] = {"ladder": "trend", "grid": "quality"}  # figure -> kind of regression


def _fits(study: Study, name: str) -> list[FitSettings]:
    """A fit for each (policy, method, judge, selection) of an experiment."""
    experiment = study.experiments[name]
    alike: dict[str, list[Arm]] = {}
    for arm in arms(study, name):
        alike.setdefault(", ".join(words_apart(experiment, arm)), []).append(arm)
    return [
        FitSettings(
            fit=name,
            among=among or None,
            primary=not place and experiment.figure == "ladder" and experiment.primary is None,
            kind=FITS[experiment.figure],
            arms=with_cells(study, dict.fromkeys(members, experiment.seeds)),
        )
        for place, (among, members) in enumerate(alike.items())
    ]


def tabulate_regressions(study: Study, words: Mapping[str, str]) -> Job:
    """Trends of ladders, qualities of grids, and deltas by dimension of all arms of the first policy, method and judge."""
    fits = [fit for name, experiment in study.experiments.items() if experiment.figure in FITS for fit in _fits(study, name)]
    first = (study.policies[0], next(iter(study.methods)), next(iter(study.judges)))
    everywhere = {arm: seeds for arm, seeds in trained_arms(study).items() if (arm.policy, arm.method, arm.judge) == first}
    fits.append(FitSettings(fit="dimensions", kind="dimensions", arms=with_cells(study, everywhere)))
    inputs: dict[str, Files] = {
        "generator_deltas": table(study, "generator_level_delta"),
        "whatif": table(study, "whatif"),
        "evals": eval_files(study, list(dict.fromkeys(cell for fit in fits for arm in fit.arms for cell in arm.cells))),
        "bases": base_evals(study, [arm.policy for fit in fits for arm in fit.arms]),
    }
    settings = RegressionsSettings(
        fits=fits, models=models_of_generators(study), suite=study.answered_suite, ungraded=study.gates.ungraded
    )
    return Job(inputs, settings)


def plot_regressions(study: Study, words: Mapping[str, str]) -> Job:
    grids = {name: table(study, name) for name, experiment in study.experiments.items() if experiment.figure == "grid"}
    settings = SuiteSettings(study=study.study, suite=study.answered_suite)
    return Job({"table": table(study, "regressions"), "grids": grids}, settings)


def tabulate_two_deltas(study: Study, words: Mapping[str, str]) -> Job:
    crossed = {name: compared_arms(study, name) for name, each in study.experiments.items() if each.figure == "crossed"}
    inputs: dict[str, Files] = {
        "experiments": {name: table(study, name) for name in crossed},
        "delta_correction": table(study, "delta_correction"),
        "evals": eval_files(study, [cell for found in crossed.values() for arm in found for cell in arm.cells]),
    }
    return Job(inputs, TwoDeltasSettings(arms=crossed, suite=study.answered_suite, bootstrap=bootstrap(study)))


def tabulate_claims(study: Study, words: Mapping[str, str]) -> Job:
    questions = [
        Question(experiment=name, question=experiment.question, caveat=experiment.caveat)
        for name, experiment in study.compared.items()
    ]
    tables = ("two_deltas", "regressions", "sharpening", "capability", "prediction", "judge_audit", "delta_correction")
    inputs: dict[str, Files] = {name: table(study, name) for name in tables}
    inputs["experiments"] = {name: table(study, name) for name in study.compared}
    inputs["replication"] = [table(study, "replication")] if study.replicates else []
    settings = ClaimsSettings(
        questions=questions,
        suites=list(study.suites),
        models=models_of_generators(study),
        reference_judge=study.reference_judge,
        original=_replication(study).original,
    )
    return Job(inputs, settings)


def _replication(study: Study) -> ReplicationSettings:
    return ReplicationSettings(study=study.study, suite=study.answered_suite, original=Path(study.replicates or "").name)


def tabulate_replication(study: Study, words: Mapping[str, str]) -> Job:
    """An empty table where the study replicates none. Raises ConfigError where tables of the other one are missing."""
    inputs: dict[str, Files] = {"originals": {}, "experiments": {}, "original_slopes": [], "slopes": []}
    if study.replicates:
        folder, names = Path(study.replicates) / "tables", [*study.compared, "regressions"]
        others = dict(zip(names, made_elsewhere([str(folder / f"{name}.csv") for name in names]), strict=True))
        inputs["original_slopes"], inputs["slopes"] = [others.pop("regressions")], [table(study, "regressions")]
        inputs |= {"originals": others, "experiments": {name: table(study, name) for name in others}}
    return Job(inputs, _replication(study))


def plot_replication(study: Study, words: Mapping[str, str]) -> Job:
    return Job({"table": table(study, "replication")}, _replication(study))
