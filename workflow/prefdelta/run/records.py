"""What every job notes of how its results were made: a JSON file beside its log, in ``records/`` instead of ``logs/``."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prefdelta.run.atomic import write_text


@dataclass(frozen=True)
class Record:
    """Of a job: the files that it made, the versions of Python and of libraries that it had loaded, and how it was run."""

    rule: str
    outputs: list[str]
    versions: dict[str, str]
    run: Any
    threads: int


def write_record(record: Record, log_file: Path) -> None:
    """Writes ``record`` where it belongs by the job's ``log_file``."""
    file = Path(*("records" if part == "logs" else part for part in log_file.with_suffix(".json").parts))
    write_text(json.dumps(asdict(record), indent=1, sort_keys=True, allow_nan=False), file)


def read_records(folder: Path) -> list[Record]:
    """All in ``folder`` and below whose results are there."""
    records = [Record(**json.loads(file.read_text(encoding="utf-8"))) for file in sorted(folder.rglob("*.json"))]
    return [record for record in records if all(Path(output).exists() for output in record.outputs)]


def outdated(records: Iterable[Record]) -> list[str]:
    """The first output of each that was made by other versions of libraries than are installed here."""

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    made = [(record.outputs[0], {**record.versions, "python": None}) for record in records]
    return [output for output, versions in made if any(found not in (None, installed(name)) for name, found in versions.items())]


if __name__ == "__main__":  # of the results in a folder, those `outdated` that are planned: `snakemake --summary` comes in
    planned = {line.partition("\t")[0] for line in sys.stdin}
    folders = Path(sys.argv[1]).glob("*/records")
    print(*(file for folder in folders for file in outdated(read_records(folder)) if file in planned), sep="\n")
