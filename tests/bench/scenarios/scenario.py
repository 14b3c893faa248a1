"""The shape of a scenario."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.bench.context import Bench
from tests.bench.results import Bar, Results


@dataclass(frozen=True)
class Scenario:
    """`measure` adds rows to the bench's results; `bars` compares them with what the project promises."""

    name: str
    title: str
    measure: Callable[[Bench], Awaitable[None]]
    bars: Callable[[Results], list[Bar]]
