"""Eight arms of the micro-world (four chosen sides, two selections): this workflow's training part against a plain loop.

Ours: `snakemake` for eight checkpoints, with all cores, from pairs and base models that are there; references are computed
within. The plain loop: a script with stock `trl.DPOTrainer` (`plain_dpo.py`), started once for each arm, one after the other with
all cores. Ours runs a job on each core, so there is a second comparison, with a loop that starts as many scripts at a time (run
once). Same pairs, steps and seeds; the weights must come out equal, up to rounding. The models are hardly trained: only their
shapes and texts matter here. What comes before (traces, ratings, pairs) is not timed.
"""

import math
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from measure import alternate, record, seconds
from safetensors.numpy import load_file

from prefdelta.configure.load import load_study
from prefdelta.plan.training import train_policy
from prefdelta.study.paths import CHECKPOINT, PAIRS
from prefdelta.train.settings import PolicySettings

ROOT = Path(__file__).parents[1]
CHOSEN, REJECTED, SELECTIONS = ("rung1", "rung2", "rung3", "rung5"), "rung0", ("full", "top400-overall")
CORES = len(os.sched_getaffinity(0))


def study() -> dict[str, Any]:
    """The default study with these arms only and models that are trained for a short time."""
    content = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    content["study"] = "bench"
    for model in content["models"].values():
        model["steps"] = 250
    arms = {
        "chosen": list(CHOSEN),
        "rejected": [REJECTED],
        "selection": list(SELECTIONS),
        "seeds": 1,
        "figure": "bars",
        "versus": [],
    }
    content["experiments"] = {"grid": {"title": "", "question": "", "caveat": "", **arms}}
    return content


def main(folder: Path) -> None:
    """Measures and records."""
    content = study()
    (folder / "bench.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    made = load_study(content)
    names = {"study": "bench", "policy": "policy", "method": "dpo", "judge": "oracle", "rejected": REJECTED, "seed": "0"}
    cells = [{**names, "chosen": chosen, "selection": selection} for chosen in CHOSEN for selection in SELECTIONS]
    pairs, checkpoints = [PAIRS.format(**cell) for cell in cells], [CHECKPOINT.format(**cell) for cell in cells]
    # From outside of the temporary folder, whose name must not matter.
    workflow = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    workflow += ["--configfile", str(folder / "bench.yaml"), "--cores", str(CORES), "--quiet", "all", "--"]
    base = folder / "results/bench/models/policy/base"
    seconds([*workflow, *pairs, str(base.relative_to(folder) / "manifest.json")])

    def ours() -> float:
        shutil.rmtree(folder / "results/bench/models/policy/dpo", ignore_errors=True)
        shutil.rmtree(folder / "results/bench/reference", ignore_errors=True)
        return seconds([*workflow, *checkpoints])

    def script(number: int, threads: int) -> None:
        settings = train_policy(made, cells[number]).settings
        assert isinstance(settings, PolicySettings)
        options = {"base": base, "pairs": folder / pairs[number], "output": folder / f"loop/{number}", "threads": threads}
        options |= {"steps": settings.n_steps, "seed": settings.seed, "recipe": settings.recipe.model_dump_json()}
        flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        seconds([sys.executable, str(ROOT / "benchmarks/plain_dpo.py"), *flags])

    def loop(at_once: int) -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(at_once) as starters:
            list(starters.map(lambda number: script(number, CORES // at_once), range(len(cells))))
        return time.perf_counter() - started

    times = alternate(lambda: loop(1), ours, 2)
    parallel = loop(CORES)

    def distance(one: Path, other: Path) -> float:
        theirs = load_file(other / "model.safetensors")
        squares = [float(((weight - theirs[name]) ** 2).sum()) for name, weight in load_file(one / "model.safetensors").items()]
        return math.sqrt(sum(squares))

    folders = [folder / Path(file).parent for file in checkpoints]
    # Adam blows up the rounding errors of single weights, whose gradients are next to nothing: so all are taken together.
    apart = max(distance(each, folder / f"loop/{number}") / distance(each, base) for number, each in enumerate(folders))
    command, packages = "python benchmarks/grid.py", ["torch", "transformers", "trl", "snakemake"]
    of = "over 8 arms / of this workflow's training part"
    ratios = [theirs / mine for theirs, mine in times]
    details = {"seconds": [tuple(round(each, 1) for each in pair) for pair in times]}
    details["distance_of_weights_relative_to_training"] = apart
    record("grid", command, ratios, ">= 3", f"wall time of a plain TRL loop {of}", packages, **details)
    ratios = [parallel / mine for _, mine in times]
    what = f"wall time of a TRL loop with a script on each core {of}"
    record("grid, loop on all cores", command, ratios, ">= 1", what, packages, seconds=round(parallel, 1))
    if apart > 0.05:
        sys.exit(f"the weights of ours and of the loop differ by {apart:.0%} of what training has changed")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
