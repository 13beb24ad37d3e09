"""Plans of audits."""

from collections.abc import Mapping

from prefdelta.audit.settings import (
    AuditedJudge,
    BalancedArm,
    BalancedExperiment,
    BalanceSettings,
    CorrectedPairs,
    DeltaCorrectionSettings,
    JudgeAuditSettings,
    ReferenceJudgeSettings,
)
from prefdelta.plan.findings import (
    all_ratings,
    all_traces,
    bootstrap,
    compared_arms,
    rating_files,
    table,
    trace_files,
    trained_pairs,
)
from prefdelta.plan.generation import generator_family
from prefdelta.plan.job import Files, Job
from prefdelta.plan.rating import judge_family
from prefdelta.plan.training import kind_of_references, stored_references
from prefdelta.study import paths
from prefdelta.study.endpoints import FileEndpoint
from prefdelta.study.lattice import PairSet, judged_sides, trained_arms
from prefdelta.study.study import Study


def tabulate_coverage(study: Study, words: Mapping[str, str]) -> Job:
    return Job({"ratings": all_ratings(study)})


def tabulate_decontamination(study: Study, words: Mapping[str, str]) -> Job:
    return Job({"prompts": paths.TRAINING_PROMPTS.format(study=study.study), "dropped": paths.DROPPED.format(study=study.study)})


def tabulate_judge_audit(study: Study, words: Mapping[str, str]) -> Job:
    judges = []
    for name, generators in judged_sides(study).items():
        judge = study.judges[name]
        uncounted = isinstance(judge.endpoint, FileEndpoint) or judge.step_coherence == "prefix"
        judges.append(
            AuditedJudge(
                judge=name,
                generators=generators,
                family=judge_family(study, name),
                choices_per_request=None if uncounted else judge.choices_per_request,
                separate_dimensions=judge.separate_dimensions,
            )
        )
    settings = JudgeAuditSettings(
        judges=judges,
        families={name: generator_family(study, name) for name in study.generators},
        reference_judge=study.reference_judge,
        bootstrap=bootstrap(study),
    )
    return Job({"traces": all_traces(study), "ratings": all_ratings(study)}, settings)


def plot_judge_audit(study: Study, words: Mapping[str, str]) -> Job:
    return Job({"table": table(study, "judge_audit")}, ReferenceJudgeSettings(reference_judge=study.reference_judge))


def tabulate_delta_correction(study: Study, words: Mapping[str, str]) -> Job:
    """The pairs of all cells of the trained arms, which several policies and methods may share."""
    found: dict[PairSet, list[PairSet]] = {}
    for arm, seeds in trained_arms(study).items():
        sets = found.setdefault(PairSet(arm.judge, arm.chosen, arm.rejected, arm.selection), [])
        sets += [cell.pairs for cell in arm.cells(study, seeds) if cell.pairs not in sets]
    groups = [CorrectedPairs(**vars(named), pair_sets=sets) for named, sets in found.items()]
    everywhere = [pairs for sets in found.values() for pairs in sets]
    sides = dict.fromkeys((pairs.judge, side) for pairs in everywhere for side in (pairs.chosen, pairs.rejected))
    rated: dict[str, list[str]] = {}
    for judge, side in sides:
        for name in (judge, study.reference_judge):
            if name and side not in rated.setdefault(name, []):
                rated[name].append(side)
    inputs: dict[str, Files] = {
        "traces": trace_files(study, [side for _, side in sides]),
        "ratings": rating_files(study, rated),
        "pairs": trained_pairs(study),
    }
    settings = DeltaCorrectionSettings(
        groups=groups, seed=study.seed, reference_judge=study.reference_judge, bootstrap=bootstrap(study)
    )
    return Job(inputs, settings)


def tabulate_balance(study: Study, words: Mapping[str, str]) -> Job:
    stored = stored_references(study)
    experiments = []
    for name in study.compared:
        compared = compared_arms(study, name)
        found = [BalancedArm(**dict(arm), references=kind_of_references(study, arm.cells, stored)) for arm in compared]
        experiments.append(BalancedExperiment(experiment=name, arms=found))
    pairs = trained_pairs(study)
    writers = [side for each in pairs for side in (each.chosen, each.rejected)]
    inputs: dict[str, Files] = {"traces": trace_files(study, writers), "pairs": pairs, "references": stored}
    return Job(inputs, BalanceSettings(experiments=experiments))


def plot_balance(study: Study, words: Mapping[str, str]) -> Job:
    return Job({"table": table(study, "balance")})
