"""Export: a cell's pairs as a preference data set, its checkpoint as a model, each with a card; and their upload to the hub."""

import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from datasets import Dataset
from huggingface_hub import HfApi

from prefdelta.checkpoints.manifest import checked_folder, read_manifest, sha256
from prefdelta.export.cards import dataset_card, model_card
from prefdelta.export.settings import ExportSettings
from prefdelta.measure.intervals import item_weights, nested_interval
from prefdelta.measure.scores import clipped, item_scores
from prefdelta.measure.settings import Bootstrap
from prefdelta.run.atomic import write_text
from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.selections import GRAMMAR
from prefdelta.tables.io import read_dimensions, read_table
from prefdelta.tables.stages import Pairs, Predictions

log = logging.getLogger(__name__)

SHARD_BYTES = 500_000_000  # of one parquet file, as where the hub's own libraries divide a data set
NAME_LENGTH = 96  # the longest name of a repository on the hub
REPOSITORIES = {
    "dataset": "{study}-{judge}-{chosen}_vs_{rejected}-{selection}",
    "model": "{study}-{policy}-{method}-{judge}-{chosen}_vs_{rejected}-{selection}-seed{seed}",
}


class ExportError(PrefdeltaError):
    """A cell can't be exported or uploaded; the message says why, and what to do."""


def export_cell(pairs: Path, checkpoint: Path, evals: Path, base_evals: Path, folder: Path, *, settings: ExportSettings) -> None:
    """Writes ``folder``: ``dataset/`` from ``pairs`` and ``model/`` from ``checkpoint`` (its manifest).

    Each has a card and a lineage.json. The data set has the columns of TRL's conversational preference format
    (https://huggingface.co/docs/trl/dataset_formats) and the rest of `Pairs`. With ``push`` both are uploaded to the hub's
    ``namespace``. Where that fails, the folder stays as ``{folder}-not-pushed``. Raises ExportError then, and where ``evals``
    and ``base_evals`` hold different items.
    """
    # One place for what is half done, so that a killed job's is cleared by the next one.
    partial, kept = folder.with_name(f".{folder.name}.partial"), folder.with_name(f"{folder.name}-not-pushed")
    shutil.rmtree(partial, ignore_errors=True)
    names = repositories(settings) if settings.push else {}
    frame = read_table(pairs, Pairs)
    weights, manifest = checked_folder(checkpoint), read_manifest(checkpoint)
    files = {"pairs": pairs, "checkpoint": checkpoint, "evals": evals, "base_evals": base_evals}
    inputs = {name: {"file": str(path), "sha256": sha256(path)} for name, path in files.items()}
    told = settings.model_dump(include={"prompts", "generators", "judge", "policy", "license"})
    policy = told.pop("policy")
    data = told | {
        "cell": {"study": settings.study, **vars(settings.cell.pairs)},
        "rubric": settings.rubric.model_dump(mode="json"),
        "selection_grammar": GRAMMAR,
        "pairs": pair_statistics(frame, read_dimensions(pairs).criteria),
        "code": code_version(),
    }
    model = data | {
        "cell": {"study": settings.study, **vars(settings.cell)},
        "policy": policy,
        "training": {key: value for key, value in manifest.items() if key not in ("cell", "files", "bytes")},
        "evaluation": evaluation(evals, base_evals, settings.bootstrap),
    }
    try:
        _write_pairs(frame, partial / "dataset" / "data")
        location = names.get("dataset", f"{folder}/dataset")
        write_text(dataset_card(data, location, settings.language), partial / "dataset" / "README.md")
        _write_lineage(data | {"inputs": {"pairs": inputs["pairs"]}}, partial / "dataset")

        _link_files(weights, manifest["files"], partial / "model")
        write_text(model_card(model, names.get("dataset"), settings.language), partial / "model" / "README.md")
        _write_lineage(model | {"inputs": inputs}, partial / "model")
        try:
            for kind, name in names.items():
                _push(partial / kind, kind, name, settings.private)
        except ExportError as error:
            _replace(partial, kept)
            raise ExportError(f"{error}\nThe exported folder is kept as {kept}.") from error
        _replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(kept, ignore_errors=True)


def repositories(settings: ExportSettings) -> dict[str, str]:
    """The hub's repositories of a cell: ``dataset`` (shared by all cells that train on the same pairs) and ``model``.

    A name that is too long for the hub is cut and ends with a hash of the whole.
    """
    names = {kind: pattern.format(study=settings.study, **vars(settings.cell)) for kind, pattern in REPOSITORIES.items()}
    for kind, name in names.items():
        if len(name) > NAME_LENGTH:
            names[kind] = f"{name[: NAME_LENGTH - 9].rstrip('-._')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return {kind: f"{settings.namespace}/{name}" for kind, name in names.items()}


