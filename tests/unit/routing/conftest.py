from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from platformctl.routing.registry import Registry
from platformctl.routing.spec import ServiceSpec


@dataclass(slots=True, eq=False)
class FakeTunnel:
    inflight: int = 0
    lane: int = 0
    draining: bool = False


class Fleet:
    """A registry with a short way to bring up a satellite."""

    def __init__(self) -> None:
        self.registry = Registry()

    def up(self, satellite, *services, instance="i1", labels=None, tunnel=None):
        """Attach and register: (lease, tunnel). A service is a name or a ServiceSpec."""
        tunnel = tunnel or FakeTunnel()
        lease, _ = self.registry.attach(satellite, instance, labels or {}, tunnel)
        specs = [one if isinstance(one, ServiceSpec) else ServiceSpec(one) for one in services]
        accepted, refused = self.registry.register(lease, specs)
        assert (len(accepted), refused) == (len(specs), [])
        return lease, tunnel


@pytest.fixture
def tunnel() -> type[FakeTunnel]:
    return FakeTunnel


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def bits() -> Callable[[list[int]], Callable[[int], int]]:
    """Makes a source of "random" bits that gives the listed numbers, and complains when asked for more."""

    def source(numbers: list[int]) -> Callable[[int], int]:
        left: Iterator[int] = iter(numbers)
        return lambda k: next(left) % (1 << k)

    return source
