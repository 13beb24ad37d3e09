"""What do language models learn from preference pairs? Traces, ratings, pairs, checkpoints, evaluations, tables, figures."""

import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version

from prefdelta.plan import audits, checkpoints, exports, findings, forecasts
from prefdelta.plan import generation, pairs, problems, rating, recipes, reports
from prefdelta.plan import requested, shift, training
from prefdelta.report.settings import ReportRun
from prefdelta.run import codebook, devices, session, warm
from prefdelta.run.errors import ConfigError
from prefdelta.run.provenance import code
from prefdelta.study import paths
from prefdelta.study.experiments import RESERVED
from prefdelta.configure.files import DEFAULT, read_config
from prefdelta.configure.load import load_study
from prefdelta.study.models import HubModel

min_version("9.27")

# glibc would hand torch's large blocks back to the system after every use: keeping them saves system time in every job.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(32 * 2**20))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))

# Snakemake puts the interpreter as it is into the commands of jobs: under a path with a space none would start.
if Path(sys.executable).exists():
    sys.executable = shlex.quote(sys.executable)

if not workflow.configfiles:
    try:
        read_config(DEFAULT)
    except ConfigError as error:
        sys.exit(f"The configuration is wrong:\n{error}")

    configfile: DEFAULT


try:
    STUDY = load_study(config, workflow.configfiles)
except ConfigError as error:
    sys.exit(f"The configuration is wrong:\n{error}")

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
HUB = [name for name, model in STUDY.models.items() if isinstance(model, HubModel)]
session.begin(workflow)
requested.check_first(workflow, STUDY)
if not HUB:  # beside their work, start-up is nothing
    warm.offer(workflow)
PROFILES = [name for name in STUDY.experiments if name not in STUDY.trained]
SWEEPS = [name for name in STUDY.trained if name not in STUDY.compared]


onstart:
    session.note_cluster(workflow)


report: "rules/report.rst"


# Any name is let through here and checked by `plan.requested`, which answers a typo with the choices.
wildcard_constraints:
    **{
        word: r"[^/]+"
        for word in (
            "split",
            "model",
            "policy",
            "generator",
            "judge",
            "method",
            "selection",
        )
    },
    # Of the studies that this one reads nothing is made.
    study=rf"(?!({'|'.join(map(re.escape, STUDY.others))})/)[^/]+",
    chosen=r"[^/]+?",
    rejected=r"[^/]+",
    seed=r"\d+",
    length=r"\d+",
    arithmetic=r"[a-z0-9-]+",


rule all:
    default_target: True
    input:
        paths.REPORT.format(study=STUDY.study),


include: "rules/common.smk"
include: "rules/problems.smk"
include: "rules/models.smk"
include: "rules/traces.smk"
include: "rules/ratings.smk"
include: "rules/pairs.smk"
include: "rules/training.smk"
include: "rules/evals.smk"
include: "rules/shift.smk"
include: "rules/findings.smk"
include: "rules/audits.smk"
include: "rules/forecasts.smk"
include: "rules/report.smk"
include: "rules/export.smk"
