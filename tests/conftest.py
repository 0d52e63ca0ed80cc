"""For all tests: generated inputs are the same in every run, and tests that need root say so."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("updated", derandomize=True, deadline=None)
settings.load_profile("updated")
# A shell starts what runs in its background deaf to Ctrl-C, and programs would inherit that from us.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.fail("needs root (loop devices, mounts): run `make test` as root", pytrace=False)
