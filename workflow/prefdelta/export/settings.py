"""Settings of exports: where everything comes from, and where it goes."""

from typing import Any

from pydantic import Field

from prefdelta.measure.settings import Bootstrap
from prefdelta.study.dimensions import PAPER, Rubric
from prefdelta.study.lattice import Cell
from prefdelta.study.strict import Strict


class Origin(Strict):
    """Where prompts, a model or a judge come from: a repository (None: the micro-world), and what else the study sets of it."""

    source: str | None = None
    revision: str | None = None
    license: str = "not stated"
    settings: dict[str, Any] = {}  # of many kinds, shown as they are


class ExportSettings(Strict):
    """Of `export_cell`. ``prompts`` are by task, ``generators`` by name, ``rubric`` is the judge's."""

    study: str
    cell: Cell
    prompts: dict[str, Origin]
    generators: dict[str, Origin]
    judge: Origin
    rubric: Rubric = Field(default=PAPER, exclude_if=lambda rubric: rubric == PAPER)
    policy: Origin
    license: str
    language: str
    push: bool
    namespace: str | None
    private: bool
    bootstrap: Bootstrap
