"""Names that a command asks for, checked before any job is planned."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from snakemake.io import strip_wildcard_constraints

from prefdelta.run.errors import ConfigError
from prefdelta.study.checks import nearest
from prefdelta.study.lattice import check_names
from prefdelta.study.study import Study

_WORD = re.compile(r"\{(\w+)\}")
_FREE = {"selection": r"[^/]+", "seed": r"\d+", "length": r"\d+", "arithmetic": r"[a-z0-9-]+"}  # words without a list of choices


def check_first(workflow: Any, study: Study) -> None:
    """In the Snakefile: a command that names what ``study`` can't make ends, with the nearest name, before the DAG is built.

    Snakemake offers no place between the two, and tells what fails while it builds with a traceback.
    """
    prepare = workflow._prepare_dag

    def check_and_prepare(*args: Any, **options: Any) -> Any:
        command = workflow.dag_settings
        outputs = [output for rule in workflow.rules for output in rule.products()]
        rules, patterns = [rule.name for rule in workflow.rules], list(map(strip_wildcard_constraints, outputs))
        for name in sorted({*command.targets, *command.forcerun, *command.until, *command.omit_from}.difference(rules)):
            path = name if Path(name).is_absolute() else os.path.relpath(name)
            matches = [match.groupdict() for output in outputs if (match := output.match(path))]
            try:
                check_requested(study, name, matches, [*rules, *_alike(study, path, patterns)])
            except ConfigError as error:
                sys.exit(str(error))
        return prepare(*args, **options)

    if workflow.is_main_process:
        workflow._prepare_dag = check_and_prepare


def check_requested(study: Study, name: str, matches: Sequence[Mapping[str, str]], known: Sequence[str]) -> None:
    """Raises ConfigError where ``name`` is no file that ``study`` makes.

    ``matches``: the words of the path, for each output of a rule that it matches. ``known``: names that may have been meant.
    """
    faults = []
    for words in matches:
        try:
            return check_names(study, words)
        except ConfigError as error:
            faults.append(str(error))
    fault = f": {faults[0]}" if faults else f" is no file that study {study.study} makes, and no rule"
    # What looks like the name of an experiment may be meant for a table that every study has.
    raise ConfigError(f"{name}{fault}{'' if 'did you mean' in fault else nearest(os.path.relpath(name), known)}")


def _alike(study: Study, path: str, patterns: Iterable[str]) -> Iterator[str]:
    """For each of ``patterns`` the file that is, part by part, most like ``path``, if any is."""
    given = os.path.relpath(path).split("/")
    for pattern in patterns:
        parts = pattern.split("/")
        if len(parts) == len(given) and all(filled := [_filled(study, *pair) for pair in zip(given, parts, strict=True)]):
            yield "/".join(filled)


def _filled(study: Study, given: str, part: str) -> str:
    """``part`` of a pattern with those names that make it most like ``given``; empty where none do."""
    words = _WORD.findall(part)
    if not words:
        return part
    if words[0] in _FREE:
        return given if re.fullmatch(_WORD.sub(lambda word: _FREE[word[1]], part), given) else ""
    choices = [part.format(**dict(zip(words, names, strict=True))) for names in product(*map(study.choices, words))]
    return next(iter(get_close_matches(given, choices, n=1)), "")
