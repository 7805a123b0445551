"""What holds for every test: how hard properties are tried, and that no test reaches a person's secrets.

The rest is in `pyproject.toml`: warnings are errors, a test has two minutes, the order is random and its
seed shown. Properties run in one of three profiles, chosen by `HYPOTHESIS_PROFILE`: `quick` while writing,
`default`, and `thorough` before a release. A failing example is printed with what replays it.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

import client_sdk.opening

__all__ = ["pytest_plugins"]

pytest_plugins = ["tests.postgres"]  # a real Postgres, and a fresh database for each test that asks

# Times on a shared machine say nothing about an example, so none has a deadline; pytest's timeout holds.
settings.register_profile(
    "base", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
base = settings.get_profile("base")
settings.register_profile("quick", base, max_examples=20)
settings.register_profile("default", base, max_examples=100)
settings.register_profile("thorough", base, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A test that says nothing of meaning gets none: no model is loaded for it.
client_sdk.opening.DEFAULT_EMBEDDER = "off"

# The operating system's secret store is a person's: a test that wants one puts in its own.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"
