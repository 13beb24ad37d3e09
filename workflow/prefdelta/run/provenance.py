"""What code a script runs: a digest of every module of the package that it imports, directly or not."""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


@cache
def _module(path: Path) -> tuple[str, tuple[Path, ...]]:
    """Digest of a file's syntax tree without docstrings, and the package's files that it imports anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported: set[Path] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        for name in names:
            if name.split(".")[0] == PACKAGE.name:
                # An import runs the packages around a module, too.
                stem = PACKAGE.joinpath(*name.split(".")[1:])
                around = [folder / "__init__.py" for folder in (stem, *stem.parents) if folder.is_relative_to(PACKAGE)]
                imported |= {file for file in (stem.with_suffix(".py"), *around) if file.is_file()}
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    imported.discard(PACKAGE / "run/warm.py")  # where a script runs changes nothing in what it computes
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12], tuple(sorted(imported))


def code_digest(*files: Path | str) -> str:
    """Canonical JSON {file: digest} of ``files`` and all modules of the package in their import closure.

    Several are given where a script starts modules by name. The digests are taken from syntax trees, so comments, docstrings and
    formatting do not count.
    """
    pending, digests = [Path(file).resolve() for file in files], {}
    while pending:
        path = pending.pop()
        name = str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else path.name
        if name not in digests:
            digests[name], imported = _module(path)
            pending.extend(imported)
    return json.dumps(digests, sort_keys=True)
