"""The digest of a script's code: what changes it, and what does not."""

import json
import shutil

import pytest

from prefdelta.run import provenance

SCRIPT = "from prefdelta.middle import work\n\nif __name__ == '__main__':\n    work(snakemake.output[0])\n"
PACKAGE = {
    "__init__.py": '"""The package."""\n',
    "middle.py": """\
'In the middle.'

from prefdelta.deep import core


def work(output):
    'Works.'
    return core.run(output)
""",
    "deep/__init__.py": "",
    "deep/core.py": """\
from prefdelta import leaf


def run(output):
    import prefdelta.late

    return leaf.VALUE, output
""",
    "leaf.py": "VALUE = 1\n",
    "late.py": "LATE = 1\n",
    "unrelated.py": "OTHER = 1\n",
}


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """A function that edits a file of a copied package (text -> text), and gives the digest of the script."""
    package, script = tmp_path / "prefdelta", tmp_path / "script.py"
    for name, text in PACKAGE.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    script.write_text(SCRIPT)
    monkeypatch.setattr(provenance, "PACKAGE", package)

    def edited(name=None, old="", new="", also=()):
        if name:
            path = script if name == "script.py" else package / name
            assert old in path.read_text()
            path.write_text(path.read_text().replace(old, new, 1))
        provenance._module.cache_clear()
        return provenance.code_digest(script, *(package / other for other in also))

    yield edited
    provenance._module.cache_clear()


def test_the_digest_names_the_script_and_all_it_imports(digest):
    names = set(json.loads(digest()))
    assert {"script.py", "middle.py", "deep/core.py", "leaf.py", "late.py"} <= names
    assert "unrelated.py" not in names


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("middle.py", "In the middle.", "Somewhere else."),
        ("middle.py", "    'Works.'\n", ""),
        ("middle.py", "return core.run(output)", "return core.run(\n        output,\n    )  # a comment"),
        ("leaf.py", "VALUE = 1", "# a comment\n\nVALUE   =   (1)"),
        ("script.py", "'__main__'", '"__main__"'),
        ("unrelated.py", "OTHER = 1", "OTHER = 2"),
    ],
)
def test_words_and_formatting_and_unrelated_code_do_not_count(digest, name, old, new):
    assert digest() == digest(name, old, new)


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("script.py", "output[0]", "output[1]"),
        ("middle.py", "core.run(output)", "core.run(None)"),
        ("deep/core.py", "leaf.VALUE, output", "output, leaf.VALUE"),
        ("leaf.py", "VALUE = 1", "VALUE = 2"),
        ("late.py", "LATE = 1", "LATE = 2"),
        ("__init__.py", '"""The package."""\n', "import os\n"),
        ("deep/__init__.py", "", "import os\n"),
    ],
)
def test_code_of_an_imported_module_counts_however_indirect(digest, name, old, new):
    assert digest() != digest(name, old, new)


def test_a_package_is_run_by_any_import_from_it(digest):
    # `from prefdelta.middle import work` runs prefdelta/__init__.py first.
    digest("middle.py", "from prefdelta.deep import core", "core = None")
    assert digest() != digest("__init__.py", '"""The package."""\n', "import os\n")


def test_code_that_a_script_starts_by_name_counts_with_what_it_imports(digest):
    both = digest(also=["unrelated.py"])
    assert set(json.loads(both)) == {*json.loads(digest()), "unrelated.py"}
    assert digest("unrelated.py", "OTHER = 1", "from prefdelta import other\n", also=["unrelated.py"]) != both
    assert digest(also=["leaf.py"]) == digest()  # which is imported anyway


def test_modules_that_import_each_other_are_digested(digest):
    before = digest("leaf.py", "VALUE = 1", "import prefdelta.middle\nVALUE = 1")
    assert before != digest("leaf.py", "VALUE = 1", "VALUE = 2")


def test_the_packages_own_scripts_have_digests_of_their_own(tmp_path, monkeypatch):
    original = provenance.PACKAGE
    copy = shutil.copytree(original, tmp_path / "prefdelta")
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    provenance._module.cache_clear()
    scripts = sorted((original.parent / "scripts").glob("*.py"))

    def digests():
        provenance._module.cache_clear()
        return {script.stem: provenance.code_digest(script) for script in scripts}

    before = digests()
    edited = copy / "findings" / "intervals.py"
    edited.write_text(edited.read_text() + "\nX = 1\n")
    changed = {name for name, digest in digests().items() if digest != before[name]}
    assert "tabulate_experiment" in changed
    assert not changed & {"make_prompts", "pretrain_model", "sample_traces", "rate_traces", "build_pairs", "train_policy"}
