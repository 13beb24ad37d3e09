"""Settings of all tests."""

import pytest
from hypothesis import HealthCheck, settings

import prefdelta  # noqa: F401  (before the libraries that telemetry is switched off of: its thread crashed once)

LONGEST = ("test_workflow.py", "test_chaos.py", "test_train.py", "test_fuzz.py")

# Deterministic, and without a deadline: other jobs may be using the machine.
settings.register_profile(
    "prefdelta", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
# For tests/test_fuzz.py: `make fuzz-inputs`.
settings.register_profile("inputs", settings.get_profile("prefdelta"), derandomize=False, max_examples=10_000, print_blob=True)
settings.load_profile("prefdelta")


def pytest_collection_modifyitems(items):
    """The files that take longest begin first, else one of several processes ends with them alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def asking(tmp_path, monkeypatch):
    """A key and a store for tests that ask an endpoint of kind url, and short pauses between tries."""
    from loopback import KEY  # whose server most tests do without

    monkeypatch.setenv(KEY, "secret")
    monkeypatch.setenv("PREFDELTA_STORE", str(tmp_path / "store"))
    monkeypatch.setattr("prefdelta.endpoint.client.LEAST_PAUSE", 0.01)
