"""The shape of a scenario."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.bench.context import Bench
from tests.bench.plan import Plan
from tests.bench.results import Bar, Results


@dataclass(frozen=True)
class Scenario:
    """`measure` adds rows to the bench's results; `bars` compares them with what the project promises.

    `full` is the plan whose figures are published, `quick` one that shows that everything works and whose figures mean
    nothing. `estimate`: about how many seconds a plan takes here.
    """

    name: str
    title: str
    measure: Callable[[Bench, Plan], Awaitable[None]]
    bars: Callable[[Results], list[Bar]]
    full: Plan
    quick: Plan
    estimate: Callable[[Plan], float]
