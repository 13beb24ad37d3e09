"""What code a script runs: a digest of every definition of the package that it reaches.

A definition is what a module binds to a name at its top level: a function, a class, a constant. Names are followed from a
script's own statements to definitions, and on from those, so that an edit concerns the jobs that can run it and no others.
Besides definitions there are two nodes for each module:

- ``file.py:<import>`` is what importing the module does beside binding names. It counts for all who import the module.
- ``file.py:<program>`` is the whole module, as it runs as a program or where it can't be told what of it is used.

What is followed is never less than what runs, with these limits: code that is named by no name (strings put together at run time,
pickles), and what operators of the package's own objects do while a module is imported.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from prefdelta.run.definitions import FUNCTIONS, Chain, Module, Reading, Statement
from prefdelta.run.errors import PrefdeltaError

PACKAGE = Path(__file__).parents[1]
# Definitions that use modules by names which they are given: those that the rules name as roots, or none of the package.
GIVEN_NAMES = {"run/by_name.py:load", "run/job.py:versions"}
BINDER = "run/job.py:run_job"  # reads the annotations of the functions that scripts give it
OMITTED = "run/warm.py"  # where a script runs changes nothing in what it computes

# What imports or runs a module that is named at run time.
_IMPORTERS = (
    *("importlib.import_module", "importlib.reload", "importlib.util.module_from_spec", "sys.modules", "__import__"),
    *("runpy.run_module", "runpy.run_path", "pkgutil.resolve_name", "pkgutil.walk_packages"),
)
_OWN = {"globals", "locals", "exec", "eval", "__name__", "__file__"}  # what may use all of the module that it is in
# What does nothing else than to give its value, where it is used while a module is imported: all of a module, or single names.
_PURE = {"abc", "collections", "contextlib", "dataclasses", "decimal", "enum", "fractions", "functools", "itertools", "math"}
_PURE |= {"operator", "pandera", "pathlib", "pydantic", "re", "string", "typing", "json.JSONDecoder", "logging.getLogger"}
_IMPURE_BUILTINS = {"setattr", "delattr", "open", "print", "input", "compile", "breakpoint", "__import__", "exec", "eval"}


class ProvenanceError(PrefdeltaError):
    """A root is nothing that the package has; the message names it."""


@dataclass(frozen=True)
class Code:
    """``definitions``: qualified name ("pairs/build.py:build_pairs") -> digest, of all that a script reaches, sorted by name."""

    definitions: dict[str, str]

    @cached_property
    def digest(self) -> str:
        """A digest over all of ``definitions``."""
        return _short(json.dumps(self.definitions))


def code(script: Path | str, *roots: str) -> Code:
    """The definitions that ``script`` reaches, and ``roots``: dotted names of modules (as programs) and of definitions.

    Comments, docstrings and formatting do not count, nor do annotations of functions without a decorator. Raises ProvenanceError
    for an unknown root.
    """
    return _package(PACKAGE.resolve()).code(Path(script).resolve(), roots)


def code_digest(program: str) -> str:
    """The digest of a module of the package, by its dotted name, as it runs as a program."""
    return code(PACKAGE.parent.joinpath(*program.split(".")).with_suffix(".py")).digest


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _dotted(folder: Path, file: Path) -> str:
    parts = file.relative_to(folder).with_suffix("").parts
    return ".".join([folder.name, *(parts[:-1] if parts[-1] == "__init__" else parts)])


class _Package:
    """The graph of a package's definitions, of which no more is read than is asked for. A node is its digest and its edges."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = {_dotted(folder, file): file for file in sorted(folder.rglob("*.py"))}
        around = {name.rsplit(".", n)[0] for name in files for n in range(1, name.count(".") + 1)}
        # A folder without an __init__.py is a package, too.
        self.files = {name: folder.joinpath(*name.split(".")[1:], "__init__.py") for name in around} | files
        self.keys = {name: file.relative_to(folder).as_posix() for name, file in self.files.items()}
        self.names = {key: name for name, key in self.keys.items() if key != OMITTED}
        self._everything = {f"{key}:<program>" for key in self.names}
        self._modules: dict[str, Module] = {}
        self._nodes: dict[str, tuple[str, set[str]]] = {}
        self._resolved: dict[Chain, set[str]] = {}

    def code(self, script: Path, roots: tuple[str, ...]) -> Code:
        found: dict[str, str] = {}
        pending: list[str] = []
        if script.is_relative_to(self.folder):
            roots = (_dotted(self.folder, script), *roots)
        else:
            module = Module(script, "<script>", script.stem)
            digest, edges = self._read(module, [*module.statements, *module.main])
            bound = self._signatures(edges) if BINDER in edges else ()
            found[f"{script.name}:<script>"] = _short(" ".join([digest, *bound]))
            pending.extend(edges)
        for root in roots:
            reached = self._named(root)
            if not reached:
                raise ProvenanceError(f"there is no module or definition {root} in {self.folder}")
            pending.extend(reached)
        seen: set[str] = set()
        while pending:
            key = pending.pop()
            if key not in seen and key.partition(":")[0] in self.names:
                seen.add(key)
                digest, edges = self._node(key)
                pending.extend(edges)
                if digest:
                    found[key] = digest
        return Code(dict(sorted(found.items())))

    def _signatures(self, keys: Iterable[str]) -> Iterator[str]:
        """Of functions, with their annotations."""
        for key in sorted(keys):
            file, _, name = key.partition(":")
            for statement in self._module(self.names[file]).bound.get(name, ()) if file in self.names else ():
                if isinstance(statement.node, FUNCTIONS):
                    yield ast.unparse(statement.node.args)

    def _module(self, name: str) -> Module:
        if name not in self._modules:
            self._modules[name] = Module(self.files[name], self.keys[name], name)
        return self._modules[name]

    def _node(self, key: str) -> tuple[str, set[str]]:
        if key not in self._nodes:
            file, _, name = key.partition(":")
            module = self._module(self.names[file])
            if name == "<import>":
                loud = [one for one in module.statements if not (one.only_binds and self._are_harmless(module, one.called))]
                digest, edges = self._read(module, loud, key)
                for statement in loud:
                    made = (node for node in statement.nodes if isinstance(node, FUNCTIONS | ast.ClassDef))
                    decorators = Reading(statement.known, *(one for node in made for one in node.decorator_list))
                    if not self._are_harmless(module, decorators):
                        edges |= {f"{file}:{bound}" for bound in statement.binds}
                edges |= self._run_by_import(self.names[file])
                for statement in module.statements:
                    if not isinstance(statement.node, FUNCTIONS):
                        edges.update(*(self._run_by_import(imported) for _, _, imported in statement.imports))
                    if isinstance(statement.node, ast.ClassDef):  # a base may do something with what is derived from it
                        bases = Reading(statement.known, *statement.node.bases, *statement.node.keywords)
                        edges |= _nodes(self._found(module, bases.chains))
            elif name == "<program>":
                digest, edges = self._read(module, module.main)
                edges |= {f"{file}:<import>", *(f"{file}:{bound}" for bound in module.bound)}
            else:
                digest, edges = self._read(module, module.bound[name], key)
                edges.add(f"{file}:<import>")
            self._nodes[key] = digest, edges
        return self._nodes[key]

    def _read(self, module: Module, statements: Iterable[Statement], key: str = "") -> tuple[str, set[str]]:
        """The digest of ``statements``, with what their names stand for, and the nodes that they reach."""
        words: list[str] = []
        edges: set[str] = set()
        for statement in statements:
            reading = statement.called if key.endswith(":<import>") and statement.only_binds else statement.reading
            words += reading.words
            for chain in sorted(reading.chains):
                found = self._found(module, [chain])
                if chain[0] in reading.names:
                    words.append(f"{'.'.join(chain)}={','.join(sorted(found))}")
                edges |= _nodes(found)
                if not _OWN.isdisjoint(found):
                    edges.add(f"{module.key}:<program>")
                if key not in GIVEN_NAMES and any(one.startswith(_IMPORTERS) for one in found):
                    edges |= self._everything
            for name, target, imported in statement.imports:
                edges |= self._run_by_import(imported)
                if name == "*" or isinstance(statement.node, ast.ClassDef):  # which has it as an attribute
                    edges |= _nodes(self._stands_for(tuple(target.split("."))))
            for node in statement.nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    edges |= self._programs(node.value)
                elif isinstance(node, ast.Attribute) and node.attr == "__subclasses__":
                    edges |= self._everything
        return _short(" ".join(words)) if words else "", edges

    def _are_harmless(self, module: Module, reading: Reading) -> bool:
        """Whether calls in ``reading``, while its module is imported, do nothing but to give their values."""
        return all(map(self._is_harmless, self._found(module, reading.chains)))

    def _is_harmless(self, used: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether a name is of another library and pure, or a constant in which there is nothing else."""
        file, is_own, name = used.partition(":")
        if not is_own:
            root, _, rest = used.partition(".")
            return not {root, used}.isdisjoint(_PURE) or (not rest and used not in _IMPURE_BUILTINS)
        statements = self._module(self.names[file]).bound.get(name) if file in self.names else None
        if used in seen or not statements or not all(isinstance(one.node, ast.Assign | ast.AnnAssign) for one in statements):
            return used in seen
        return all(self._is_harmless(edge, seen | {used}) for edge in self._node(used)[1] - {f"{file}:<import>"})

    def _found(self, module: Module, chains: Iterable[Chain]) -> set[str]:
        """What ``chains`` stand for in ``module``: nodes, and names outside of the package."""
        return set().union(*(self._bound(module, chain) or {chain[0]} for chain in chains))

    def _bound(self, module: Module, chain: Chain) -> set[str]:
        found = {f"{module.key}:{chain[0]}"} if chain[0] in module.bound else set()
        return found.union(*(self._stands_for((*one.split("."), *chain[1:])) for one in module.imported.get(chain[0], ())))

    def _stands_for(self, parts: Chain) -> set[str]:
        """The nodes of a dotted name, or itself outside of the package."""
        if parts[0] != self.folder.name:
            return {".".join(parts)}
        if parts not in self._resolved:
            self._resolved[parts] = set()  # for modules that import a name from each other
            names = [name for n in range(1, len(parts) + 1) if (name := ".".join(parts[:n])) in self.files]
            found: set[str] = set()
            for n, name in enumerate(names, 1):
                found |= self._bound(self._module(name), parts[n:]) if n < len(parts) else self._whole(name)
            self._resolved[parts] = found or self._whole(names[-1])  # it has this by another way than a statement
        return self._resolved[parts]

    def _whole(self, name: str) -> set[str]:
        """A module, and with a package all modules in it, which are its attributes."""
        return {f"{key}:<program>" for one, key in self.keys.items() if one == name or one.startswith(f"{name}.")}

    def _run_by_import(self, name: str) -> set[str]:
        """What runs where ``name`` is imported: the module and the packages around it."""
        names = (name.rsplit(".", n)[0] for n in range(name.count(".") + 1))
        return {f"{self.keys[one]}:<import>" for one in names if one in self.keys}

    def _named(self, name: str) -> set[str]:
        """The node of a module, as a program, or of a definition by its dotted name, if there is one."""
        around, _, last = name.rpartition(".")
        if name in self.files:
            return {f"{self.keys[one]}:<program>" for one in (name, f"{name}.__main__") if one in self.files}
        return {f"{self.keys[around]}:{last}"} if around in self.files and last in self._module(around).bound else set()

    def _programs(self, text: str) -> set[str]:
        """What ``text`` names: modules and definitions by dotted names, a module by its file's name."""
        if text.endswith(".py"):
            return {f"{key}:<program>" for key in self.names if f"/{key}".endswith(f"/{text}")}
        names = re.findall(rf"\b{self.folder.name}(?:\.\w+)+", text) if self.folder.name in text else ()
        return {key for name in names for key in self._named(name)}


def _nodes(found: set[str]) -> set[str]:
    return {one for one in found if ":" in one}


_package = cache(_Package)
