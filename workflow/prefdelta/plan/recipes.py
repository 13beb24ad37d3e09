"""Plans of sweeps: which recipe of each method is best."""

from collections.abc import Mapping

from prefdelta.findings.settings import RecipesFigureSettings, RecipesSettings, SweptRecipe
from prefdelta.plan.findings import base_evals, bootstrap, eval_files, table
from prefdelta.plan.job import Files, Job
from prefdelta.study import paths
from prefdelta.study.lattice import Arm, arms
from prefdelta.study.study import Study


def tabulate_recipes(study: Study, words: Mapping[str, str]) -> Job:
    name = words["experiment"]
    by_recipe: dict[tuple[str, str], list[Arm]] = {}
    for arm in arms(study, name):
        by_recipe.setdefault((arm.policy, arm.method), []).append(arm)
    recipes = [
        SweptRecipe(
            policy=policy,
            method=study.swept[method],
            recipe=method,
            trainer=study.methods[method].trainer,
            loss=study.methods[method].loss if study.methods[method].trainer == "dpo" else None,
            learning_rate=study.methods[method].learning_rate,
            beta=study.methods[method].beta,
            n_steps=study.methods[method].n_steps(study.n_full_pairs),
            cells=[arm.cells(study, study.experiments[name].seeds) for arm in group],
        )
        for (policy, method), group in by_recipe.items()
    ]
    cells = [cell for recipe in recipes for of_pairs in recipe.cells for cell in of_pairs]
    inputs: dict[str, Files] = {
        "evals": eval_files(study, cells),
        "shifts": eval_files(study, cells, paths.SHIFT),
        "bases": base_evals(study, [recipe.policy for recipe in recipes]),
    }
    suite = study.validation_suite
    return Job(inputs, RecipesSettings(experiment=name, validation=suite, recipes=recipes, bootstrap=bootstrap(study)))


def plot_recipes(study: Study, words: Mapping[str, str]) -> Job:
    experiment = study.experiments[words["experiment"]]
    settings = RecipesFigureSettings(
        title=experiment.title,
        question=experiment.question,
        caveat=experiment.caveat,
        validation=study.validation_suite,
        answered=study.answered_suite,
    )
    return Job({"table": table(study, words["experiment"])}, settings)