def pair_statistics(frame: pl.DataFrame, criteria: tuple[str, ...]) -> dict[str, Any]:
    """Of `Pairs`: counts, the distribution of their deltas (levels), and both sides' length (tokens), correctness and rating."""
    deltas, sides = [], []
    for criterion in criteria:
        delta = pl.col(f"delta_{criterion}")
        summary = frame.select(
            mean=delta.mean(),
            sd=delta.std(ddof=0),
            lowest=delta.min(),
            median=delta.median(),
            highest=delta.max(),
            share_positive=(delta > 0).mean(),
        )
        deltas.append({"criterion": criterion, **summary.row(0, named=True)})
    for side in ("chosen", "rejected"):  # by the table's own columns: in a flipped selection the sides have changed places
        summary = frame.select(
            generators=pl.col(f"{side}_generator").unique().sort().str.join(", "),
            mean_tokens=pl.col(f"{side}_tokens").mean(),
            median_tokens=pl.col(f"{side}_tokens").median(),
            share_correct=pl.col(f"{side}_correct").mean(),
            mean_overall=pl.col(f"{side}_overall").mean(),
        )
        sides.append({"side": side, **summary.row(0, named=True)})
    longer = frame.select((pl.col("chosen_tokens") > pl.col("rejected_tokens")).mean()).item()
    counts = {"n_pairs": len(frame), "n_prompts": frame["prompt_id"].n_unique(), "share_chosen_longer": longer}
    return {**counts, "deltas": deltas, "sides": sides}


def evaluation(evals: Path, base_evals: Path, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Accuracy (points) of a checkpoint and of its base on each of `item_scores`, with the 95 % interval of the difference.

    ``task`` is None where a row is the mean over a suite's tasks; ``n_ungraded`` answers of both could not be graded and are left
    out. Raises ExportError where the two hold different items, ScoresError where too many answers are ungraded.
    """
    tuned, base = item_scores([evals, base_evals], bootstrap.ungraded)
    if [(scores.key, scores.item_ids) for scores in tuned] != [(scores.key, scores.item_ids) for scores in base]:
        raise ExportError(f"{evals} and {base_evals} hold different items: delete both and run again")
    answers = read_table(evals, Predictions)
    rows = []
    for own, other in zip(tuned, base, strict=True):
        weights = item_weights(own.sizes, bootstrap.n_resamples, bootstrap.seed)
        bounds = clipped(nested_interval(own.values[None, :], other.values[None, :], weights, bootstrap.seed, own.sizes), -100)
        of_suite = answers.filter(suite=own.suite, decoding=own.decoding)
        rows.append(
            {
                "suite": own.suite,
                "task": own.task,
                "decoding": own.decoding,
                "n_items": len(own.item_ids),
                "n_answers": len(of_suite if own.task is None else of_suite.filter(task=own.task)),
                "n_ungraded": own.n_ungraded + other.n_ungraded,
                "base": float(other.values.mean()),
                "tuned": float(own.values.mean()),
                "difference": bounds["estimate"],
                "ci_low": bounds["ci_low"],
                "ci_high": bounds["ci_high"],
            }
        )
    return rows


def code_version() -> str:
    """The package's version and, where it lies in a git checkout, the last commit that changed it."""
    said = f"prefdelta {version('prefdelta')}"

    def git(*arguments: str) -> str:
        command = ["git", *arguments, "--", "."]
        return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit, changes = git("log", "-1", "--format=%H"), git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return said  # no git, or no checkout
    return f"{said}, commit {commit}{' with changes' if changes else ''}" if commit else said


def _write_pairs(frame: pl.DataFrame, folder: Path) -> None:
    """Parquet files by the names that `datasets.load_dataset` takes for the split train."""
    folder.mkdir(parents=True)
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    rows = math.ceil(len(frame) / math.ceil(frame.estimated_size() / SHARD_BYTES))
    shards = list(frame.iter_slices(rows))
    for number, shard in enumerate(shards):
        turns = {name: [[{"role": role, "content": text}] for text in shard[name]] for name, role in roles.items()}
        columns = turns | shard.drop(*roles).to_dict(as_series=False)
        Dataset.from_dict(columns).to_parquet(folder / f"train-{number:05d}-of-{len(shards):05d}.parquet")


def _link_files(source: Path, names: dict[str, str], target: Path) -> None:
    """Hard links to the weights, which are large, and copies of the other files, which people edit."""
    for name in names:
        if name == "README.md":
            continue  # this export's card takes its place
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".safetensors":
            try:
                os.link(source / name, file)
                continue
            except OSError as error:  # another file system, or one without hard links
                log.info("%s is copied: %s", source / name, error)
        shutil.copy2(source / name, file)


def _push(folder: Path, kind: str, name: str, private: bool) -> None:
    """Makes the repository ``name`` hold just ``folder``. The token is found as huggingface_hub does ($HF_TOKEN or its login)."""
    api = HfApi()
    try:
        api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        # Files of an earlier upload go, for a parquet file of an older division would be read as data.
        message = f"Export by prefdelta {version('prefdelta')}"
        commit = api.upload_folder(repo_id=name, repo_type=kind, folder_path=folder, delete_patterns="*", commit_message=message)
    except Exception as error:  # whatever it was, the person gets the folder and a way to go on
        raise ExportError(
            f"the upload of the {kind} to {name} failed: {error}\n"
            f"Is $HF_TOKEN (or `hf auth login`) set and allowed to write to {name.partition('/')[0]}, is $HF_HUB_OFFLINE unset, "
            "can the hub be reached? Then run again: what is there already is not uploaded twice."
        ) from error
    log.info("the %s is at %s", kind, commit.commit_url)


def _replace(folder: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    folder.rename(target)


def _write_lineage(content: dict[str, Any], folder: Path) -> None:
    write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False), folder / "lineage.json")
