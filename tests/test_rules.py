"""Every rule and its stage have the same words: what Snakemake would give the first job of each is bound, as a script does."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prefdelta.run.job import bind

REPOSITORY = Path(__file__).parent.parent
RULES = re.findall(
    r"^(?:use )?rule (?:\w+ as )?(\w+)", "".join(map(Path.read_text, REPOSITORY.glob("rules/*.smk"))), re.MULTILINE
)
CELL = "policy/dpo/oracle/qwen-l_vs_qwen-s/full/seed0"
STUDIES = {
    "smoke": ["report.html", f"export/{CELL}", "figures/replication.png"],
    "small": ["models/llama-1B/base/manifest.json"],
}  # with a repository
# In a process of its own, since a Snakefile that is read changes environment and logging: prints what rules declare.
DECLARE = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings, WorkflowSettings

snakefile, config, *targets = sys.argv[1:]
with SnakemakeApi(OutputSettings()) as api:
    study = api.workflow(
        resource_settings=ResourceSettings(cores=1),
        config_settings=ConfigSettings(configfiles=[Path(config)]),
        workflow_settings=WorkflowSettings(),
        snakefile=Path(snakefile),
    )
    study.dag(DAGSettings(targets=set(targets))).summary()
    jobs = {}
    for job in study._workflow.dag.jobs:
        named = {"inputs": job.input, "outputs": job.output, "params": job.params}
        words = {kind: {n: list(v) if isinstance(v, list) else str(v) for n, v in words.items()} for kind, words in named.items()}
        jobs.setdefault(job.rule.name, {"script": job.rule.script, **words})
print("\\n" + json.dumps(jobs))
"""


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
    """rule -> its script, and the inputs, outputs and parameters of one of its jobs."""
    jobs = {}
    for study, targets in STUDIES.items():
        files = [f"results/{study}/{target}" for target in targets]
        command = [sys.executable, "-c", DECLARE, REPOSITORY / "Snakefile", REPOSITORY / f"config/{study}.yaml", *files]
        done = subprocess.run(command, cwd=tmp_path_factory.mktemp(study), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        jobs = json.loads(done.stdout.splitlines()[-1]) | jobs
    return jobs


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_declares_what_its_stage_takes(rule, declared):
    job = declared[rule]
    script = (REPOSITORY / "rules" / job["script"].replace("{params.script}", job["params"]["script"])).read_text()
    name = re.search(r"run_job\((\w+), snakemake\)", script)[1]
    module = re.search(rf"from (\S+) import {name}$", script, re.MULTILINE)[1]
    stage = getattr(importlib.import_module(module), name)
    bind(stage, job["inputs"], job["outputs"], job["params"], {"threads": 1, "log_file": Path("x.log")})
