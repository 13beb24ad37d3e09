"""What planning costs: dry run and no-op of a lattice of 1,000 cells, divided by those of a bare Snakefile with the same jobs.

Both plan the table of one experiment, a graph of about 2,100 jobs, with the same profile. The bare one has patterns of input and
output only: no params, logs, benchmarks, resources, or input functions. Before the no-op all files are created, empty, and
recorded as up to date by Snakemake's own ``--touch``, so every trigger of the profile is checked. Seconds are CPU time, since
Snakemake plans on one core and waits for nothing. ``own``, from cProfile, is the share of our Snakefile (imports, configuration,
digests of code) and of our input and params functions. What jobs cost when they run is not measured.
`python benchmarks/dag.py 10000` measures a lattice of that size, once.
"""

import pstats
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from measure import FOLDER, alternate, record

REPOSITORY = FOLDER.parent
SIZE, RUNS = 1000, 3
TARGET = "results/lattice/tables/lattice.csv"
DRY_RUN = ["--dry-run", "--forceall", "--quiet", "all"]
CHOSEN, REJECTED = ["rung1", "rung2", "rung3", "rung4", "rung5"], "rung0"
SELECTIONS = [f"top{k}-overall" for k in range(100, 2100, 100)]
BARE = """
PAIR = "oracle/{chosen}_vs_{rejected}/{selection}"
CELL = f"policy/dpo/{PAIR}/seed{{seed}}"
CHOSEN, REJECTED = config["experiments"]["lattice"]["chosen"], config["experiments"]["lattice"]["rejected"]
LISTS = {
    "chosen": CHOSEN, "rejected": REJECTED, "selection": config["experiments"]["lattice"]["selection"],
    "seed": range(config["experiments"]["lattice"]["seeds"]),
}
SUITES = expand("results/lattice/prompts/{suite}.parquet", suite=config["suites"])
RATINGS = expand("results/lattice/ratings/oracle/{generator}.parquet", generator=config["generators"])
TRACES = expand("results/lattice/traces/{generator}.parquet", generator=config["generators"])

rule items:
    output: "results/lattice/prompts/{suite}.parquet"
    wildcard_constraints: suite="in_domain|longer|out_of_domain"
    shell: "touch {output}"
rule prompts:
    input: SUITES
    output: "results/lattice/prompts/train.parquet", "results/lattice/prompts/dropped.parquet"
    shell: "touch {output}"
rule model:
    output: "results/lattice/models/{model}/base/manifest.json"
    shell: "touch {output}"
rule traces:
    input: "results/lattice/prompts/train.parquet", "results/lattice/models/{generator}/base/manifest.json"
    output: "results/lattice/traces/{generator}.parquet"
    shell: "touch {output}"
rule ratings:
    input: "results/lattice/traces/{generator}.parquet"
    output: "results/lattice/ratings/oracle/{generator}.parquet"
    shell: "touch {output}"
rule reference:
    input: "results/lattice/traces/{generator}.parquet", "results/lattice/models/policy/base/manifest.json"
    output: "results/lattice/reference/policy/{generator}.parquet"
    shell: "touch {output}"
rule pairs:
    input:
        "results/lattice/traces/{chosen}.parquet", "results/lattice/ratings/oracle/{chosen}.parquet",
        "results/lattice/traces/{rejected}.parquet", "results/lattice/ratings/oracle/{rejected}.parquet",
    output: f"results/lattice/pairs/{PAIR}.parquet"
    shell: "touch {output}"
rule train:
    input:
        "results/lattice/reference/policy/{chosen}.parquet", "results/lattice/reference/policy/{rejected}.parquet",
        "results/lattice/ratings/oracle/{chosen}.parquet", "results/lattice/ratings/oracle/{rejected}.parquet",
        f"results/lattice/pairs/{PAIR}.parquet", "results/lattice/models/policy/base/manifest.json",
    output: f"results/lattice/models/{CELL}/manifest.json"
    shell: "touch {output}"
rule evaluate:
    input: f"results/lattice/models/{CELL}/manifest.json", SUITES
    output: f"results/lattice/evals/{CELL}.parquet"
    shell: "touch {output}"
rule evaluate_base:
    input: "results/lattice/models/policy/base/manifest.json", SUITES
    output: "results/lattice/evals/policy/base.parquet"
    shell: "touch {output}"
rule deltas:
    input: TRACES, RATINGS
    output: "results/lattice/tables/deltas.csv", "results/lattice/tables/deltas.md", "results/lattice/tables/deltas.tex"
    shell: "touch {output}"
rule table:
    input:
        "results/lattice/tables/deltas.csv", "results/lattice/evals/policy/base.parquet",
        expand(f"results/lattice/evals/{CELL}.parquet", **LISTS),
        expand(f"results/lattice/models/{CELL}/manifest.json", **LISTS),
    output: "results/lattice/tables/lattice.csv", "results/lattice/tables/lattice.md", "results/lattice/tables/lattice.tex"
    shell: "touch {output}"
"""


