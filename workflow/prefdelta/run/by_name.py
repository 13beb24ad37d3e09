"""Modules that are chosen by a name in the configuration: backends, tasks, servers of endpoints.

The only place where the package imports by a name, so that an edit to one of them concerns its own jobs only: a job's plan names
those that it starts (`plan.job.Job.starts`), and they count in the digest of its code.
"""

import importlib
from types import ModuleType


def load(package: str, name: str) -> ModuleType:
    """The module ``name`` of ``package`` (a dotted name)."""
    return importlib.import_module(f"{package}.{name}")
