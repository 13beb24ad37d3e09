"""Checks configuration files as Snakemake would combine them, before it runs: `make check CONFIG=study.yaml`."""

import sys

from snakemake.utils import update_config

from prefdelta.configure.files import DEFAULT, read_config
from prefdelta.configure.load import load_study
from prefdelta.run.errors import ConfigError


def check(files: list[str]) -> None:
    """Raises ConfigError for what is wrong with ``files``, of which the later win, over the default study if they name none."""
    given = [read_config(file) for file in files]
    config = {} if any("study" in content for content in given) else read_config(DEFAULT)
    for content in given:
        update_config(config, content)
    load_study(config)


if __name__ == "__main__":
    try:
        check(sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"The configuration is wrong:\n{error}")
