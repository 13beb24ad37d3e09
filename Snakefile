"""What do language models learn from preference pairs? Traces, ratings, pairs, checkpoints, evaluations, tables, figures."""

import os
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from prefdelta.plan import specs
from prefdelta.run import warm
from prefdelta.run.provenance import PACKAGE, code_digest
from prefdelta.study import lattice as grid
from prefdelta.study import paths
from prefdelta.study.config import RESERVED, ConfigError, HubModel, load_study
from prefdelta.tasks import module_file

min_version("9.27")

# glibc would hand torch's large blocks back to the system after every use: keeping them saves system time in every job.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(32 * 2**20))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))

if "study" not in config:

    configfile: "config/config.yaml"


try:
    STUDY = load_study(config, workflow.configfiles)
    for name in STUDY.experiments:
        specs.experiment_spec(STUDY, name)
except ConfigError as error:
    raise WorkflowError(f"The configuration is wrong:\n{error}") from None

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
CODE = {script.stem: code_digest(script) for script in SCRIPTS.glob("*.py")}
HUB = [name for name, model in STUDY.models.items() if isinstance(model, HubModel)]
# Real models come with long texts to tokenise and code to run.
MODEL_THREADS = 8 if HUB else 1
if not HUB:  # beside their work, start-up is nothing
    warm.offer(workflow)
PROFILES = [name for name in STUDY.experiments if name not in STUDY.trained]


report: "rules/report.rst"


# Any name is let through here and checked by `grid.check_names`, which answers a typo with the choices.
wildcard_constraints:
    **{
        word: r"[^/]+"
        for word in (
            "study",
            "split",
            "model",
            "policy",
            "generator",
            "judge",
            "method",
            "selection",
        )
    },
    chosen=r"[^/]+?",
    rejected=r"[^/]+",
    seed=r"\d+",


rule all:
    default_target: True
    input:
        paths.REPORT.format(study=STUDY.study),


include: "rules/common.smk"
include: "rules/prompts.smk"
include: "rules/models.smk"
include: "rules/traces.smk"
include: "rules/ratings.smk"
include: "rules/pairs.smk"
include: "rules/training.smk"
include: "rules/evals.smk"
include: "rules/tables.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/export.smk"
