"""Reading a study: the configuration that Snakemake has read, checked, with messages that name the key."""

import os
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from prefdelta.configure.files import DEFAULT, read_config
from prefdelta.run.errors import ConfigError
from prefdelta.study.checks import nearest
from prefdelta.study.lattice import arms, check_primary, controls
from prefdelta.study.run import ModelRun, RequestsRun, TrainingRun
from prefdelta.study.strict import Strict
from prefdelta.study.study import Study


def load_study(config: dict[str, Any], files: Sequence[Path | str] = ()) -> Study:
    """The study of a configuration that Snakemake has read from ``files``.

    Raises ConfigError for what is wrong with a file by itself (`read_config`), sections that are missing, unknown keys and
    names, wrong values, and controls that an experiment does not have.
    """
    for file in files:
        read_config(file)
    try:
        study = Study.model_validate(_with_rubrics(config))
    except ValidationError as error:
        missing = [str(problem["loc"][0]) for problem in error.errors() if _lacks_section(problem)]
        messages = [_incomplete(missing, files)] if missing else []
        problems = [(*_key(problem["loc"], config), problem) for problem in error.errors() if not _lacks_section(problem)]
        # Of a union of a number and a mapping, the one that was not meant says nothing, unless there is nothing else to say.
        meant = [
            (key, problem)
            for key, member, problem in problems
            if not (member and isinstance(problem["input"], int | dict) and problem["type"] in ("int_type", "model_type"))
        ]
        for key, problem in meant or [(key, problem) for key, _, problem in problems]:
            text = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                keys = _keys_at(problem["loc"][:-1])
                text = f"unknown key; choose from {', '.join(keys)}{nearest(str(problem['loc'][-1]), keys)}"
                text += _moved(str(problem["loc"][0]), str(problem["loc"][-1]))
            elif problem["type"] == "literal_error":
                text += nearest(str(problem["input"]), re.findall("'(.*?)'", problem["ctx"]["expected"]))
            elif problem["type"] == "string_type" and isinstance(problem["input"], bool | int | float | date):
                text += "; what YAML reads as a number, a date, true or false (yes, no, on, off) is a text in quotes"
            given = "" if isinstance(problem["input"], dict | Study) else f" (given: {problem['input']!r})"
            messages.append(f"{key}: {text}{given}" if key else text)
        raise ConfigError("\n".join(messages)) from None
    for name in study.experiments:
        for arm in arms(study, name):
            controls(study, name, arm)
        check_primary(study, name)
    return study


def _lacks_section(problem: ErrorDetails) -> bool:
    return problem["type"] == "missing" and len(problem["loc"]) == 1


def _incomplete(missing: list[str], files: Sequence[Path | str]) -> str:
    """That ``files``, which Snakemake has combined, are no whole study."""
    named = [os.path.relpath(file) for file in files]
    lacking = f"{' and '.join(named)} lack{'' if len(named) > 1 else 's'}" if named else "the configuration lacks"
    return (
        f"{lacking} {', '.join(missing)}: nothing is taken from {DEFAULT} where a file is named. Add them (config/README.md has "
        f"the keys), or name the study's file first: `--configfile STUDY.yaml {' '.join(named) or 'FILE.yaml'}`"
    )


def _with_rubrics(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with what the files hold that judges name as their `rubric`. Raises ConfigError."""
    judges = config.get("judges")
    if not isinstance(judges, dict):
        return config
    named = {name: judge["rubric"] for name, judge in judges.items() if isinstance(judge, dict) and "rubric" in judge}
    found = {name: judges[name] | {"rubric": read_config(file)} for name, file in named.items() if isinstance(file, str)}
    return config | {"judges": judges | found}


def _moved(section: str, key: str) -> str:
    """Where a machine's setting belongs that stands among content."""
    run: dict[str, type[Strict]] = {"models": ModelRun, "generators": RequestsRun, "judges": RequestsRun, "methods": TrainingRun}
    if section in run and key in run[section].model_fields:
        return f"; it says how a machine runs, not what comes out: `run.{section}`"
    return "; it is `run.batch_size` for all" if key == "batch_size" else ""


def _key(place: tuple[int | str, ...], config: Any) -> tuple[str, bool]:
    """The key of ``config`` at pydantic's ``place`` of an error, and whether the place ends at a member of a union.

    Pydantic's places name members of unions, too, which are no keys of the file.
    """
    key: list[str] = []
    member = False
    for number, part in enumerate(place, start=1):
        here = part in config if isinstance(config, dict) else isinstance(config, list) and part in range(len(config))
        member = not here and (part in MEMBERS or number < len(place) or not isinstance(config, dict | list))
        if here:
            config = config[part]
        if not member:
            key.append(str(part))
    return ".".join(key), member


# What pydantic calls members of unions and keys of mappings in the place of an error.
MEMBERS = {"[key]", "constrained-int", "int", "CorpusSource", "BenchmarkSource", "HubModel", "MicroworldModel"}
MEMBERS |= {"OwnPrompts", "OwnItems"}
MEMBERS |= {"CheckpointGenerator", "OpenAIGenerator", "DatasetGenerator", "microworld", "url", "vllm", "transformers", "file"}


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    """The keys that a mapping at ``place`` of a configuration can have."""

    def within(annotation: Any) -> list[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation]
        return [model for part in get_args(annotation) for model in within(part)]

    models: list[type[BaseModel]] = [Study]
    for part in place:
        fields = [model.model_fields[str(part)] for model in models if str(part) in model.model_fields]
        if fields:
            models = within(fields[0].annotation)
        else:  # a member of a union, or a name that the person gave
            named = {model: (model.__name__, model.__name__.removesuffix("Endpoint").lower()) for model in models}
            models = [model for model in models if part in named[model]] or models
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}


if __name__ == "__main__":
    import json

    print(json.dumps(schema(), indent=2))
