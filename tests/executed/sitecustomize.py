"""Records which definitions of the package each job of a study executes: with this folder on PYTHONPATH, in the folder $EXECUTED.

Every function of the package tells when it first runs in a process. It is known by the definition that it is in, and so are the
names of the package that it reads. A process that a job starts, or forks, counts as the job's. `provenance_fuzz` reads the files,
one for each script, of lines "module name".
"""

import ast
import builtins
import dis
import os
import re
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType

FOLDER = os.environ.get("EXECUTED")
JOB = "EXECUTED_JOB"
PACKAGE = Path(__file__).parents[2] / "workflow" / "prefdelta"
_seen: dict[tuple[str, int], CodeType] = {}


class _Instrumented(ast.NodeTransformer):
    """Each function begins with a call of `_ran`."""

    owner = ""

    def visit(self, node):
        for child in ast.iter_child_nodes(node):
            self.visit(child)
        call = ast.Call(ast.Name("__prefdelta_ran__", ast.Load()), [ast.Constant(self.owner)], [])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node, clean=False) is not None
            node.body.insert(1 if documented else 0, ast.Expr(call))
        elif isinstance(node, ast.Lambda):
            node.body = ast.Subscript(ast.Tuple([call, node.body], ast.Load()), ast.Constant(1), ast.Load())
        return node


def _instrumented(source: bytes, path: str) -> CodeType:
    tree = ast.parse(source)
    for statement in tree.body:
        stored = [one for one in ast.walk(statement) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
        transformer = _Instrumented()
        transformer.owner = getattr(statement, "name", "") or (stored[0].id if stored else "<import>")
        transformer.visit(statement)
    return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


def _parts(code: CodeType):
    """``code`` and its comprehensions."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and constant.co_name in ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"):
            yield from _parts(constant)


def _reads(frame: FrameType):
    """(module, name) of the package's names that a frame's code reads; ``module.name`` is one."""
    here = _module(frame.f_code.co_filename)
    for code in _parts(frame.f_code):
        module: str | None = None
        for instruction in dis.get_instructions(code):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                value = frame.f_globals.get(instruction.argval)
                is_module = isinstance(value, ModuleType) and value.__name__.startswith("prefdelta")
                module = value.__name__ if is_module else None
                if not is_module and instruction.argval in frame.f_globals:
                    yield here, instruction.argval
            elif module and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                value = getattr(sys.modules[module], instruction.argval, None)
                if isinstance(value, ModuleType):
                    module = value.__name__
                else:
                    yield module, instruction.argval
                    module = None


def _module(file: str) -> str:
    parts = Path(file).relative_to(PACKAGE).with_suffix("").parts
    return ".".join(["prefdelta", *(parts[:-1] if parts[-1] == "__init__" else parts)])


def _ran(owner: str, frame: FrameType | None = None) -> None:
    frame = frame or sys._getframe(1)
    job = os.environ.get(JOB)
    if not job or (job, id(frame.f_code)) in _seen:
        return
    _seen[job, id(frame.f_code)] = frame.f_code
    lines = {f"{_module(frame.f_code.co_filename)} {owner}\n"} | {f"{module} {name}\n" for module, name in _reads(frame)}
    with (Path(FOLDER) / job).open("a") as file:
        file.write("".join(lines))


def _traced(frame: FrameType, event: str, _: object) -> None:
    """For a module that runs as a program by its file's name, which no loader loads."""
    if event == "call" and frame.f_code.co_name != "<module>" and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
        _ran(frame.f_code.co_qualname.partition(".")[0], frame)


if FOLDER:
    builtins.__prefdelta_ran__ = _ran
    _original = SourceFileLoader.get_code

    def _get_code(self, fullname):
        path = self.get_filename(fullname)
        if Path(path).is_relative_to(PACKAGE):
            return _instrumented(self.get_data(path), path)
        return _original(self, fullname)

    SourceFileLoader.get_code = _get_code
    started = [re.fullmatch(r"tmp[^.]*\.(\w+)\.py", Path(word).name) for word in sys.orig_argv if ".snakemake/scripts" in word]
    if started and started[0]:
        os.environ[JOB] = started[0][1]
    if "--report" in sys.orig_argv:  # a Snakemake of its own, which plans as the one does that started the job
        os.environ.pop(JOB, None)
    if any(Path(word).is_absolute() and Path(word).is_relative_to(PACKAGE) for word in sys.orig_argv[1:4]):
        sys.settrace(_traced)
