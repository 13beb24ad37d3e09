"""Changes definitions of the package at random, and asks whether the digests of all scripts that executed them change.

    EXECUTED=traces PYTHONPATH=tests/executed:workflow snakemake --configfile config/smoke.yaml --cores 2
    python tests/provenance_fuzz.py traces [number of changes]

``traces`` is an empty folder before, and holds afterwards what every script of the study really executed (see
`executed/sitecustomize`), of the code as it is now. A change that a script executes and its digest misses is an error (exit code
1); changes that a digest sees and no job executes are counted, for they only rerun jobs for nothing.
"""

import ast
import copy
import random
import shutil
import sys
import tempfile
from pathlib import Path

from prefdelta.run import provenance

SCRIPTS = sorted((provenance.PACKAGE.parent / "scripts").glob("*.py"))
# What the rules add in the smoke study.
_TASKS = ["prefdelta.tasks.microworld"]
_BACKEND = "prefdelta.generate.backend_transformers"
ROOTS = {
    "make_items": _TASKS,
    "make_prompts": _TASKS,
    "sample_traces": [_BACKEND, *_TASKS],
    "evaluate_model": [_BACKEND, *_TASKS],
    "evaluate_temperatures": [_BACKEND, *_TASKS],
    "rate_traces": ["prefdelta.endpoint.serve_microworld", "prefdelta.endpoint.serve_transformers"],
}


class Bindings:
    """What the modules of the package bind at their top level: (module, name) -> statements, or what it is imported from."""

    def __init__(self, package: Path) -> None:
        self.trees, self.statements, self.imported = {}, {}, {}
        for file in sorted(package.rglob("*.py")):
            parts = file.relative_to(package.parent).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.trees[module] = file, ast.parse(file.read_text())
            for number, statement in enumerate(self.trees[module][1].body):
                for name in self._names(module, statement):
                    self.statements.setdefault((module, name), []).append(number)

    def _names(self, module, statement):
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ImportFrom(module=source, names=names):
                for alias in names:
                    self.imported[module, alias.asname or alias.name] = source, alias.name
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                for target in getattr(statement, "targets", None) or [statement.target]:
                    yield from (one.id for one in ast.walk(target) if isinstance(one, ast.Name))
            case ast.For() | ast.Expr(value=ast.Call()):
                yield "<import>"

    def defined(self, module, name):
        """Where it is defined; None for what no statement of the package binds."""
        while (module, name) in self.imported:
            module, name = self.imported[module, name]
        return (module, name) if (module, name) in self.statements else None


def executed(folder: Path, bindings: Bindings) -> dict[str, set[tuple[str, str]]]:
    """script -> definitions that its jobs have executed."""
    found = {}
    for file in sorted(folder.iterdir()):
        lines = {tuple(line.split()) for line in file.read_text().splitlines()}
        found[file.name] = {place for line in lines if len(line) == 2 and (place := bindings.defined(*line))}
    return found


def mutate(statement: ast.stmt, rng: random.Random) -> bool:
    """Changes one constant in ``statement`` or adds a statement to one of its functions; False where there is neither."""
    notes = [node.annotation for node in ast.walk(statement) if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation]
    notes += [node.returns for node in ast.walk(statement) if isinstance(node, ast.FunctionDef) and node.returns]
    unread = {id(part) for note in notes for part in ast.walk(note)}
    unread |= {id(node.value) for node in ast.walk(statement) if isinstance(node, ast.Expr)}  # docstrings
    constants = [one for one in ast.walk(statement) if isinstance(one, ast.Constant) and id(one) not in unread]
    functions = [one for one in ast.walk(statement) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    if not constants and not functions:
        return False
    chosen = rng.choice(constants + functions)
    if isinstance(chosen, ast.Constant):
        chosen.value = (
            f"{chosen.value}!" if isinstance(chosen.value, str) else not chosen.value if isinstance(chosen.value, bool) else 77
        )
    else:
        documented = ast.get_docstring(chosen, clean=False) is not None
        chosen.body.insert(rng.randint(int(documented), len(chosen.body)), ast.parse("assert 1").body[0])
    return True


def digests(package: provenance._Package) -> dict[str, str]:
    return {script.stem: package.code(script, tuple(ROOTS.get(script.stem, ()))).digest for script in SCRIPTS}


def without(package: provenance._Package, module: str) -> provenance._Package:
    """``package`` as it would be read anew after an edit to ``module`` that binds the same names: faster than to read it all."""
    fresh = provenance._Package(package.folder)
    fresh._modules = {name: read for name, read in package._modules.items() if name != module}
    file = package.files[module].relative_to(package.folder).as_posix()
    fresh._nodes = {key: node for key, node in package._nodes.items() if not key.startswith(f"{file}:") and "<import>" not in key}
    return fresh


def main(folder: Path, n: int) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        package = shutil.copytree(provenance.PACKAGE, Path(temporary) / "prefdelta", ignore=shutil.ignore_patterns("__pycache__"))
        bindings, rng = Bindings(package), random.Random(0)
        ran = executed(folder, bindings)
        print(f"{len(ran)} scripts have executed {len(set().union(*ran.values()))} of {len(bindings.statements)} definitions")
        places = sorted(place for place in bindings.statements if place[0] != "prefdelta.run.warm")
        whole = provenance._Package(package)
        before, missed, seen, needless = digests(whole), 0, 0, 0
        for number in range(n):
            while True:
                module, name = rng.choice(places)
                file, tree = bindings.trees[module]
                changed = copy.deepcopy(tree)
                if mutate(changed.body[rng.choice(bindings.statements[module, name])], rng):
                    break
            text = file.read_text()
            file.write_text(ast.unparse(changed))
            after = digests(without(whole, module))
            if number < 5:
                assert after == digests(provenance._Package(package))
            file.write_text(text)
            found = {script for script, digest in after.items() if digest != before[script]}
            for script, places_of in ran.items():
                if (module, name) in places_of:
                    seen += script in found
                    if script not in found:
                        missed += 1
                        print(f"MISSED: {script} executed {module}.{name}")
                else:
                    needless += script in found
    print(f"{n} changes: {seen} seen by scripts that executed them, {missed} missed; {needless} seen by scripts that did not")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200))
