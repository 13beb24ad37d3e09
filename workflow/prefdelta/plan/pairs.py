"""Plans of pairs."""

from collections.abc import Mapping

from prefdelta.pairs.settings import PairsSettings
from prefdelta.plan.job import Files, Job
from prefdelta.plan.training import reference_file
from prefdelta.study import paths
from prefdelta.study.lattice import SIDES, PairSet
from prefdelta.study.selections import parse
from prefdelta.study.study import Study


def pair_file(study: Study, pairs: PairSet) -> str:
    """The table of a pair set."""
    return paths.PAIRS.format(study=study.study, **vars(pairs))


def build_pairs(study: Study, words: Mapping[str, str]) -> Job:
    inputs: dict[str, Files] = {
        f"{side}_{kind}": pattern.format(study=study.study, judge=words["judge"], generator=words[side])
        for side in SIDES
        for kind, pattern in (("traces", paths.TRACES), ("ratings", paths.RATINGS))
    }
    settings = PairsSettings(judge=words["judge"], selection=words["selection"], seed=study.seed)
    inputs["references"] = []
    if parse(settings.selection).reads_references:
        # A pair set belongs to no policy and no method: the first ones are meant.
        recipe = next(recipe for recipe in study.methods.values() if recipe.has_reference)
        inputs["references"] = [reference_file(study, study.policies[0], recipe, words[side]) for side in SIDES]
        settings = settings.model_copy(update={"max_length": recipe.max_length})
    return Job(inputs, settings)


def browse_pairs(study: Study, words: Mapping[str, str]) -> Job:
    return Job({"pairs": paths.PAIRS.format(**words)})
