"""Checkpoints that exist: a snapshot of the Hugging Face hub, or a local folder, as a folder of a study."""

import json
import os
from pathlib import Path

from prefdelta.checkpoints.load import load_config
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

    Those of the hub stay in its cache ($HF_HOME). Raises FetchError where the repository can't be reached, or what it has
    is no whole checkpoint; CheckpointError where transformers does not know its configuration.
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
    if (folder / "adapter_config.json").exists():
        raise FetchError(
            f"{repo} is an adapter (adapter_config.json), not a checkpoint: merge it into its base model (peft: "
            "`PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder)`), save the tokenizer there, "
            "and name that folder as `repo`"
        )
    if not list(folder.glob("*.safetensors")) or not (folder / "config.json").exists():
        raise FetchError(
            f"{repo} holds no config.json with *.safetensors: it is not a checkpoint in transformers' format. Pickled weights "
            "(*.bin, *.pt) can run code and are not read: convert them with `save_pretrained`"
        )
    config = load_config(folder).get_text_config()
    shape = {"family": settings.family, "hidden_size": config.hidden_size, "layers": config.num_hidden_layers}
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
    """Parameters that the safetensors files hold. Raises FetchError where one of them is missing or damaged."""
    from math import prod

    from safetensors import SafetensorError, safe_open

    files = {file.name for file in folder.glob("*.safetensors")}
    for index in folder.glob("*.safetensors.index.json"):
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FetchError(f"{index.resolve()} can't be read ({type(error).__name__}: {error}): download it again") from None
        if missing := sorted(named - files):
            raise FetchError(
                f"{index.resolve()} names {len(missing)} files that are not there, such as {missing[0]}: download them"
            )
    total = 0
    for name in sorted(files):
        try:
            with safe_open(folder / name, framework="np") as weights:
                total += sum(prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise FetchError(f"{(folder / name).resolve()} is damaged ({error}): download it again") from None
    return total
