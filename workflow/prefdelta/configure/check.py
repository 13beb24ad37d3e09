"""Checks configuration files as Snakemake would combine them, before it runs: `make check CONFIG=study.yaml`."""

import sys
from typing import Any

from snakemake.utils import update_config

from prefdelta.configure.files import DEFAULT, read_config
from prefdelta.configure.load import load_study
from prefdelta.run.errors import ConfigError


def check(files: list[str]) -> None:
    """Raises ConfigError for what is wrong with ``files``, of which the later win, or with the default study."""
    config: dict[str, Any] = {}
    for file in files or [DEFAULT]:
        update_config(config, read_config(file))
    load_study(config, files or [DEFAULT])


if __name__ == "__main__":
    try:
        check(sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"The configuration is wrong:\n{error}")
