"""Running scenarios: one after the other for figures, all at once to see that they work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping

from tests.bench.contenders import missing
from tests.bench.context import Bench
from tests.bench.machine import conditions
from tests.bench.plan import Plan
from tests.bench.processes import BenchError
from tests.bench.scenarios import SCENARIOS
from tests.bench.tools import is_built

# These put load on the same contenders; the others have a platform of their own, and mostly wait.
_SHARING = ("http_cpu", "open_loop", "bulk", "stalled_readers")

Plans = Mapping[str, Plan]


def expected_seconds(plans: Plans, *, exact: bool) -> float:
    """How long `in_turn` (exact) or `at_once` takes, about."""
    each = {name: SCENARIOS[name].estimate(plan) for name, plan in plans.items()}
    return sum(each.values()) if exact else max(sum(each[name] for name in group) for group in _groups(each))


async def in_turn(bench: Bench, plans: Plans) -> dict[str, str]:
    """For figures. What the machine did before each scenario is noted with it.

    A scenario that fails costs the others nothing: returns name -> what went wrong.
    """
    failures: dict[str, str] = {}
    for name, plan in plans.items():
        started = time.monotonic()
        before = await conditions()
        bench.results.note(name, before)
        bench.say(f"--- {name}: about {SCENARIOS[name].estimate(plan):.0f} s; {before}")
        try:
            await SCENARIOS[name].measure(bench, plan)
        except BenchError as e:
            bench.say(f"--- {name}: FAILED: {e}")
            failures[name] = str(e)
        else:
            bench.say(f"--- {name}: took {time.monotonic() - started:.0f} s")
    return failures


async def at_once(bench: Bench, plans: Plans) -> None:
    """To see that everything works; the figures mean nothing. The first failure ends it, as it is."""

    async def group(names: Iterable[str]) -> None:
        for name in names:
            await SCENARIOS[name].measure(bench, plans[name])

    try:
        async with asyncio.TaskGroup() as tasks:
            for names in _groups(plans):
                tasks.create_task(group(names), name=", ".join(names))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _groups(names: Iterable[str]) -> list[tuple[str, ...]]:
    sharing = tuple(name for name in names if name in _SHARING)
    return [group for group in (sharing, *((name,) for name in names if name not in _SHARING)) if group]


def leave_out_missing(bench_plans: Plans) -> tuple[dict[str, Plan], list[str]]:
    """The plans without contenders that are not built, and what has to be said about that."""
    absent = missing({name for plan in bench_plans.values() for name in plan.contenders})
    said = []
    if absent:
        said.append(
            f"*** NOT COMPARED with {', '.join(sorted(absent))}: not built; tools/build-peers.sh builds them ***"
        )
    if not is_built("vegeta"):
        said.append("*** vegeta IS NOT BUILT: a slow generator stands in; tools/build-peers.sh builds it ***")
    return {name: plan.without(absent) for name, plan in bench_plans.items()}, said
