"""The digest of a script's code: what it reaches, what changes it, and what does not."""

import shutil

import pytest

from prefdelta.run import provenance
from prefdelta.run.provenance import ProvenanceError

SCRIPT = "from prefdelta.a import f\n\nif __name__ == '__main__':\n    f(snakemake.output[0])\n"


@pytest.fixture
def reach(tmp_path, monkeypatch):
    """A function: the `Code` of a script beside a package of these files (name -> text; by default the script runs a.f)."""

    def reach(files, *roots, script=SCRIPT):
        package = tmp_path / "prefdelta"
        shutil.rmtree(package, ignore_errors=True)
        for name, text in {"__init__.py": "", **files}.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text(text)
        (tmp_path / "script.py").write_text(script)
        monkeypatch.setattr(provenance, "PACKAGE", package)
        provenance._package.cache_clear()
        return provenance.code(tmp_path / "script.py", *roots)

    yield reach
    provenance._package.cache_clear()


B = "def f(): return 1\ndef g(): return 2\nX = 3\n"

# What it is about: the files, and what is reached beside the script and a.f.
REACHED = {
    "no more than is named": ({"a.py": "def f(): return 1\ndef g(): return 2"}, ""),
    "names, on and on": ({"a.py": "def f(): return g()\ndef g(): return X\nX = Y\nY = 1\nZ = 2"}, "a:g a:X a:Y"),
    "names that are called like a local": (
        {"a.py": "def f(x, *y, z=0, **w):\n    try: v = x\n    except E as u: pass\n    return x, y, z, w, v, u, (t := 1)\n"
         "x = y = z = w = v = u = t = 1\nclass E(Exception): pass"}, "a:E"),
    "a comprehension's names are its own": ({"a.py": "def f(a): return [x for x in a], x\nx = 1"}, "a:x"),
    "and its first sequence is from outside": ({"a.py": "def f(): return [x for x in x]\nx = []"}, "a:x"),
    "a comprehension binds by := around itself": ({"a.py": "def f(a): return [(x := y) for y in a], x\nx = 1"}, ""),
    "nested functions and lambdas": (
        {"a.py": "def f():\n    def h(p=D): return lambda q: (p, q, g())\n    return h\ndef g(): 0\nD = 2\np = 3\nq = 4"},
        "a:D a:g"),
    "nonlocal and global": (
        {"a.py": "def f():\n    n = 1\n    def h():\n        nonlocal n\n        global c\n        n = c = 2\nn = 2\nc = 1"},
        "a:c"),
    "a local of the function around is no global": ({"a.py": "def f(g):\n    return lambda: g\ndef g(): 0"}, ""),
    "names of a class are not those of its methods": (
        {"a.py": "def f(): return C\nclass C:\n    def g(self): return g()\ndef g(): 0"}, "a:C a:g"),
    "a class with its bases, decorators, keywords and annotations": (
        {"a.py": "def f(): return C\n@d\nclass C(B, metaclass=M):\n    x: T = D\nclass B: pass\nclass M(type): pass\n"
         "class T: pass\ndef d(c): return c\nD = 1"}, "<import> a:C a:B a:M a:T a:d a:D"),
    "defaults and decorators": ({"a.py": "@d\ndef f(x=D, *, y=E): 0\ndef d(g): return g\nD = E = 1"}, "a:d a:D a:E <import>"),
    "f-strings": ({"a.py": "def f(): return f'{X:{Y}}'\nX = 1\nY = 2"}, "a:X a:Y"),
    "annotations": (
        {"a.py": "def f(x: P, *y: 'list[Q]') -> R:\n    z: S = 1  # which nothing evaluates\nclass P: pass\nclass Q: pass\n"
         "class R: pass\nclass S: pass"}, "a:P a:Q a:R"),
    "strings in generic types": ({"a.py": "def f(): return T\nT = list['P'] | None\nclass P: pass\nclass Q: pass"}, "a:T a:P"),
    "all assignments to a name": ({"a.py": "def f(): return X\nX = Y\nif Y: X = Z\nY = 1\nZ = 2"}, "a:X a:Y a:Z a:<import>"),
    "what changes a name counts for who imports": ({"a.py": "def f(): 0\nX = {1}\nX |= {Y}\nY = 2"}, "a:X a:Y a:<import>"),
    "targets of tuples": ({"a.py": "def f(): return x\nx, (y, *z) = V\nV = 1"}, "a:x a:y a:z a:V"),
    "loops and the like are effects": (
        {"a.py": "def f(): 0\nfor n in NAMES: g(n)\nNAMES = []\ndef g(n): 0\ndef h(): 0"}, "a:<import> a:NAMES a:g a:n"),
    "an expression is an effect": ({"a.py": "def f(): 0\ng()\ndef g(): return h()\ndef h(): 0"}, "a:<import> a:g a:h"),
    "assignment to an attribute or element is an effect": (
        {"a.py": "import os\ndef f(): 0\nos.environ[X] = 'y'\nX = 'x'"}, "a:<import> a:X"),
    "a call in an assignment is an effect": ({"a.py": "def f(): 0\nX = [g(Y)]\nY = 1\ndef g(y): 0"}, "a:<import> a:Y a:g"),
    "a call in a class is an effect": (
        {"a.py": "def f(): 0\nclass C:\n    x = g(1)\n    def m(self, y=h()): return k()\ndef g(y): 0\ndef h(): 0\ndef k(): 0"},
        "a:<import> a:g a:h"),
    "who is derived from may do something": ({"a.py": "def f(): 0\nclass C(B): x = 1\nclass B: pass"}, "a:B"),
    "a call of another library is an effect, if it could do something": (
        {"a.py": "import os, re\ndef f(): 0\nX = re.compile('x')\nY = os.environ.setdefault('x', 'y')"}, "a:<import>"),
    "what is handed to a call may be called": (
        {"a.py": "def f(): 0\nX = sorted(Y, key=g)\nY = (1, 2)\nV = tuple(Y)\ndef g(y): 0"}, "a:<import> a:Y a:g"),
    "decorators may do something with a function": (
        {"a.py": "import lib\ndef f(): 0\n@lib.register\ndef g(): return h()\ndef h(): 0"}, "a:<import> a:g a:h"),
    "or with a method": (
        {"a.py": "import lib\ndef f(): 0\nclass C:\n    @lib.register\n    def m(self): return h()\ndef h(): 0"},
        "a:<import> a:C a:h"),
    "harmless decorators do not": ({"a.py": "from functools import cache\ndef f(): 0\n@cache\ndef g(): 0"}, ""),
    "an import": ({"a.py": "from prefdelta.b import g as h\ndef f(): return h()", "b.py": B}, "b:g"),
    "an import in a function": (
        {"a.py": "def f():\n    from prefdelta.b import g\n    return g()\ndef h(): 0", "b.py": B}, "b:g"),
    "an attribute of a module that is imported in a function": (
        {"a.py": "def f():\n    from prefdelta import b\n    return b.g()\ndef h(): 0", "b.py": B}, "b:g"),
    "an import in a class is its attribute": (
        {"a.py": "def f(): return C.g\nclass C:\n    from prefdelta.b import g", "b.py": B}, "a:C b:g"),
    "an import in a try": (
        {"a.py": "try: from prefdelta.b import g\nexcept ImportError: g = None\ndef f(): return g()", "b.py": B},
        "a:<import> a:g b:g"),
    "a module's attribute": (
        {"a.py": "from prefdelta import b\nimport prefdelta.c\nimport prefdelta.d as e\ndef f(): return b.g, prefdelta.c.X, e.f",
         "b.py": B, "c.py": B, "d.py": B}, "b:g c:X d:f"),
    "a module handed on": ({"a.py": "from prefdelta import b\ndef f(): return vars(b)", "b.py": B}, "b:f b:g b:X"),
    "a module's file": ({"a.py": "from prefdelta import b\ndef f(): return b.__file__", "b.py": B}, "b:f b:g b:X"),
    "a package handed on": (
        {"a.py": "import prefdelta.b\ndef f(): return prefdelta.b", "b/__init__.py": "", "b/c.py": B}, "b/c:f b/c:g b/c:X"),
    "an import that no statement provides": (
        {"a.py": "from prefdelta.b import odd\ndef f(): return odd", "b.py": B}, "b:f b:g b:X"),
    "a star": ({"a.py": "from prefdelta.b import *\ndef f(): return g()", "b.py": B}, "a:<import> b:f b:g b:X"),
    "re-exports": (
        {"a.py": "from prefdelta.b import h\ndef f(): return h()", "b.py": "from prefdelta.c import g as h", "c.py": B}, "c:g"),
    "relative imports": (
        {"a.py": "from prefdelta.b import h\ndef f(): return h()", "b/__init__.py": "from .c import g as h\nfrom ..d import X",
         "b/c.py": B, "d.py": B}, "b/c:g"),
    "modules that import each other": (
        {"a.py": "from prefdelta import b\ndef f(): return b.g()\nX = 1",
         "b.py": "from prefdelta import a\ndef g(): return a.X"}, "b:g a:X"),
    "globals": ({"a.py": "def f(): return globals()['g']()\ndef g(): 0\nX = 1"}, "a:g a:X"),
    "exec": ({"a.py": "def f(): exec('g()')\ndef g(): 0"}, "a:g"),
    "but a method is not exec": ({"a.py": "def f(model): model.eval()\ndef g(): 0"}, ""),
    "effects of all modules that are imported, and of the packages around": (
        {"a.py": "import prefdelta.b.c\ndef f(): 0", "b/__init__.py": "import os\nos.umask(0)",
         "b/c.py": "from prefdelta.d import X", "d.py": "print(1)\nX = 1", "e.py": "print(2)"}, "b/__init__:<import> d:<import>"),
    "effects of what is imported in a function that is reached": (
        {"a.py": "def f():\n    import prefdelta.b\ndef g():\n    import prefdelta.c", "b.py": "print(1)", "c.py": "print(2)"},
        "b:<import>"),
    "the main block of a module that is imported does not count": (
        {"a.py": "def f(): 0\ndef g(): 0\nif __name__ == '__main__': g()"}, ""),
    "a program by its module's name": (
        {"a.py": "def f(): run(['-m', 'prefdelta.b'])", "b.py": "def g(): 0\nif __name__ == '__main__': g()"}, "b:<program> b:g"),
    "a program's name in a text": ({"a.py": "def f(): sh('python -m prefdelta.b --x')", "b.py": B}, "b:f b:g b:X"),
    "a program by its file's name": (
        {"c/a.py": "P = Path(__file__).with_name('b.py')\ndef f(): return P", "c/b.py": B, "d.py": B,
         "a.py": "from prefdelta.c.a import f"}, "c/a:f c/a:P c/b:f c/b:g c/b:X"),
    "a module that starts itself": ({"a.py": "def f(): run(['-m', __name__])\ndef g(): 0"}, "a:g"),
    "but neither the name of a log nor of a folder": (
        {"a.py": "import logging\ndef f(): log, P\nlog = logging.getLogger(__name__)\nP = Path(__file__).parents[1]\ndef g(): 0"},
        "a:log a:P"),
    "an import by a constant name": (
        {"a.py": "import importlib\ndef f(): importlib.import_module('prefdelta.b')", "b.py": B}, "b:f b:g b:X"),
    "an import by an unknown name": (
        {"a.py": "import importlib\ndef f(name): importlib.import_module(name)", "b.py": B, "c.py": "h = 1"}, "b:f b:g b:X c:h"),
    "an import by a name of the rules": (
        {"a.py": "from prefdelta.run.by_name import load\ndef f(): load('prefdelta', 'b')", "b.py": B,
         "run/by_name.py": "import importlib\ndef load(package, name): importlib.import_module(f'{package}.{name}')"},
        "run/by_name:load"),
    "where a script runs": (
        {"a.py": "from prefdelta.run.warm import w\ndef f(): w()", "run/warm.py": "print(1)\ndef w(): return 1"}, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", REACHED)
def test_what_is_reached(reach, case):
    files, expected = REACHED[case]
    found = set(reach(files).definitions)
    assert "script.py:<script>" in found
    expected = {key if "<" not in key or ":" in key else f"a:{key}" for key in expected.split()}
    own = set() if "from prefdelta.c.a import f" in files["a.py"] else {"a:f"}
    assert {key.replace(".py:", ":") for key in found - {"script.py:<script>"}} == expected | own


def test_roots_are_modules_as_programs_and_definitions(reach):
    files = {"a.py": "def f(): 0", "b.py": f"{B}if __name__ == '__main__': f()\n"}
    assert set(reach(files, "prefdelta.b.g").definitions) == {"script.py:<script>", "a.py:f", "b.py:g"}
    found = set(reach(files, "prefdelta.b").definitions)
    assert found == {"script.py:<script>", "a.py:f", "b.py:f", "b.py:g", "b.py:X", "b.py:<program>"}
    assert reach(files).digest != reach(files, "prefdelta.b.g").digest != reach(files, "prefdelta.b").digest
    for root in ("prefdelta.c", "prefdelta.b.h", "elsewhere"):
        with pytest.raises(ProvenanceError, match=root):
            reach(files, root)


def test_a_program_of_the_package_can_be_asked_for_by_its_file(reach):
    reach({"b.py": B, "a.py": "def f(): 0"})
    assert list(provenance.code(provenance.PACKAGE / "b.py").definitions) == ["b.py:X", "b.py:f", "b.py:g"]


A = """\
'A module.'
from dataclasses import dataclass
import lib
from functools import cache
from prefdelta.b import g


def f(x: int = 1, *, y: "str" = "a") -> None:
    'Works.'
    n: list[int] = [x]
    return f"{g(n)!r:>3}", lib.h, C, {**D, 1.0: None}, h


@dataclass
class C:
    'A class.'
    x: int = 1
    y: "str" = ''

    def m(self, z):
        return z


@cache
def h():
    return 1


D = {1: (2,)}
"""
FILES = {"a.py": A, "b.py": B, "c.py": B}


@pytest.mark.parametrize(
    "old, new",
    [
        ("'A module.'", "'Another.'"),
        ("    'Works.'\n", ""),
        ("    'A class.'\n", "    'A good class.'\n"),
        ("        return z", "        # a comment\n        return (\n            z\n        )"),
        ("D = {1: (2,)}", "D  =  { 1 :( 2, ), }"),
        ("x: int = 1, *", "x: float = 1, *"),
        ('y: "str" = "a"', "y='a'"),
        ("-> None", "-> int"),
        ("n: list[int] = [x]", "n = [x]"),
        ("self, z", "self, z: int"),
        ("D = {1", "D: dict[int, object] = {1"),
        ("import lib\n", "import lib\nimport other\n"),
        ("import lib\nfrom functools import cache\n", "from functools import cache\nimport lib\n"),
    ],
)
def test_words_and_formatting_and_annotations_do_not_count(reach, old, new):
    assert A.count(old) == 1
    assert reach(FILES).definitions == reach(FILES | {"a.py": A.replace(old, new)}).definitions


@pytest.mark.parametrize(
    "old, new",
    [
        ("x: int = 1, *", "x: int = 2, *"),
        ("x: int = 1, *, y", "x: int = 1, y"),
        ("!r:>3", "!s:>3"),
        (":>3", ":>4"),
        ("1.0: None", "1: None"),
        ("1.0: None", "1.0: ..."),
        ("{**D, 1.0: None}", "{1.0: None, **D}"),
        ("@cache\n", ""),
        ("@dataclass\n", "@dataclass(frozen=True)\n"),
        ("    x: int = 1\n", "    x: float = 1\n"),
        ("    x: int = 1\n", "    x: int\n"),
        ("        return z", "        return -z"),
        ("def m(", "async def m("),
        ("(2,)", "(2)"),
        ("from prefdelta.b import g", "from prefdelta.c import g"),
        ("from prefdelta.b import g", "from lib import g"),
        ("from functools import cache", "from lib import cache"),
        ("import lib\n", "import bil as lib\n"),
        ("D = {", "D = D = {"),
    ],
)
def test_code_counts(reach, old, new):
    assert A.count(old) == 1
    assert reach(FILES).digest != reach(FILES | {"a.py": A.replace(old, new)}).digest


def test_what_a_name_stands_for_counts_however_many_imports_there_are_between(reach):
    files = {"a.py": "from prefdelta.b import g\ndef f(): return g(1)", "b.py": "from math import sqrt as g"}
    assert reach(files).digest != reach(files | {"b.py": "from cmath import sqrt as g"}).digest


def test_annotations_count_where_a_decorator_may_read_them(reach):
    text = "import lib\n@lib.validated\ndef f(x: {}): return x\n"
    assert reach({"a.py": text.format("int")}).digest != reach({"a.py": text.format("str")}).digest


def test_annotations_count_where_they_are_bound_to_what_a_rule_declares(reach):
    script = "from prefdelta.a import f\nfrom prefdelta.run.job import run_job\n\nrun_job(f, snakemake)\n"
    text = "def f(files: dict[{}, int]): return g\ndef g(x: {}): 0\n"
    files = {"run/job.py": "def run_job(stage, job): 0\n"}

    def digest(*notes):
        return reach(files | {"a.py": text.format(*notes)}, script=script).digest

    assert digest("int", "int") == digest("int", "str") != digest("str", "int")


# Edits of the package itself: (file, old, new), and the scripts that they concern. An empty ``old`` is the end of the file.
INTERVALS = (
    "export_cell tabulate_capability tabulate_experiment tabulate_generator_deltas tabulate_prediction tabulate_profile "
    "tabulate_recipes tabulate_regressions tabulate_sharpening tabulate_two_deltas"
)
FIGURES = (
    "plot_balance plot_capability plot_experiment plot_judge_audit plot_prediction plot_profile plot_recipes plot_regressions "
    "plot_replication plot_sharpening plot_whatif"
)
EDITS = {
    "a field of an audit": (
        [("audit/coverage.py", "    reasons: str\n", "    reasons: str\n    more: str\n")],
        "tabulate_coverage",
    ),
    "a field of a finding": (
        [("findings/capability.py", "    decoding: str\n", "    decoding: str\n    more: str\n")],
        "tabulate_capability plot_capability tabulate_claims tabulate_whatif",
    ),
    "a word of an error": ([("judge/ratings.py", "could be read (", "was readable (")], "rate_traces"),
    "the body of a helper": ([("pairs/select.py", "+ len(strata) // 2)", "+ len(strata) // 3)")], "build_pairs"),
    "a default argument": ([("microworld/authors.py", "Collection[Habit] = ()", "Collection[Habit] = []")], "pretrain_model"),
    "a decorator": (
        [("measure/intervals.py", "@lru_cache(maxsize=8)", "@lru_cache(maxsize=9)")],
        f"{INTERVALS} tabulate_delta_correction tabulate_judge_audit".replace(" tabulate_regressions", ""),
    ),
    "a base class": ([("train/gates.py", "class GateError(PrefdeltaError)", "class GateError(ValueError)")], "train_policy"),
    "a constant in an f-string": ([("audit/balance.py", "IMBALANCE = 0.1", "IMBALANCE = 0.2")], "tabulate_balance plot_balance"),
    "a method": (
        [("measure/intervals.py", "error / 2)\n        bias", "error / 3)\n        bias")],
        f"{INTERVALS} tabulate_claims",
    ),
    "an import": ([("measure/pages.py", "from jinja2 import", "from jinja2.sandbox import")], "browse_pairs render_answers"),
    "a function in another module": (
        [
            ("pairs/select.py", "def flip(", "def _as_it_was("),
            ("pairs/flip.py", "", "def flip(pairs):\n    return pairs\n"),
            (
                "pairs/build.py",
                "import candidates, flip, select",
                "import candidates, select\nfrom prefdelta.pairs.flip import flip",
            ),
        ],
        "build_pairs",
    ),
    "a rename": (
        [
            ("pairs/select.py", "def _in_proportion(", "def _by_size("),
            ("pairs/select.py", " = _in_proportion(", " = _by_size("),
        ],
        "build_pairs",
    ),
    "what an import does": ([("measure/plotting.py", '"font.size": 9', '"font.size": 8')], FIGURES),
    "a benchmark": ([("tasks/gsm8k.py", "", "Task.x = 1\n")], ""),
    "comments": ([("tables/io.py", "", "# The end.\n")], ""),
    "docstrings": ([("tables/check.py", "Whether the keys of a table are unique", "Are they unique")], ""),
    "annotations": ([("run/atomic.py", "path: Path | str) -> None", "path: str) -> int")], ""),
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the package, and a function: script -> digest as it is now."""
    original = provenance.PACKAGE
    copy = shutil.copytree(original, tmp_path_factory.mktemp("copy") / "prefdelta", ignore=shutil.ignore_patterns("__pycache__"))
    scripts = sorted((original.parent / "scripts").glob("*.py"))

    def digests():
        provenance._package.cache_clear()
        return {script.stem: provenance.code(script).digest for script in scripts}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "PACKAGE", copy)
        yield copy, digests, digests()
    provenance._package.cache_clear()


@pytest.mark.parametrize("case", EDITS)
def test_an_edit_concerns_the_scripts_that_can_run_it(copied, case):
    copy, digests, before = copied
    edits, expected = EDITS[case]
    texts = {copy / file: (copy / file).read_text() if (copy / file).exists() else None for file, _, _ in edits}
    try:
        for file, old, new in edits:
            text = (copy / file).read_text() if (copy / file).exists() else ""
            assert not old or text.count(old) == 1
            (copy / file).write_text(text.replace(old, new) if old else text + new)
        changed = {name for name, digest in digests().items() if digest != before[name]}
    finally:
        for file, text in texts.items():
            file.unlink() if text is None else file.write_text(text)
    assert changed == set(expected.split())
