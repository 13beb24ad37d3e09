"""Settings of the stage that builds pairs."""

from prefdelta.study.strict import Strict


class PairsSettings(Strict):
    """Of `build_pairs`. ``seed``: of random selections."""

    judge: str
    selection: str
    seed: int
