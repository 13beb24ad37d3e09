"""Plans of training, and of the reference log-probabilities that it needs."""

from collections.abc import Mapping

from prefdelta.plan.checkpoints import base, chat
from prefdelta.plan.job import Job, derived_seed
from prefdelta.study import paths
from prefdelta.study.lattice import SIDES, Cell
from prefdelta.study.recipe import Recipe
from prefdelta.study.study import Study
from prefdelta.train.settings import PolicyRun, PolicySettings, ReferenceRun, ReferenceSettings


def reference_file(study: Study, policy: str, recipe: Recipe, generator: str) -> str:
    """The reference log-probabilities of a generator's traces that ``recipe`` needs."""
    words = {"policy": policy, "length": recipe.max_length, "arithmetic": recipe.arithmetic, "generator": generator}
    return paths.REFERENCE.format(study=study.study, **words)


def compute_reference(study: Study, words: Mapping[str, str]) -> Job:
    settings = ReferenceSettings.model_validate(
        {"max_length": int(words["length"]), "arithmetic": words["arithmetic"], "chat": chat(study, words["policy"])}
    )
    inputs = {"traces": paths.TRACES.format(**words), "manifest": base(study, words["policy"])}
    return Job(inputs, settings, ReferenceRun(batch_size=study.run.batch_size))


def train_policy(study: Study, words: Mapping[str, str]) -> Job:
    recipe, run = study.methods[words["method"]], study.training_run(words["method"])
    cell = Cell(**{name: words[name] for name in Cell.__dataclass_fields__ if name != "seed"}, seed=int(words["seed"]))
    ratings = {side: paths.RATINGS.format(**words, generator=words[side]) for side in SIDES}
    references = {side: reference_file(study, words["policy"], recipe, words[side]) for side in SIDES if recipe.has_reference}
    settings = PolicySettings(
        study=study.study,
        recipe=recipe,
        n_steps=recipe.n_steps(study.n_full_pairs),
        unit=recipe.unit(run),
        cell=cell,
        chat=chat(study, words["policy"]),
        seed=derived_seed(study, "training", words["seed"]),
    )
    return Job(
        {
            "pairs": paths.PAIRS.format(**words),
            "base": base(study, words["policy"]),
            "ratings": ratings,
            "references": references,
        },
        settings,
        PolicyRun(training=run, gates=study.gates),
    )
