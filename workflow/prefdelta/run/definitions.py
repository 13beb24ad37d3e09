"""Reads one module: what its statements bind, what they name, and what of them counts in a digest."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import Any

Chain = tuple[str, ...]  # (a, b, c) of ``a.b.c``
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
_UNREAD = {"ctx", "type_comment", "kind"}
_NOTES = {"annotation", "returns"}
_TARGETS = {ast.Name, ast.Tuple, ast.List, ast.Starred, ast.Store}


class Statement:
    """A statement at the top level of a module. ``imports``: (name, what it stands for, what is imported), anywhere in it."""

    def __init__(self, node: ast.stmt, home: str) -> None:
        self.node = node
        self.nodes = list(ast.walk(node))
        self.imports = [one for part in self.nodes for one in _imports(part, home)]

    @cached_property
    def binds(self) -> set[str]:
        """Names that it binds in its module, or seems to (in comprehensions, and in functions that are in an ``if``)."""
        if isinstance(self.node, FUNCTIONS | ast.ClassDef):
            return {self.node.name}
        found = {name for name, _, _ in self.imports} if not isinstance(self.node, ast.Import | ast.ImportFrom) else set()
        for node in self.nodes:
            match node:
                case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.MatchMapping(rest=str(name)):
                    found.add(name)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                    found.add(name)
        return found

    @property
    def only_binds(self) -> bool:
        """Whether it does nothing but to bind names, unless what it calls does."""
        match self.node:
            case ast.Assign(targets=targets):
                return {type(part) for target in targets for part in ast.walk(target)} <= _TARGETS
            case ast.AnnAssign(target=target):
                return isinstance(target, ast.Name)
            case ast.ImportFrom(names=[ast.alias(name="*")]):
                return False
        return isinstance(self.node, FUNCTIONS | ast.ClassDef | ast.Import | ast.ImportFrom)

    @cached_property
    def reading(self) -> "Reading":
        return Reading(self.known, self.node)

    @cached_property
    def called(self) -> "Reading":
        """Of what it calls when its module is imported."""
        return Reading(self.known, *_calls(self.node))

    @cached_property
    def known(self) -> set[str]:
        """Names that are not local to a function, as the compiler has it. (It does not tell them from those of attributes.)"""
        code = compile(ast.Module([self.node], []), "", "exec", dont_inherit=True, optimize=0)
        return _names(code) | {name for name, _, _ in self.imports}


class Reading:
    """``words``: what is said, in a form that does not depend on Python's version. ``names``: the first parts of chains in it.

    Comments, docstrings and formatting are left out of ``words``, and so are annotations but where something may read them when
    the program runs: in a class, and in what has a decorator. ``chains`` are of annotations, too.
    """

    def __init__(self, known: set[str], *parts: ast.AST) -> None:
        self._known = known
        self.words: list[str] = []
        self.names: set[str] = set()
        self.chains: set[Chain] = set()
        for part in parts:
            self._add(part)

    def _add(self, node: object, noted: bool = False, typed: bool = False) -> None:
        """Reads ``node``. ``noted``: its annotations count; ``typed``: strings are types."""
        match node:
            case list():
                self.words.append("[")
                for one in node:
                    if not _says_nothing(one):
                        self._add(one, noted, typed)
                self.words.append("]")
                return
            case ast.Constant(value=str(text)) if typed:
                self.chains |= {tuple(word.split(".")) for word in re.findall(r"[^\W\d]\w*(?:\.\w+)*", text)}
            case ast.Call(func=logger, args=[ast.Name(id="__name__") as name]) if _chain(logger)[-1:] == ("getLogger",):
                node = ast.Call(logger, [ast.Constant(name.id)], [])  # not the name of a program
            case ast.Attribute(
                value=ast.Call(args=[ast.Name(id="__file__") as name]) as path, attr="parent" | "parents" | "with_name"
            ):
                node = ast.Attribute(ast.Call(path.func, [ast.Constant(name.id)], []), node.attr)  # another file or folder
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                noted = bool(node.decorator_list)
            case ast.ClassDef():
                noted = True
            case ast.AnnAssign(value=ast.expr() as value) if not noted:
                self._add_aside(node.annotation)
                node = ast.Assign([node.target], value)
        if not isinstance(node, ast.AST):
            self.words.append(repr(node))
        elif chain := _chain(node):
            self.words.append(f"={'.'.join(chain)}")
            if chain[0] in self._known:
                self.names.add(chain[0])
                self.chains.add(chain)
        else:
            typed = (typed and not isinstance(node, ast.Call)) or isinstance(node, ast.Subscript)
            self.words.append(type(node).__name__)
            for field in node._fields:
                part: Any = getattr(node, field, None)
                if field in _NOTES and part and not noted:
                    self._add_aside(part)
                elif part is not None and part != [] and field not in _UNREAD:
                    self.words.append(field)
                    self._add(part, noted, typed or field in _NOTES)

    def _add_aside(self, note: ast.AST) -> None:
        n_words, names = len(self.words), self.names.copy()
        self._add(note, typed=True)
        del self.words[n_words:]
        self.names = names


class Module:
    """A file's statements. ``main``: those of a program; ``imported``: name -> what imports anywhere in it bind to that."""

    def __init__(self, file: Path, key: str, name: str) -> None:
        self.key = key
        home = name if file.name == "__init__.py" else name.rpartition(".")[0]
        body = ast.parse(file.read_bytes()).body if file.is_file() else []
        every = [Statement(node, home) for node in body if not _says_nothing(node)]
        self.main = [one for one in every if _is_main(one.node)]
        self.statements = [one for one in every if not _is_main(one.node)]
        self.bound: dict[str, list[Statement]] = {}
        self.imported: dict[str, set[str]] = {}
        for statement in every:
            for name, target, _ in statement.imports:
                self.imported.setdefault(name, set()).add(target)
        for statement in self.statements:
            for name in statement.binds:
                self.bound.setdefault(name, []).append(statement)


def _calls(node: ast.AST) -> Iterator[ast.expr]:
    """The outermost calls and the decorators that run with ``node`` itself, so not those in the body of a function."""
    parts: Iterable[ast.AST | None] = ast.iter_child_nodes(node)
    match node:
        case ast.Call():
            yield node
            return
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from node.decorator_list
            parts = (node.args, node.returns)
        case ast.ClassDef():
            yield from node.decorator_list
        case ast.Lambda():
            parts = (node.args,)
    for part in filter(None, parts):
        yield from _calls(part)


def _imports(node: ast.AST, home: str) -> Iterator[tuple[str, str, str]]:
    """As of `Statement`; ``home`` is the package around relative ones."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            first = alias.name.partition(".")[0]
            yield (alias.asname, alias.name, alias.name) if alias.asname else (first, first, alias.name)
    elif isinstance(node, ast.ImportFrom):
        around = home.split(".")[: home.count(".") + 2 - node.level] if node.level else []
        source = ".".join([*around, *filter(None, [node.module])])
        for alias in node.names:
            target = source if alias.name == "*" else f"{source}.{alias.name}"
            yield alias.asname or alias.name, target, target


def _names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*(_names(one) for one in code.co_consts if isinstance(one, CodeType)))


def _chain(node: ast.AST) -> Chain:
    """(a, b, c) of ``a.b.c``; empty for anything else."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return (node.id, *reversed(attributes)) if isinstance(node, ast.Name) else ()


def _says_nothing(node: object) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and not node.orelse and ast.unparse(node.test) == "__name__ == '__main__'"
