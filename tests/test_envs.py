"""The environments agree: what is pinned in several places has one version everywhere."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
OTHERWISE = {"numpy"}  # vLLM's needs want an older one than ours


def pins(lines):
    """Versions by normalised name (PEP 503). Every line must be a pin."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?==([\w.!+]+)", line.strip())
        assert match, f"no pin: {line}"
        found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


HASHED = ["constraints.txt", "envs/build.txt", "envs/vllm-cpu.txt", "envs/vllm-cuda.txt"]


def content(file):
    lines = (REPOSITORY / file).read_text(encoding="utf-8").splitlines()
    return [line.removesuffix(" \\") for line in lines if line and not line.startswith("#")]


def locked(file):
    """The pins of a lock, and torch's, which stands apart: each of its builds has its own hash."""
    return pins(line for line in [*content(file), *content("envs/torch.txt")] if not line.startswith("    --hash="))


def conda(name):
    content = yaml.safe_load((REPOSITORY / "envs" / name).read_text(encoding="utf-8"))
    (by_pip,) = (entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict))
    return pins(by_pip)


@pytest.mark.parametrize("file", HASHED)
def test_every_pin_of_a_lock_has_hashes_and_nothing_of_this_machine(file):
    lines = content(file)
    assert not [line for line in lines if re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) is None and line.startswith(" ")]
    followed = zip(lines, [*lines[1:], ""], strict=True)
    assert not [line for line, after in followed if not line.startswith(" ") and not after.startswith("    --hash=")]


def test_the_lock_holds_everything_that_the_package_names():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [re.match(r"[\w.-]+", name)[0] for name in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in needed} <= locked("constraints.txt").keys()


def test_the_conda_environment_of_the_package_has_the_versions_of_the_constraints():
    assert conda("prefdelta.yaml").items() <= locked("constraints.txt").items()


def test_the_conda_environment_with_vllm_has_what_the_package_needs_and_the_versions_of_the_lock():
    with_vllm, lock = conda("vllm.yaml"), locked("envs/vllm-cuda.txt")
    assert with_vllm.keys() == conda("prefdelta.yaml").keys() | {"vllm", *OTHERWISE}
    assert with_vllm.items() <= (locked("constraints.txt") | lock).items()


@pytest.mark.parametrize("file", ["envs/vllm-cpu.txt", "envs/vllm-cuda.txt"])
def test_vllms_locks_share_the_versions_of_the_constraints(file):
    lock, constraints = locked(file), locked("constraints.txt")
    shared = (lock.keys() & constraints.keys()) - OTHERWISE
    assert len(shared) > 30
    assert {name: lock[name] for name in shared} == {name: constraints[name] for name in shared}
    assert not [name for name, version in lock.items() if "+" in version]  # a local build is to be had in one place only
