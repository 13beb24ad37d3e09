"""Records the present code and settings for outputs that are there, after an edit of which its author knows that it is harmless.

Nothing runs, and no file of the results changes, so nothing else is seen as older than these. What is accepted is written to
``accepted.jsonl`` in the study's folder, which the report shows: it is made again. Only code and settings are accepted. A job
whose input files or outputs are not those that it left behind is refused: it runs, and so does what is made from it.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefdelta.run.why import Group, counted, described, groups, planned


def accept(workflow: Any, group: Group, why: str) -> None:
    """Snakemake's records of the outputs of ``group`` get its parameters of now, and ``accepted.jsonl`` a line.

    Its columns: time (UTC), rule, files, change (in words), why (the author's).
    """
    records = workflow.persistence
    for job in group.jobs:
        for file in job.output:
            record = records.metadata(file)
            record.params = records._params(job)
            records._write_record(str(file), record)
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "rule": group.rule,
        "files": [str(file) for job in group.jobs for file in job.output],
        "change": "; ".join(group.reasons.recorded),
        "why": why,
    }
    around = reversed(Path(line["files"][0]).parents)
    folder = next(folder for folder in around if folder.name == group.jobs[0].wildcards.study)
    with (folder / "accepted.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Accepts what can be, and says what was accepted and what was not."""
    parser = argparse.ArgumentParser(
        prog="python -m prefdelta.run.accept",
        usage="%(prog)s [-h] [--why TEXT] [TARGET ...] [--configfile FILE] [any argument of Snakemake]",
        description=f"{__doc__} A target stands for all that it is made from, too; without one it is the report.",
        allow_abbrev=False,
    )
    parser.add_argument("--why", default="", metavar="TEXT", help="the author's reason, for accepted.jsonl and the report")
    options, rest = parser.parse_known_args(arguments)
    with planned(rest) as workflow:
        found, _ = groups(workflow)
        refused = [group for group in found if group.reasons.data]
        running = _following(workflow.dag, [job for group in refused for job in group.jobs])
        left = [(group, [job for job in group.jobs if job not in running]) for group in found if not group.reasons.data]
        # The report is made again, since it shows what was accepted.
        accepted = [replace(group, jobs=jobs) for group, jobs in left if jobs and group.rule != "render_report"]
        with workflow.persistence.lock():
            for group in accepted:
                accept(workflow, group, options.why)
    if accepted:
        print(f"Accepted for {counted(sum(len(group.jobs) for group in accepted))}:\n{described(accepted)}")
    else:
        print("There is nothing to accept.")
    if refused:
        print(f"\nNot accepted, since files are not there or not as they were. These jobs run:\n{described(refused)}")
        print(f"\nWith all that is made from them, that is {counted(len(running))}.")


def _following(dag: Any, jobs: Sequence[Any]) -> set[Any]:
    """``jobs`` and all that are made from them."""
    found: set[Any] = set()
    pending = list(jobs)
    while pending:
        job = pending.pop()
        if job not in found:
            found.add(job)
            pending += dag.depending[job]
    return found


if __name__ == "__main__":
    main()
