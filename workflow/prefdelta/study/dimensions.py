"""What a judge rates: dimensions, their scale, and the rubric that says so in words. By default those of arXiv 2604.08723."""

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from prefdelta.study.strict import Strict

# Of the paper, section 3. The micro-world's authors, habits and oracle are about these by construction.
DIMENSIONS = ("factuality", "strategy_coherence", "step_coherence", "computational_precision", "signal_to_noise")
LEVELS = range(1, 6)
OVERALL = "overall"  # the criterion that is the mean of all dimensions

MOST_LEVELS = 1001  # of a scale, for a judge is sent all of them
# Names of columns that stand beside those of dimensions, beginnings of such as are made of their names, and of selections'.
_TAKEN = {"accuracy", "correct", "generator", "logp", "prompt_id", "sample", "tokens", "trace_id", "truncated", "well_formed"}
_BEGINNINGS = (OVERALL, "n_", "noise_", "within_")


# Apart from the words of the rubric, so that another wording concerns only those who ask or show it.
class Dimensions(Strict):
    """The ``names`` of what a judge rates, in their order, and the ``scale`` of its ratings: lowest and highest, or any number.

    Ratings that are ``whole`` are levels.
    """

    names: tuple[str, ...]
    scale: tuple[int | float, int | float] | None
    whole: bool

    @property
    def criteria(self) -> tuple[str, ...]:
        """What a pair can be selected by: a dimension, or the mean of all."""
        return (*self.names, OVERALL)

    @property
    def levels(self) -> range:
        """All ratings that there are; none where they are not whole."""
        return range(int(self.scale[0]), int(self.scale[1]) + 1) if self.whole and self.scale else range(0)

    @property
    def told(self) -> str:
        """A rating in words, such as ``level from 1 to 5``."""
        kind = "level" if self.whole else "number"
        return f"{kind} from {self.scale[0]:g} to {self.scale[1]:g}" if self.scale else kind

    def holds(self, rating: float) -> bool:
        """Whether a finite number is a rating."""
        within = self.scale is None or self.scale[0] <= rating <= self.scale[1]
        return within and (not self.whole or rating == int(rating))


THE_FIVE = Dimensions(names=DIMENSIONS, scale=(LEVELS[0], LEVELS[-1]), whole=True)  # the paper's


class Dimension(Strict):
    """A dimension, and what its levels mean."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")] = Field(
        description="in tables, selections (`top500-{name}`) and answers: lower case letters, digits, single `_`"
    )
    question: str = Field(default="", description="what the judge is to ask of a trace")
    levels: dict[float, str] = Field(
        default={},
        description='what a trace of a level is like, by level, in quotes: `{"1": no step follows, "5": every step follows}`. A '
        "judge that is asked needs those of the lowest and of the highest",
    )

    @field_validator("levels")
    @classmethod
    def _in_order(cls, levels: dict[float, str]) -> dict[float, str]:
        return dict(sorted(levels.items()))


class Rubric(Strict):
    """What a judge rates, in which words it is asked, and on which scale it answers."""

    dimensions: list[Dimension] = Field(min_length=1, description="what is rated; `overall` is their mean")
    scale: tuple[int | float, int | float] | None = Field(
        default=(LEVELS[0], LEVELS[-1]),
        description="lowest and highest rating, the same for all dimensions; null: any number, of ratings that are `real`",
    )
    numbers: Literal["whole", "real"] = Field(default="whole", description="what ratings are")
    advice: str = Field(
        default="", description="how to grade, as the end of the sentence `Grade each dimension by itself, and ...`"
    )
    step: Dimension | None = Field(
        default=None,
        description="one of the dimensions in words for a single step, which the judge sees with what stands before it "
        "(`step_coherence: prefix`)",
    )

    @cached_property
    def rated(self) -> Dimensions:
        """Names and scale without the words."""
        return Dimensions(names=tuple(each.name for each in self.dimensions), scale=self.scale, whole=self.numbers == "whole")

    @property
    def unasked(self) -> str | None:
        """What is missing for a judge that is asked, if something is."""
        if self.scale is None:
            return "`scale` must have a lowest and a highest rating"
        for each in (*self.dimensions, *([self.step] if self.step else [])):
            if not each.question or not {*self.scale} <= each.levels.keys():
                low, high = (f'"{level:g}"' for level in self.scale)
                return f"{each.name} needs a `question`, and `levels` {low} and {high} with what they mean"
        return None

    @model_validator(mode="after")
    def _consistent(self) -> "Rubric":
        if faults := list(self._faults()):
            raise ValueError("; ".join(faults))
        return self

    def _faults(self) -> Iterator[str]:
        names = self.rated.names
        yield from (f"dimensions: '{name}' is named twice" for name in sorted({name for name in names if names.count(name) > 1}))
        for name in names:
            if name in _TAKEN or name.startswith(_BEGINNINGS):
                yield f"dimensions: '{name}' is, or begins like, another word of tables and selections; choose another"
        if self.numbers == "whole" and (self.scale is None or any(end != int(end) for end in self.scale)):
            yield "scale: whole ratings need a lowest and a highest that are whole numbers (`numbers: real` for others)"
        elif self.scale and self.scale[0] >= self.scale[1]:
            yield "scale: the lowest rating stands first, the highest second"
        elif len(self.rated.levels) > MOST_LEVELS:
            yield f"scale: more than {MOST_LEVELS} levels; ratings of such a scale are `numbers: real`"
        else:
            for each in (*self.dimensions, *([self.step] if self.step else [])):
                wrong = [f"{level:g}" for level in each.levels if not self.rated.holds(level)]
                yield from (f"{each.name}: '{level}' is no {self.rated.told}" for level in wrong)
        if self.step and self.step.name not in names:
            yield f"step: '{self.step.name}' is none of the dimensions {', '.join(names)}"


# The dimensions are the paper's, the words ours, since its judge's prompt is not public. `config/rubrics/paper.yaml` is the same,
# to be copied; here it stands since what a judge is asked by default is code, whose changes are seen.
PAPER = Rubric(
    dimensions=[
        Dimension(
            name="factuality",
            question="Does the trace use the problem's numbers and conditions as they are stated?",
            levels={
                1: "none are used as stated",
                3: "about half are used as stated",
                5: "all are used as stated",
            },
        ),
        Dimension(
            name="strategy_coherence",
            question="Is the overall plan, that is, which operations in which order, the one the problem asks for?",
            levels={
                1: "no part of the plan fits the problem",
                3: "about half of the plan fits the problem",
                5: "the whole plan fits the problem",
            },
        ),
        Dimension(
            name="step_coherence",
            question="Does each step follow from the steps before it, and the final answer from the last step?",
            levels={
                1: "no step follows from the one before it",
                3: "about half of the steps follow",
                5: "every step and the final answer follow",
            },
        ),
        Dimension(
            name="computational_precision",
            question="Taken by itself, is each calculation carried out correctly?",
            levels={
                1: "no calculation is right",
                3: "about half of the calculations are right",
                5: "every calculation is right",
            },
        ),
        Dimension(
            name="signal_to_noise",
            question="How much of the text serves the solution?",
            levels={
                1: "none of the text does",
                3: "about half of the text does",
                5: "all of the text does",
            },
        ),
    ],
    advice="a wrong final answer alone is no reason for low levels",
    step=Dimension(
        name="step_coherence",
        question="Does the step follow from the problem and from what stands before it?",
        levels={
            1: "it does not follow, or contradicts what stands before",
            3: "it follows in part",
            5: "it follows",
        },
    ),
)
