"""The report: Snakemake's own, made by a second Snakemake process that only reads what the first has finished."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from prefdelta.run.atomic import replacing
from prefdelta.run.errors import PrefdeltaError


class ReportError(PrefdeltaError):
    """Snakemake could not make the report."""


def render_report(output: Path | str, *, config: dict[str, Any], targets: list[str], snakefile: str) -> None:
    """Writes the self-contained HTML report of ``targets`` (and of what they are made from) for the study ``config``."""
    with replacing(output) as temporary, tempfile.TemporaryDirectory() as folder:
        # The study as it stands, whatever files and options it came from.
        study = Path(folder) / "config.json"
        study.write_text(json.dumps(config), encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--configfile", str(study)]
        command += ["--workflow-profile", "none", "--nolock", "--cores", "1", "--report", str(temporary), "--", *targets]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise ReportError(f"`{' '.join(command[2 : -len(targets)])} ...` failed:\n{result.stdout}{result.stderr}")
