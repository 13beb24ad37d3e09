"""Which room of the package may know which: imports go one way."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "workflow" / "prefdelta"
# From the bottom up: a room may import those that stand before it.
ROOMS = ["run", "study", "configure", "tables", "checkpoints", "data", "endpoint", "judge", "microworld", "tasks", "generate"]
ROOMS += ["pairs", "train", "evaluate", "measure", "findings", "forecast", "audit", "answers", "export", "report", "plan"]
MODULES = 16  # that one takes in at a glance
SLOW = {"torch", "transformers", "trl", "datasets", "matplotlib", "polars", "pandera", "openai", "numpy"}


def imported(file):
    """Modules of the package and libraries that a file imports anywhere, and those at its top level."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = {False: set(), True: set()}
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
            if node.module.count(".") < 2 and node.module.startswith("prefdelta"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            found[node in tree.body].add(name)
    return found[False] | found[True], found[True]


def test_rooms_know_only_those_below():
    assert {folder.name for folder in PACKAGE.iterdir() if folder.is_dir() and folder.name != "__pycache__"} == {*ROOMS}
    wrong = []
    for place, room in enumerate(ROOMS):
        for file in (PACKAGE / room).glob("*.py"):
            others = {name.split(".")[1] for name in imported(file)[0] if name.startswith("prefdelta.")} - {room}
            wrong += [f"{room}/{file.name} imports {other}" for other in others if other not in ROOMS[:place]]
    assert not wrong


def test_the_documentation_has_every_room():
    text = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Rooms")[2].partition("## Words")[0]
    assert [room for room in ROOMS if f"`{room}/`" not in table] == []


def test_no_room_is_too_large_and_none_does_anything_when_it_is_imported():
    for room in ROOMS:
        files = list((PACKAGE / room).glob("*.py"))
        assert len(files) - 1 <= MODULES, room
        assert room == "tasks" or not (PACKAGE / room / "__init__.py").read_text().strip(), room


def test_planning_imports_nothing_slow():
    """The Snakefile is read by every cluster job, and before every dry run."""
    pending, seen = {f"prefdelta.plan.{file.stem}" for file in (PACKAGE / "plan").glob("*.py")}, set()
    while pending:
        name = pending.pop()
        seen.add(name)
        file = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
        if file.is_file():
            top = imported(file)[1]
            assert not {module.split(".")[0] for module in top} & SLOW, name
            pending |= {module for module in top if module.startswith("prefdelta.")} - seen


def test_no_stage_knows_where_files_lie():
    for room in ROOMS:
        for file in (PACKAGE / room).glob("*.py"):
            knows = "prefdelta.study.paths" in imported(file)[0] or "results/{" in file.read_text(encoding="utf-8")
            assert not knows or room in ("plan", "study"), file
