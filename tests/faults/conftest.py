"""Labs for tests. Where namespaces are not possible the tests are skipped and say why; with
PLATFORMCTL_REQUIRE_NETNS=1 they fail instead, so that a machine meant to run them cannot skip them quietly."""

from __future__ import annotations

import functools
import os

import pytest

from tests.faults.namespaces import unavailable

_why_not = functools.cache(unavailable)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("netns") is None:
        return
    reason = _why_not()
    if reason is None:
        return
    if os.environ.get("PLATFORMCTL_REQUIRE_NETNS") == "1":
        pytest.fail(f"PLATFORMCTL_REQUIRE_NETNS=1, but {reason}", pytrace=False)
    pytest.skip(reason)
