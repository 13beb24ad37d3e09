"""What one job gets: its files, by the names of its stage function's parameters, and typed settings."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from prefdelta.run.errors import ConfigError
from prefdelta.study.study import Study

Files = str | Sequence[str] | Mapping[Any, str]  # a file, several in an order, or each with its key
_KEYS = TypeAdapter(list[Any])


@dataclass(frozen=True)
class Job:
    """``settings`` and the keys of files are content: the job runs again where they change. ``run`` is how it is run, which
    changes nothing in what it makes. ``starts`` names what its code starts by name (`run.by_name`): modules and definitions.
    """

    inputs: Mapping[str, Files] = field(default_factory=dict)
    settings: BaseModel | None = None
    run: BaseModel | None = None
    starts: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, str | list[str]]:
        """Inputs as Snakemake takes them."""
        return {
            name: files if isinstance(files, str) else list(files.values() if isinstance(files, Mapping) else files)
            for name, files in self.inputs.items()
        }

    @property
    def content(self) -> str:
        """All that the job depends on besides files and code, as one string: equal contents are equal strings.

        Snakemake compares parameters as a set without names, so a job gets exactly one.
        """
        keyed = {name: list(files) for name, files in self.inputs.items() if isinstance(files, Mapping)}
        keys = {name: _KEYS.dump_python(found, mode="json") for name, found in keyed.items()}
        return json.dumps({"settings": _dumped(self.settings), "keys": keys}, sort_keys=True)

    @property
    def run_settings(self) -> str:
        return json.dumps(_dumped(self.run), sort_keys=True)


Plan = Callable[[Study, Mapping[str, str]], Job]  # named as its rule, from the study and the words of a path


def _dumped(settings: BaseModel | None) -> Any:
    return None if settings is None else settings.model_dump(mode="json")


def made_elsewhere(files: list[str]) -> list[str]:
    """``files``, which another study makes. Raises ConfigError where some are missing, so before any job starts."""
    if missing := " ".join(file for file in files if not Path(file).is_file()):
        raise ConfigError(
            f"{missing} is missing: another study makes it, and this one only reads it. With that study's configuration:\n"
            f"    snakemake --configfile THAT-STUDY.yaml --cores all -- {missing}"
        )
    return files


def derived_seed(study: Study, *names: object) -> int:
    """A seed that depends on the study's seed and on ``names`` alone."""
    text = "/".join(map(str, [study.seed, *names]))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) % 2**31
