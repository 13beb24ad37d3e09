"""How a study's results were made, in words for its report: by which versions of libraries, and what was kept after an edit."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from prefdelta.run.codebook import listed
from prefdelta.run.records import Record

NAMED = 20  # results that a line names at most


def words(records: Iterable[Record], accepted: Path | None, results: Path) -> str:
    """reStructuredText about the study whose folder is ``results``.

    ``accepted`` has a JSON object on each line: ``time`` (ISO 8601), ``rule``, ``files`` (a list), ``change`` (words)
    and ``why`` (the author's reason, or empty).
    """
    made = [
        f"- {library} {version}: {_named(files, results)} (the rest: {usual})."
        for library, usual, version, files in minorities(records)
    ]
    same = "All results were made by the same versions of libraries."
    lines = ["These results were made by other versions of libraries than the rest:", "", *made] if made else [same]
    if accepted:
        lines += ["", "These were kept after an edit, without being made again:", ""]
        for line in accepted.read_text(encoding="utf-8").splitlines():
            kept = json.loads(line)
            why = f" The author says: {_plain(kept['why'])}." if kept["why"] else ""
            what = f"{_named(kept['files'], results)} ({kept['rule']}, {kept['time'][:10]})"
            lines.append(f"- {what}: {_plain(kept['change'])}.{why}")
    return "\n".join(["How results were made", "---------------------", "", *lines, ""])


def minorities(records: Iterable[Record]) -> Iterator[tuple[str, str, str, list[str]]]:
    """Each library's versions but the one that most results were made by: library, that one, version, first outputs."""
    made: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for library, version in record.versions.items():
            made.setdefault(library, {}).setdefault(version, []).append(record.outputs[0])
    for library, by_version in sorted(made.items()):
        usual = max(by_version, key=lambda version: len(by_version[version]))
        yield from ((library, usual, version, files) for version, files in sorted(by_version.items()) if version != usual)


def _plain(text: str) -> str:
    return re.sub(r"([\\*`|_])", r"\\\1", " ".join(text.split()))


def _named(files: list[str], results: Path) -> str:
    return listed([f"``{file.removeprefix(f'{results}/')}``" for file in files], NAMED)
