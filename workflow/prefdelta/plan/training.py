"""Plans of training, and of the reference log-probabilities that it needs."""

from collections.abc import Mapping, Sequence

from prefdelta.plan.checkpoints import base, chat
from prefdelta.plan.job import Job, derived_seed
from prefdelta.study import paths
from prefdelta.study.lattice import SIDES, Cell, trained_cells
from prefdelta.study.recipe import Recipe
from prefdelta.study.study import Study
from prefdelta.train.settings import PolicyRun, PolicySettings, ReferenceRun, ReferenceSettings

Reference = tuple[str, int, str, str]  # policy, length limit, arithmetic, generator


def reference_file(study: Study, policy: str, recipe: Recipe, generator: str) -> str:
    """The reference log-probabilities of a generator's traces that ``recipe`` needs."""
    words = {"policy": policy, "length": recipe.max_length, "arithmetic": recipe.arithmetic, "generator": generator}
    return paths.REFERENCE.format(study=study.study, **words)


def stored_references(study: Study) -> dict[Reference, str]:
    """Every stored reference that a trained cell needs."""
    found: dict[Reference, str] = {}
    for cell in trained_cells(study):
        recipe = study.methods[cell.method]
        for generator in (cell.chosen, cell.rejected) if recipe.has_reference else ():
            key = (cell.policy, recipe.max_length, recipe.arithmetic, generator)
            found[key] = reference_file(study, cell.policy, recipe, generator)
    return found


def kind_of_references(study: Study, cells: Sequence[Cell], stored: Mapping[Reference, str]) -> tuple[int, str] | None:
    """Length limit and arithmetic of ``stored`` references to all traces of an arm's ``cells``: if possible, those of its recipe.

    None where there are none.
    """
    recipe, policy = study.methods[cells[0].method], cells[0].policy
    kinds = dict.fromkeys((length, arithmetic) for trained, length, arithmetic, _ in stored if trained == policy)
    generators = {generator for cell in cells for generator in (cell.chosen, cell.rejected)}
    own = (recipe.max_length, recipe.arithmetic)
    known = [kind for kind in [own, *kinds] if all((policy, *kind, generator) in stored for generator in generators)]
    return known[0] if known else None


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
    # Of prompts without right answers no answer can be graded.
    gates = study.gates.model_copy(update={"ungraded": 1.0}) if study.unanswered else study.gates
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
        PolicyRun(training=run, gates=gates),
    )