def main(size: int) -> None:
    """Measures and records."""
    with tempfile.TemporaryDirectory() as scratch:
        study = yaml.safe_load(Path(REPOSITORY, "config/config.yaml").read_text(encoding="utf-8"))
        words = dict.fromkeys(("title", "question", "caveat"), "-") | {
            "figure": "bars",
            "chosen": CHOSEN,
            "rejected": [REJECTED],
        }
        seeds = size // (len(CHOSEN) * len(SELECTIONS))
        # One draw of each model, and one judge: what the bare patterns can say.
        study["generators"] = {name: {"model": name} for name in (REJECTED, *CHOSEN)}
        study["judges"] = {"oracle": study["judges"]["oracle"]}
        del study["reference_judge"]
        study |= {"study": "lattice", "experiments": {"lattice": {**words, "selection": SELECTIONS, "seeds": seeds}}}
        configuration = Path(scratch, "study.yaml")
        configuration.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
        Path(scratch, "Snakefile").write_text(BARE, encoding="utf-8")
        ours = _Lattice(Path(scratch, "ours"), REPOSITORY / "Snakefile", configuration)
        bare = _Lattice(Path(scratch, "bare"), Path(scratch, "Snakefile"), configuration)
        if ours.jobs != bare.jobs:
            sys.exit(f"the graphs differ: {ours.jobs} and {bare.jobs} jobs")
        _measure("dry run", size, ours, bare, DRY_RUN)
        ours.settle()
        bare.settle()
        _measure("no-op", size, ours, bare, [])


def _measure(kind: str, size: int, ours: "_Lattice", bare: "_Lattice", options: list[str]) -> None:
    times = alternate(lambda: ours.cpu(options), lambda: bare.cpu(options), RUNS if size == SIZE else 1)
    record(
        f"dag, {kind} at {size:,} cells",
        "python benchmarks/dag.py" + ("" if size == SIZE else f" {size}"),
        [own / trivial for own, trivial in times],
        "< 2",
        f"CPU time of a {kind} / of a bare Snakefile's with as many jobs",
        ["snakemake"],
        jobs=ours.jobs,
        seconds=round(min(own for own, _ in times), 2),
        bare_seconds=round(min(trivial for _, trivial in times), 2),
        own=round(ours.share(options), 3),
    )


class _Lattice:
    """A folder with its own results, planned by a Snakefile."""

    def __init__(self, folder: Path, snakefile: Path, configuration: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.arguments = ["--cores", "2", "--directory", str(folder), "--snakefile", str(snakefile)]
        self.arguments += ["--configfile", str(configuration), "--workflow-profile", str(REPOSITORY / "profiles/default")]
        planned = self.run(["--dry-run", "--forceall", "--quiet", "rules"])
        self.jobs = int(re.findall(r"^total +(\d+)$", planned, re.MULTILINE)[-1])

    def run(self, options: list[str], start: tuple[str, ...] = ("-m", "snakemake")) -> str:
        """What a run prints, which must succeed."""
        command = [sys.executable, *start, *self.arguments, *options, "--", TARGET]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
        if done.returncode or (not options and "Nothing to be done" not in output):
            sys.exit(f"{' '.join(command)} failed, or found something to do:\n{output[-6000:]}")
        return output

    def settle(self) -> None:
        """Creates every file, empty, and has Snakemake record that it is up to date."""
        for line in self.run(["--summary"]).splitlines():
            if line.startswith("results/"):
                file = Path(self.folder, line.partition("\t")[0])
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
        # Else it would rest a tenth of a second before the files of each job.
        touch = "import sys; from snakemake.executors import touch; touch.Executor.SLEEPING_TIME = 0; "
        many = ["--cores", "100", "--scheduler-subsample", "100"]
        self.run(["--touch", "--forceall", *many], ("-c", touch + "from snakemake.cli import main; main(sys.argv[1:])"))

    def cpu(self, options: list[str]) -> float:
        """Seconds of CPU time of a run."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.run(options)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def share(self, options: list[str]) -> float:
        """Our own share of a run's time, with all that we call."""
        file = str(self.folder / "profile")
        self.run(options, ("-m", "cProfile", "-o", file, "-m", "snakemake"))
        stats = pstats.Stats(file).stats  # type: ignore[attr-defined]
        ours = [
            times[3]
            for (place, _, name), times in stats.items()
            if (place, name) == (str(REPOSITORY / "Snakefile"), "<module>")
            or (place.startswith(str(REPOSITORY / "rules")) and name == "<lambda>")
        ]
        return float(sum(ours) / sum(times[2] for times in stats.values()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SIZE)
