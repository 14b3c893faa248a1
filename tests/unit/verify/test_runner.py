"""The runner on checks of its own: deadlines, retries, needs, order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from platformctl.errors import ConfigError
from platformctl.verify.context import Context
from platformctl.verify.environment import Environment, Replica, Satellite
from platformctl.verify.model import Check, CheckFailed, CheckResult, CheckSkipped, Progress
from platformctl.verify.runner import Job, execute, expand


class Places:
    """Stands where the runner's Shared is: these checks call nobody."""

    def __init__(self) -> None:
        self.env = Environment(
            hub_url="https://hub",
            ca_file="",
            admin_token_file="",
            replicas=(Replica("hub-1", "https://a"), Replica("hub-2", "https://b")),
            satellites=(Satellite("sat-1"), Satellite("sat-2")),
        )


async def _fine(ctx: Context) -> str:
    return f"fine at {ctx.place}"


def check(name: str, run: Callable[[Context], Awaitable[str]] = _fine, **fields: object) -> Check:
    settings = {"category": "hub", "scope": "environment", "description": "d", "remedy": "Mend it."} | fields
    return Check(name=name, run=run, **settings)  # type: ignore[arg-type]


def jobs(*checks: Check) -> list[Job]:
    return expand(checks, Places())  # type: ignore[arg-type]


async def run(*checks: Check, tell: Callable[[Progress], None] = lambda _: None) -> dict[str, CheckResult]:
    return {result.name: result for result in await execute(jobs(*checks), tell)}


def failing(
    detail: str = "broken", hint: str = "Because.", *, fatal: bool = False
) -> Callable[[Context], Awaitable[str]]:
    async def body(_: Context) -> str:
        raise CheckFailed(detail, hint, fatal=fatal)

    return body


def test_a_check_is_expanded_to_every_place_of_its_scope() -> None:
    names = [job.name for job in jobs(check("e"), check("r", scope="replica"), check("s", scope="satellite"))]
    assert names == ["e", "r[hub-1]", "r[hub-2]", "s[sat-1]", "s[sat-2]"]
    paths = [job.name for job in jobs(check("p", scope="path"))]
    assert paths == ["p[sat-1 via hub-1]", "p[sat-1 via hub-2]", "p[sat-2 via hub-1]", "p[sat-2 via hub-2]"]


async def test_a_pass_carries_its_detail_and_no_hint() -> None:
    result = (await run(check("p", scope="replica")))["p[hub-1]"]
    assert (result.status, result.detail, result.hint) == ("passed", "fine at hub-1", "")


async def test_a_failure_carries_its_hint_and_where_to_read_on() -> None:
    result = (await run(check("p", failing())))["p"]
    assert (result.status, result.detail) == ("failed", "broken")
    assert result.hint == "Because. See docs/reference/verify.md#p."


async def test_a_failure_without_a_known_cause_shows_the_remedy() -> None:
    result = (await run(check("p", failing(hint=""))))["p"]
    assert result.hint.startswith("Mend it.")


async def test_a_warning_passes_with_its_hint_unless_it_could_not_measure() -> None:
    results = await run(
        check("slow", failing(), severity="warning"), check("dead", failing(fatal=True), severity="warning")
    )
    assert (results["slow"].status, results["slow"].detail, results["slow"].warned) == (
        "passed",
        "warning: broken",
        True,
    )
    assert results["dead"].status == "failed"


async def test_a_check_that_breaks_fails_alone() -> None:
    async def breaks(_: Context) -> str:
        raise KeyError("items")

    results = await run(check("a", breaks), check("b"))
    assert results["a"].status == "failed"
    assert "KeyError" in results["a"].detail
    assert "does not understand" in results["a"].hint
    assert results["b"].status == "passed"


