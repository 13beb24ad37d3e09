"""Checks configuration files as Snakemake would combine them, before it runs: `make check CONFIG=study.yaml`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snakemake.utils import update_config

from prefdelta.configure.files import DEFAULT, read_config
from prefdelta.configure.load import load_study
from prefdelta.run.errors import ConfigError
from prefdelta.study.checks import columns_fit
from prefdelta.study.sources import FORMATS, SEPARATORS
from prefdelta.study.study import Study


def check(files: list[str]) -> None:
    """Raises ConfigError for what is wrong with ``files``, of which the later win, or with the default study, and with the
    columns of local files of problems of one's own."""
    config: dict[str, Any] = {}
    for file in files or [DEFAULT]:
        update_config(config, read_config(file))
    if faults := list(_columns(load_study(config, files or [DEFAULT]))):
        raise ConfigError("\n".join(faults))


def _columns(study: Study) -> Iterator[str]:
    for key, source in study.own_problems.items():
        for name, file in {"repo": source.repo, "examples": source.examples}.items():
            if file and not (name == "repo" and source.files) and Path(file).is_file():
                try:
                    found = _header(Path(file))
                except Exception as error:  # whatever a reader makes of a file that is no such file
                    yield f"{key}.{name}: {file} can't be read: {str(error).splitlines()[0]}"
                else:
                    yield from (f"{key}.{fault} ({file})" for fault in columns_fit(source, found, worked=name == "examples"))


def _header(file: Path) -> list[str]:
    """The columns of a file of rows. Raises what its reader does, or ValueError."""
    import polars as pl

    match FORMATS.get(file.suffix):
        case "csv" | "tsv" as kind:
            return pl.read_csv(file, separator=SEPARATORS[kind], infer_schema=False, n_rows=0).columns
        case "parquet":
            return list(pl.read_parquet_schema(file))
        case "json":
            text = file.read_text(encoding="utf-8-sig").lstrip()
            rows = json.loads(text) if text.startswith("[") else map(json.loads, text.splitlines())
            return list(dict.fromkeys(key for row in rows for key in row))
    raise ValueError(f"a file of rows ends with {', '.join(FORMATS)}")


if __name__ == "__main__":
    try:
        check(sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"The configuration is wrong:\n{error}")
