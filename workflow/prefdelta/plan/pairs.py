"""Plans of pairs."""

from collections.abc import Mapping

from prefdelta.pairs.settings import PairsSettings
from prefdelta.plan.job import Job
from prefdelta.study import paths
from prefdelta.study.lattice import SIDES, PairSet
from prefdelta.study.study import Study


def pair_file(study: Study, pairs: PairSet) -> str:
    """The table of a pair set."""
    return paths.PAIRS.format(study=study.study, **vars(pairs))


def build_pairs(study: Study, words: Mapping[str, str]) -> Job:
    inputs = {
        f"{side}_{kind}": pattern.format(study=study.study, judge=words["judge"], generator=words[side])
        for side in SIDES
        for kind, pattern in (("traces", paths.TRACES), ("ratings", paths.RATINGS))
    }
    return Job(inputs, PairsSettings(judge=words["judge"], selection=words["selection"], seed=study.seed))


def browse_pairs(study: Study, words: Mapping[str, str]) -> Job:
    return Job({"pairs": paths.PAIRS.format(**words)})
