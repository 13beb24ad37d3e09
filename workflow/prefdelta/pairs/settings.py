"""Settings of the stage that builds pairs."""

from prefdelta.study.strict import Strict


class PairsSettings(Strict):
    """Of `build_pairs`. ``seed``: of random selections. ``max_length``: the limit of the references, if there are any."""

    judge: str
    selection: str
    seed: int
    max_length: int = 0
