"""Settings of the report."""

from pathlib import Path
from typing import Any

from prefdelta.study.strict import Strict


class ReportRun(Strict):
    """Of `render_report`: what only the running workflow knows. ``config``: the whole configuration, as Snakemake has it;
    ``records``: the folder with the records of the study's jobs.
    """

    snakefile: Path
    config: dict[str, Any]
    records: Path
