"""What past edits would have made again: each of the last commits, by digests of modules and by digests of definitions.

For every commit that changed the package, the scripts whose digest it changed are found in two ways: by the digest of all
modules that a script imports (what this project did first), and by that of the definitions that it reaches. A changed script
counts with the jobs that it has in the default study. Only the expensive ones count: models, traces, ratings, references,
trainings, evaluations.
Modules that are started by name count as the default study starts them (transformers, the micro-world).

    python benchmarks/reruns.py [number of commits]
"""

import ast
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import yaml

from prefdelta.configure.load import load_study
from prefdelta.plan.findings import evaluated_models
from prefdelta.run import provenance
from prefdelta.study.lattice import rated_generators, trained_cells

ROOT = Path(__file__).parents[1]
# What the jobs of a script start by name in the default study: the module as it was called at one time or another.
STARTED = {
    "make_items": ["tasks.microworld"],
    "make_prompts": ["tasks.microworld"],
    "sample_traces": ["backend_transformers", "generate.backend_transformers", "tasks.microworld"],
    "evaluate_model": ["backend_transformers", "generate.backend_transformers", "tasks.microworld"],
    "rate_traces": ["microworld.server", "transformers_server", "endpoint.transformers_server"],
}


def jobs() -> dict[str, int]:
    """Expensive jobs of the default study by script."""
    study = load_study(yaml.safe_load((ROOT / "config/config.yaml").read_text()))
    cells = trained_cells(study)
    return {
        "pretrain_model": len(study.models),
        "sample_traces": len(study.generators),
        "rate_traces": sum(map(len, rated_generators(study).values())),
        "compute_reference": len({side for cell in cells for side in (cell.chosen, cell.rejected)}),
        "train_policy": len(cells),
        "evaluate_model": len(cells) + len(evaluated_models(study)),
    }


def checkout(commit: str, folder: Path) -> Path:
    archive = subprocess.run(["git", "archive", commit, "workflow"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder / "workflow"


def by_modules(package: Path, script: Path, roots: list[Path]) -> str:
    """The digest of all modules of ``package`` that a script imports, without docstrings."""
    pending, digests = [script, *roots], {}
    while pending:
        path = pending.pop()
        if path in digests or path.name == "warm.py":
            continue
        tree, names = ast.parse(path.read_text(encoding="utf-8")), []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            body = getattr(node, "body", None)
            if isinstance(body, list) and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = body[1:] if ast.get_docstring(node, clean=False) is not None else body
        digests[path] = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
        for name in names:
            if name.split(".")[0] == package.name:
                stem = package.joinpath(*name.split(".")[1:])
                around = [folder / "__init__.py" for folder in (stem, *stem.parents) if folder.is_relative_to(package)]
                pending += [file for file in (stem.with_suffix(".py"), *around) if file.is_file()]
    return json.dumps(sorted(digests.values()))


def digests(workflow: Path) -> dict[str, tuple[str, str]]:
    """(by modules, by definitions) of every script."""
    package = workflow / "prefdelta"
    provenance.PACKAGE = package
    # As they were called before the package had folders.
    provenance.GIVEN_NAMES |= {"generate.py:complete", "client.py:connected", "judge.py:rate_traces"}
    provenance.GIVEN_NAMES |= {"tasks/__init__.py:find", "tasks/__init__.py:problems"}
    provenance.OMITTED = "run/warm.py" if (package / "run").is_dir() else "warm.py"
    found = {}
    for script in sorted((workflow / "scripts").glob("*.py")):
        names = STARTED.get(script.stem, [])
        files = {name: package.joinpath(*name.split(".")).with_suffix(".py") for name in names}
        there = {name: file for name, file in files.items() if file.is_file()}
        found[script.stem] = (
            by_modules(package, script, list(there.values())),
            provenance.code(script, *(f"prefdelta.{name}" for name in there)).digest,
        )
    return found


def main(most: int) -> None:
    counts = jobs()
    every = sum(counts.values())
    lines = subprocess.run(
        ["git", "log", f"-{most}", "--format=%h %s", "--", "workflow"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    print(f"Expensive jobs of the default study: {every} ({', '.join(f'{name} {n}' for name, n in counts.items())})\n")
    print("| commit | by modules | by definitions | edit |\n|---|---|---|---|")
    totals = [0, 0]
    with tempfile.TemporaryDirectory() as folder:
        for line in lines:
            commit, _, subject = line.partition(" ")
            try:
                before, after = (
                    digests(checkout(name, Path(folder) / commit / str(place)))
                    for place, name in enumerate((f"{commit}^", commit))
                )
            except (subprocess.CalledProcessError, SyntaxError):
                continue  # the first commit has nothing before it
            both = before.keys() & after.keys() & counts.keys()
            changed = [sum(counts[name] for name in both if before[name][way] != after[name][way]) for way in (0, 1)]
            if any(before[name] != after[name] for name in before.keys() & after.keys()):
                print(f"| {commit} | {changed[0]} | {changed[1]} | {subject} |")
                totals = [total + n for total, n in zip(totals, changed, strict=True)]
    print(f"| all | {totals[0]} | {totals[1]} | |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
