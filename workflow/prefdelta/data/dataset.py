"""Data sets: rows from the Hugging Face hub, or from local files of the same schema."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefdelta.run.errors import PrefdeltaError
from prefdelta.study.sources import FORMATS, SEPARATORS, Source

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

MOST_EMPTY = 0.05  # the share of a set's rows that may be left out since they lack something
SHOWN = 5


class DatasetError(PrefdeltaError):
    """A data set can't be read; the message names it, its revision and a remedy."""


def load_rows(source: Source, columns: Iterable[str] = (), needed: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The rows of ``source`` with ``columns`` (default: all of them), in the order of the data set.

    Rows where one of the columns ``needed`` is null, NaN or an empty text are left out, with a warning that names them (a public
    set may have a few). Raises DatasetError, also where a column is missing, or more than a share `MOST_EMPTY` would be left out.
    """
    split = load_split(source)
    if columns := list(columns):
        missing = [column for column in columns if column not in split.column_names]
        if missing:
            raise DatasetError(f"{_name(source)} has no column {', '.join(missing)}; it has {', '.join(split.column_names)}")
        split = split.select_columns(columns)
    rows: list[dict[str, Any]] = split.to_list()
    needed = list(needed)
    what = f"have nothing in {', '.join(needed)}"
    return whole_rows(rows, source, lambda row: [name for name in needed if is_empty(row[name])], what)


def whole_rows(
    rows: list[dict[str, Any]], source: Source, faults_of: Callable[[dict[str, Any]], list[str]], what: str
) -> list[dict[str, Any]]:
    """Those of ``rows`` without faults: the others are left out with a warning, which says ``what`` is wrong, and names their
    faults.

    Raises DatasetError where more than a share `MOST_EMPTY` would be left out.
    """
    faults = {number: names for number, row in enumerate(rows, 1) if (names := faults_of(row))}
    if faults:
        shown = ", ".join(f"row {number} ({', '.join(names)})" for number, names in list(faults.items())[:SHOWN])
        said = f"{len(faults)} of {len(rows)} rows of {_name(source)} {what}: {shown}"
        if len(faults) > MOST_EMPTY * len(rows):
            raise DatasetError(f"{said}. These are too many to leave out: check the columns, the split and the revision")
        log.warning("%s%s; they are left out", said, "" if len(faults) <= SHOWN else " and more")
    return [row for number, row in enumerate(rows, 1) if number not in faults]


def is_empty(value: Any) -> bool:
    """Whether ``value`` is null, NaN or an empty text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def load_split(source: Source, split: str | None = None, *, in_memory: bool = False) -> "datasets.Dataset":
    """One split of ``source`` (default: its ``split``).

    A local file is parquet, json or jsonl, or csv or tsv, of which every cell is a text. With ``files`` only these are read, and
    all of them are the split: for sets whose loading needs a script, which `datasets` no longer runs. Raises DatasetError.
    """
    import datasets  # where it is used: what grades answers loads no data

    split = split or source.split
    local = Path(source.repo)
    try:
        if source.files or local.is_file():
            paths = [local] if local.is_file() else _files(source)
            kinds = {FORMATS.get(path.suffix) for path in paths}
            if len(kinds) != 1 or None in kinds:
                named = f"all {', all '.join(dict.fromkeys(FORMATS.values()))}"
                raise DatasetError(f"{_name(source)}: files must be {named}: {', '.join(map(str, paths))}")
            kind = str(kinds.pop())
            if kind in SEPARATORS:
                return _texts(paths, SEPARATORS[kind])
            data_files = {"train": [str(path) for path in paths]}
            return datasets.load_dataset(kind, data_files=data_files, split="train", keep_in_memory=in_memory)
        return datasets.load_dataset(
            source.repo, name=source.config, revision=source.revision, split=split, keep_in_memory=in_memory
        )
    except DatasetError:
        raise
    # `datasets` raises ValueError for an unknown split or config and RuntimeError for a set with a script; the hub and the file
    # system raise OSErrors.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DatasetError(f"{_name(source, split)} can't be read: {error} ({_remedy(error, source.repo)})") from error


def _texts(paths: list[Path], separator: str) -> "datasets.Dataset":
    """The rows of ``paths``, every cell a text: `datasets` would read 007 as 7, and NA as nothing. Raises DatasetError."""
    import datasets
    import polars as pl

    try:
        frames = [pl.read_csv(path, separator=separator, infer_schema=False) for path in paths]
        return datasets.Dataset.from_polars(pl.concat(frames))
    except pl.exceptions.PolarsError as error:
        raise DatasetError(
            f"{', '.join(map(str, paths))} can't be read: {str(error).splitlines()[0]} (the first line has the columns' names, "
            f"separated by {separator!r}; no line has more cells than that, and a cell with that or a line break is in quotes)"
        ) from error


def _files(source: Source) -> list[Path]:
    from huggingface_hub import snapshot_download

    folder, patterns = Path(source.repo), source.files or []
    if not folder.is_dir():
        folder = Path(snapshot_download(source.repo, repo_type="dataset", revision=source.revision, allow_patterns=patterns))
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if not paths:
        raise DatasetError(f"{_name(source)} has no files that match {', '.join(patterns)}")
    return paths


def _name(source: Source, split: str | None = None) -> str:
    parts = {"revision": source.revision, "config": source.config, "split": split or source.split}
    return f"data set {source.repo} ({', '.join(f'{key} {value}' for key, value in parts.items() if value)})"


def _remedy(error: Exception, repo: str) -> str:
    import datasets
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(link, GatedRepoError) for link in chain) or "gated dataset" in str(error):
        return f"accept its terms at https://huggingface.co/datasets/{repo} and set HF_TOKEN, or run `hf auth login`"
    if any(isinstance(link, RevisionNotFoundError) for link in chain):
        return "set `revision` to a commit that the repository has"
    if any(isinstance(link, RepositoryNotFoundError | datasets.exceptions.DatasetNotFoundError) for link in chain):
        return "check `repo`; a private set needs HF_TOKEN"
    if isinstance(error, ConnectionError | LocalEntryNotFoundError):
        return (
            "the hub can't be reached: where there is no network, download it before with "
            f"`hf download --repo-type dataset {repo}` and set HF_HUB_OFFLINE=1, or set `repo` to a local folder"
        )
    if "scripts are no longer supported" in str(error):
        return "set `files` to the globs of its data files"
    if isinstance(error, FileNotFoundError):
        return "check `repo`: it is neither a local file or folder nor a set on the hub"
    return "check `split`, `config` and `files`"
