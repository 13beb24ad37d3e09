"""What each digest of code meant when it was recorded, so that a change can be told by the names of definitions."""

import json
from pathlib import Path

from prefdelta.run.atomic import write_text
from prefdelta.run.provenance import Code

FOLDER = Path(".snakemake/code")  # beside the records that Snakemake keeps digests in
SHOWN = 8


def keep(code: Code) -> None:
    """Writes the definitions of ``code`` under its digest, if they aren't there. For the main process, not for jobs."""
    file = FOLDER / f"{code.digest}.json"
    if not file.exists():
        write_text(json.dumps(code.definitions, indent=0), file)


def difference(before: str, now: str) -> str:
    """Which definitions differ between the codes of two digests, in words."""
    try:
        old, new = (json.loads((FOLDER / f"{digest}.json").read_text(encoding="utf-8")) for digest in (before, now))
    except FileNotFoundError:
        return "its code, of which it is not known any more what it was"
    kinds = {
        "changed": [name for name in new if name in old and old[name] != new[name]],
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
    }
    return "its code: " + "; ".join(f"{kind} {listed(names)}" for kind, names in kinds.items() if names)


def listed(names: list[str], shown: int = SHOWN) -> str:
    """``names`` in a line, of many the first ``shown``."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
