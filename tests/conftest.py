"""Settings of all tests."""

from hypothesis import HealthCheck, settings

import prefdelta  # noqa: F401  (before the libraries that telemetry is switched off of: its thread crashed once)

# Deterministic, and without a deadline: other jobs may be using the machine.
settings.register_profile(
    "prefdelta", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("prefdelta")
