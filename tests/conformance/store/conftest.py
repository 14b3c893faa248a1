"""Each store under test, as a way to open it: several openings see the same state, also from other processes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from platformctl.hub.store import Store
from platformctl.hub.store_sqlite import SQLiteStore

Opener = Callable[[], Store]


def _sqlite(folder: Path) -> Opener:
    return functools.partial(SQLiteStore, folder / "state" / "hub.db")


IMPLEMENTATIONS = {"sqlite": _sqlite}


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Can be pickled, so that it can be sent to another process."""
    return IMPLEMENTATIONS[request.param](tmp_path)


@pytest.fixture
def store(opener: Opener) -> Iterator[Store]:
    opened = opener()
    yield opened
    opened.close()


@pytest.fixture
def other(opener: Opener, store: Store) -> Iterator[Store]:
    """A second opening of the same state, as another replica has it."""
    opened = opener()
    yield opened
    opened.close()
