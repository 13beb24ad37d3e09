"""Checkpoints that exist: a snapshot of the Hugging Face hub, or a local folder, as a folder of a study."""

import json
import os
from pathlib import Path
from typing import Any

from prefdelta.checkpoints.manifest import write_manifest
from prefdelta.checkpoints.settings import FetchSettings
from prefdelta.run.errors import PrefdeltaError

# Weights in safetensors only: pickles can run code, and the other formats would be downloaded for nothing.
KEPT = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "LICENSE*")
LEFT = ("original/*", "metal/*", "onnx/*")


class FetchError(PrefdeltaError):
    """A checkpoint can't be had; the message names it."""


def fetch_model(data: list[Path], manifest: Path, *, settings: FetchSettings) -> None:
    """Links a repository's files (those in ``data``, where it is a local folder) into the folder of ``manifest``, written last.

    Those of the hub stay in its cache ($HF_HOME). Raises FetchError where the repository can't be reached or has no weights.
    """
    repo, folder = settings.repo, manifest.parent
    if Path(repo).is_dir():
        snapshot, commit = Path(repo).resolve(), None
    else:
        snapshot, commit = _download(repo, settings.revision)
    folder.mkdir(parents=True, exist_ok=True)
    for link in folder.iterdir():
        if link.is_symlink():  # of another revision
            link.unlink()
    for place in snapshot.iterdir():
        if any(place.match(pattern) for pattern in KEPT) and place.name != manifest.name:
            (folder / place.name).symlink_to(os.path.realpath(place))
    if not list(folder.glob("*.safetensors")) or not (folder / "config.json").exists():
        raise FetchError(f"{repo} holds no config.json with *.safetensors: it is not a checkpoint in transformers' format")
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    shape = {"family": settings.family, "hidden_size": text["hidden_size"], "layers": text["num_hidden_layers"]}
    write_manifest(manifest, {**shape, "parameters": _parameters(folder), "repo": repo, "revision": commit})


def _download(repo: str, revision: str | None) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = Path(snapshot_download(repo, revision=revision, allow_patterns=list(KEPT), ignore_patterns=list(LEFT)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FetchError(
            f"{repo} at revision {revision or 'main'} can't be downloaded ({type(error).__name__}: {reason}). Check the name, "
            "the network, and for a gated model accept its licence and set HF_TOKEN; `repo` may also be a local folder"
        ) from None
    return snapshot, snapshot.name  # the cache names a snapshot by its commit


def _parameters(folder: Path) -> int:
    """Parameters that the safetensors files hold."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="np") as weights:
            total += sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total
