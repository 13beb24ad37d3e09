"""The report: Snakemake's own, made by a second Snakemake process that only reads what the first has finished."""

import json
import sys
import tempfile
from pathlib import Path

from prefdelta.report.provenance import words
from prefdelta.report.settings import ReportRun
from prefdelta.run.atomic import replacing, write_text
from prefdelta.run.errors import PrefdeltaError
from prefdelta.run.processes import running
from prefdelta.run.records import read_records
from prefdelta.tables.checksum import read_summed


class ReportError(PrefdeltaError):
    """Snakemake could not make the report."""


def render_report(
    shown: list[Path], texts: list[Path], accepted: Path | None, report: Path, provenance: Path, *, run: ReportRun
) -> None:
    """Writes the self-contained HTML report of ``shown`` (and of what they are made from) for the study as ``run`` has it.

    ``texts`` are the templates of its text and captions, which the Snakefile names.

    Its text includes ``provenance``, which is written first: `provenance.words` on the jobs' records, and on what was
    ``accepted`` without running. Raises ReportError, and DamagedTableError where a table is not what was written.
    """
    for table in shown:
        if table.suffix == ".csv":
            read_summed(table)
    write_text(words(read_records(run.records), accepted, run.records.parent), provenance)
    with replacing(report) as temporary, tempfile.TemporaryDirectory() as folder:
        # The study as it stands, whatever files and options it came from.
        study = Path(folder) / "config.json"
        study.write_text(json.dumps(run.config), encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(run.snakefile), "--configfile", str(study)]
        command += ["--workflow-profile", "none", "--nolock", "--cores", "1", "--report", str(temporary), "--"]
        said = Path(folder) / "log"
        with running([*command, *map(str, shown)], said) as process:
            failed = process.wait()
        if failed:
            raise ReportError(f"`{' '.join(command[2:])} ...` failed:\n{said.read_text(encoding='utf-8', errors='replace')}")