async def test_a_persons_mistake_keeps_its_own_hint() -> None:
    async def breaks(_: Context) -> str:
        raise ConfigError("cannot be read", source="token", hint="Write it again.")

    result = (await run(check("a", breaks)))["a"]
    assert (result.detail, "Write it again." in result.hint) == ("token: cannot be read", True)


async def test_a_check_that_does_not_apply_is_skipped_with_its_reason() -> None:
    async def skips(_: Context) -> str:
        raise CheckSkipped("no audit log here", "Name it.")

    result = (await run(check("a", skips)))["a"]
    assert (result.status, result.detail, result.hint) == ("skipped", "no audit log here", "Name it.")


async def test_a_deadline_ends_a_check_that_hangs() -> None:
    async def hangs(_: Context) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    result = (await run(check("a", hangs, deadline=0.01, severity="warning")))["a"]
    assert (result.status, result.detail) == ("failed", "no result within 0.01 s")


async def test_a_deadline_during_retries_gives_the_last_reason() -> None:
    result = (await run(check("a", failing("still broken"), deadline=0.01, retry_for=60.0)))["a"]
    assert (result.status, result.detail) == ("failed", "still broken")


async def test_a_failure_that_mends_itself_within_its_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformctl.verify.runner.RETRY_PAUSE", 0.0)
    attempts = iter([CheckFailed("not yet"), CheckFailed("not yet"), None])

    async def third_time(_: Context) -> str:
        failure = next(attempts)
        if failure:
            raise failure
        return "up"

    assert (await run(check("a", third_time, retry_for=30.0)))["a"].detail == "up"


async def test_without_time_for_retries_a_check_is_tried_once() -> None:
    attempts = []

    async def count(_: Context) -> str:
        attempts.append(1)
        raise CheckFailed("no", "h")

    await run(check("a", count))
    assert attempts == [1]


async def test_what_needs_a_failed_check_is_skipped_in_the_same_place_alone() -> None:
    async def broken_at_hub_2(ctx: Context) -> str:
        if ctx.replica.id == "hub-2":
            raise CheckFailed("down", "h")
        return "up"

    results = await run(
        check("ready", broken_at_hub_2, scope="replica"),
        check("use", scope="path", needs=("ready",)),
        check("after", needs=("other",)),
    )
    assert results["use[sat-1 via hub-2]"].status == "skipped"
    assert results["use[sat-1 via hub-2]"].detail == "ready[hub-2] failed"
    assert results["use[sat-1 via hub-1]"].status == "passed"
    assert results["after"].status == "passed"


async def test_what_needs_a_check_that_was_skipped_for_a_failure_is_skipped_too() -> None:
    results = await run(check("a", failing()), check("b", needs=("a",)), check("c", needs=("b",)))
    assert (results["c"].status, results["c"].detail) == ("skipped", "a failed")


async def test_a_skipped_need_does_not_stop_what_needs_it() -> None:
    async def skips(_: Context) -> str:
        raise CheckSkipped("not here")

    results = await run(check("a", skips), check("b", needs=("a",)))
    assert results["b"].status == "passed"


async def test_checks_that_measure_time_run_alone_and_last() -> None:
    busy = 0
    seen: list[tuple[str, int]] = []

    async def body(ctx: Context) -> str:
        nonlocal busy
        busy += 1
        for _ in range(5):
            await asyncio.sleep(0)
        seen.append((ctx.place, busy))
        busy -= 1
        return ""

    results = await run(check("alone", body, scope="replica", alone=True), check("b", body, scope="path"))
    assert [count for _, count in seen[-2:]] == [1, 1]
    assert max(count for _, count in seen[:-2]) > 1
    assert next(iter(results)) == "alone[hub-1]"  # the report keeps the table's order


async def test_progress_tells_each_start_and_each_result() -> None:
    told: list[Progress] = []
    await run(check("a"), check("b"), tell=told.append)
    assert [p.name for p in told if p.result is None] == ["a", "b"]
    assert [(p.done, p.total) for p in told if p.result is not None] == [(1, 2), (2, 2)]
