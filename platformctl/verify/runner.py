"""Runs checks: one job for each check in each place, side by side where that is safe, reported in the table's order."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from platformctl.errors import PlatformError, UsageError
from platformctl.verify.backend import Exporter
from platformctl.verify.client import Problem, Unreachable
from platformctl.verify.context import Context, Shared
from platformctl.verify.diagnosis import cause
from platformctl.verify.environment import Environment
from platformctl.verify.model import DOCS, Check, CheckFailed, CheckResult, CheckSkipped, Progress, Report, Status

__all__ = ["Callback", "execute", "expand", "run"]

Callback = Callable[[Progress], None]

CONCURRENCY = 8
RETRY_PAUSE = 0.2
DIAGNOSIS_WITHIN = 5.0


@dataclass
class Job:
    """A check in one place. `result` is set when it is done; `unwanted` is why it is not run at all.

    `broken` names the failed job that it needs, straight or through others.
    """

    check: Check
    ctx: Context
    unwanted: str = ""
    broken: str = ""
    result: CheckResult | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return f"{self.check.name}[{self.ctx.place}]" if self.ctx.place else self.check.name


def expand(checks: Iterable[Check], shared: Shared) -> list[Job]:
    """One job for each check in each place of its scope."""
    return [Job(check, ctx) for check in checks for ctx in _places(check, shared)]


def _places(check: Check, shared: Shared) -> list[Context]:
    replicas, satellites = shared.env.replicas, shared.env.satellites
    if check.scope == "environment":
        return [Context(shared)]
    if check.scope == "replica":
        return [Context(shared, at_replica=replica) for replica in replicas]
    if check.scope == "satellite":
        return [Context(shared, at_satellite=satellite) for satellite in satellites]
    return [
        Context(shared, at_replica=replica, at_satellite=satellite) for satellite in satellites for replica in replicas
    ]


def select(jobs: Sequence[Job], test: str | None, skip: str | None) -> list[Job]:
    """Jobs whose name or category matches `test`; those that match `skip` stay in the report as skipped.

    UsageError for a pattern that is no regular expression, and for a `test` that matches nothing.
    """
    wanted, refused = _pattern(test, "--test"), _pattern(skip, "--skip")
    chosen = [job for job in jobs if wanted is None or _matches(wanted, job)]
    if not chosen:
        names = ", ".join(dict.fromkeys(job.check.name for job in jobs))
        raise UsageError(f"no check matches --test {test}", hint=f"The checks are: {names}.")
    for job in chosen:
        if refused is not None and _matches(refused, job):
            job.unwanted = f"--skip {skip}"
    return chosen


def _pattern(text: str | None, option: str) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"{option} {text} is not a regular expression: {error}") from error


def _matches(pattern: re.Pattern[str], job: Job) -> bool:
    return pattern.search(job.name) is not None or pattern.search(job.check.category) is not None


async def run(
    env: Environment,
    exporter: Exporter,
    checks: Sequence[Check],
    *,
    test: str | None = None,
    skip: str | None = None,
    progress: Callback | None = None,
) -> Report:
    """Run the selected checks. Whatever happens, the echo backend is withdrawn before this returns or raises."""
    began = time.perf_counter()
    shared = Shared(env, exporter)
    try:
        jobs = select(expand(checks, shared), test, skip)
        if any(job.check.backend and not job.unwanted for job in jobs):
            await shared.backend.open()
        results = await execute(jobs, progress or (lambda _: None))
    finally:
        await shared.close()
    return Report(tuple(results), _elapsed_ms(began))


async def execute(jobs: Sequence[Job], tell: Callback) -> list[CheckResult]:
    """Every job once: in parallel, each after those that it needs; then, one at a time, those that must be alone."""
    by_name = {job.name: job for job in jobs}
    running: dict[str, None] = {}
    slots = asyncio.Semaphore(CONCURRENCY)

    async def work(job: Job) -> None:
        needs = [by_name[name] for name in _need_names(job) if name in by_name]
        for need in needs:
            await need.done.wait()
        async with slots:
            running[job.name] = None
            tell(Progress(job.name, sum(other.done.is_set() for other in jobs), len(jobs), None, tuple(running)))
            job.result = await _result(job, needs)
            job.done.set()
            del running[job.name]
            tell(Progress(job.name, sum(other.done.is_set() for other in jobs), len(jobs), job.result, tuple(running)))

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            if not job.check.alone:
                group.create_task(work(job), name=f"verify {job.name}")
    for job in jobs:
        if job.check.alone:
            await work(job)
    return [job.result for job in jobs if job.result is not None]


def _need_names(job: Job) -> list[str]:
    """What a job needs, in its own place or in a wider one that holds it."""
    ctx = job.ctx
    places = [f"[{ctx.place}]"] if ctx.place else []
    places += [f"[{ctx.at_replica.id}]"] if ctx.at_replica else []
    places += [f"[{ctx.at_satellite.name}]"] if ctx.at_satellite else []
    return [need + place for need in job.check.needs for place in (*places, "")]


async def _result(job: Job, needs: Sequence[Job]) -> CheckResult:
    if job.unwanted:
        return CheckResult(job.name, job.check.category, "skipped", 0.0, job.unwanted)
    failed = (need.name for need in needs if need.result is not None and need.result.status == "failed")
    job.broken = next(failed, "") or next((need.broken for need in needs if need.broken), "")
    if job.broken:
        return CheckResult(job.name, job.check.category, "skipped", 0.0, f"{job.broken} failed")
    began = time.perf_counter()
    status: Status = "failed"
    hint = ""
    try:
        detail = await _attempts(job)
        status = "passed"
    except CheckSkipped as skipped:
        status, detail, hint = "skipped", skipped.detail, skipped.hint
    except CheckFailed as failure:
        if job.check.severity == "warning" and not failure.fatal:
            status, detail, hint = "passed", f"warning: {failure.detail}", failure.hint or job.check.remedy
        else:
            detail, hint = failure.detail, failure.hint or await _hint(job)
    duration = _elapsed_ms(began)
    if hint and status != "skipped":
        hint = f"{hint.rstrip('. ')}. See {DOCS}#{job.check.hint_anchor}."
    return CheckResult(job.name, job.check.category, status, duration, detail, hint)


async def _attempts(job: Job) -> str:
    """The detail of a pass; CheckFailed with the last attempt's reason."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    last: CheckFailed | None = None
    try:
        async with asyncio.timeout_at(began + job.check.deadline):
            while True:
                try:
                    return await _attempt(job)
                except CheckFailed as failure:
                    last = failure
                if loop.time() - began >= job.check.retry_for:
                    raise last
                await asyncio.sleep(RETRY_PAUSE)
    except TimeoutError:
        if last is not None:
            raise last from None
        raise CheckFailed(f"no result within {job.check.deadline:g} s", fatal=True) from None


async def _attempt(job: Job) -> str:
    """One try, with all that can go wrong turned into CheckFailed (asyncio.timeout's own TimeoutError passes)."""
    if job.check.backend and job.check.scope == "path":
        away = job.ctx.shared.backend.out_of_reach.get(job.ctx.satellite.name)
        if away:
            raise CheckSkipped(away.message, away.hint)
        await job.ctx.shared.live(job.ctx)
    try:
        return await job.check.run(job.ctx)
    except (CheckFailed, CheckSkipped, TimeoutError):
        raise
    except (Problem, Unreachable) as error:
        raise CheckFailed(str(error), fatal=True) from error
    except PlatformError as error:
        raise CheckFailed(error.message, error.hint, fatal=True) from error
    except Exception as error:  # a check that breaks must not take the others with it
        text = f"{type(error).__name__}: {error}"
        raise CheckFailed(
            text, "The check met an answer that it does not understand: compare the versions of both sides.", fatal=True
        ) from error


async def _hint(job: Job) -> str:
    try:
        async with asyncio.timeout(DIAGNOSIS_WITHIN):
            return await cause(job.ctx) or job.check.remedy
    except (TimeoutError, Problem, Unreachable):
        return job.check.remedy


def _elapsed_ms(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
