"""Plans of pages: the answers, and the report."""

from collections.abc import Mapping

from prefdelta.answers.settings import AnswersSettings
from prefdelta.plan.findings import figure, profile_pairs, table
from prefdelta.plan.job import Job
from prefdelta.study import paths
from prefdelta.study.experiments import RESERVED
from prefdelta.study.lattice import trained_arms
from prefdelta.study.selections import draw_for_seed
from prefdelta.study.study import Study


def render_answers(study: Study, words: Mapping[str, str]) -> Job:
    figures: dict[str, list[str]] = {}
    for name, experiment in study.experiments.items():
        shown = [name, "regressions"] if experiment.figure == "grid" else [name]
        figures[experiment.question] = figures.get(experiment.question, []) + shown
    settings = AnswersSettings(
        study=study.study,
        suite=study.answered_suite,
        seeds=what_seeds_vary(study),
        smallest_effect=study.smallest_effect,
        figures=figures,
    )
    return Job({"claims": table(study, "claims"), "figures": {name: figure(study, name) for name in answering(study)}}, settings)


def what_seeds_vary(study: Study) -> str:
    """What the seeds of this study's arms vary, so that intervals speak of it, and what is the same in all of them."""
    trained = trained_arms(study)
    sides = dict.fromkeys(side for arm in trained for side in (arm.chosen, arm.rejected))
    redrawn, once = ([name for name in sides if (len(study.draws(name)) > 1) == several] for several in (True, False))
    varied = ["the order in which a training reads its pairs"]
    if any(draw_for_seed(arm.selection, 0) != arm.selection for arm in trained):
        varied.append("the draws of random and matched selections")
    if redrawn:
        varied.append(f"the traces of {', '.join(redrawn)}, with their ratings and pairs")
    same = [f"the checkpoint{'s' * (len(study.policies) > 1)} that training starts from ({', '.join(study.policies)})"]
    same += ["the world of the problems"] if study.operations else []
    same += ["the training prompts", "the generators' and the judges' models"]
    same += [f"the traces of {', '.join(once)}, with their ratings"] if once else []
    single = [name for name, experiment in study.trained.items() if experiment.seeds == 1]
    alone = f" One seed only, so intervals over items alone: {', '.join(single)}." if single else ""
    return (
        f"What the seeds of an arm vary: {'; '.join(varied)}. What is the same in all of them: {'; '.join(same)}; what is found "
        f"is found of these.{alone} Evaluation items are the same, too; that others could have been asked is in the intervals."
    )


def answering(study: Study) -> list[str]:
    """The figures on the page of answers."""
    return [*study.experiments, "sharpening", "regressions", "judge_audit", "prediction", *_again(study)]


def _again(study: Study) -> list[str]:
    """What only a study has that replicates another one."""
    return ["replication"] if study.replicates else []


def reported(study: Study) -> list[str]:
    """Everything that the report shows: what the page of answers is made from, too.

    Snakemake's report shows whatever is marked for it among all that its targets were made from, and fails where such a file is
    gone.
    """
    figures = [*answering(study), "capability", "balance", "whatif"]
    tables = [*study.experiments, *(name for name in RESERVED if name != "replication"), *_again(study)]
    profiles = [name for name in study.experiments if name not in study.trained]
    pages = [file.replace(".parquet", ".html") for name in profiles for file in profile_pairs(study, name).values()]
    return [
        paths.ANSWERS.format(study=study.study),
        *(figure(study, name) for name in figures),
        *(figure(study, name).replace(".png", ".rst") for name in figures),  # their captions
        *(table(study, name) for name in tables),
        *dict.fromkeys(pages),
    ]


def render_report(study: Study, words: Mapping[str, str]) -> Job:
    return Job({"shown": reported(study)})
