"""The commits of a study's repositories, printed as `revision` keys to copy: `make pin CONFIG=config/paper.yaml`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from prefdelta.configure.files import read_config
from prefdelta.configure.load import load_study
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.models import HubModel
from prefdelta.study.sources import Source


def repositories(config: dict[str, Any]) -> Iterator[tuple[str, str, str, str | None]]:
    """(key, kind, repo, revision) of everything on the hub that a configuration names; kind is 'model' or 'dataset'."""
    study = load_study(config)
    found: list[tuple[str, Any]] = [(f"models.{name}", model) for name, model in study.models.items()]
    found += [(f"prompts.{task}", source) for task, source in study.prompts.items()]
    found += [(f"suites.{name}.{task}", source) for name, suite in study.suites.items() for task, source in suite.items()]
    found += [(f"generators.{name}", generator) for name, generator in study.generators.items()]
    for key, place in found:
        if isinstance(place, HubModel | Source) and not Path(place.repo).exists():
            yield key, "model" if isinstance(place, HubModel) else "dataset", place.repo, place.revision


def main(file: str) -> None:
    """Prints the newest commit of every repository, and marks those that differ from the configuration's."""
    for key, kind, repo, revision in repositories(read_config(file)):
        try:
            newest = HfApi().repo_info(repo, repo_type=kind).sha
        except (HfHubHTTPError, OSError) as error:
            print(f"{key}: {repo} can't be asked: {str(error).strip().splitlines()[0]}", file=sys.stderr)
            continue
        print(f"{key}: {{repo: {repo}, revision: {newest}}}{'' if revision in (None, newest) else f'  # now {revision}'}")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except PrefdeltaError as error:
        sys.exit(f"{type(error).__name__}: {error}")
