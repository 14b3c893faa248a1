"""A runtime's life: start, a signal, drain, a second signal."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from platformctl.net.loop import probe_lag, run_until_stopped


class Recorder:
    """A server that notes what happens to it. `hangs` names the step that never ends by itself."""

    def __init__(self, hangs: str = "", fails: str = "") -> None:
        self.steps: list[str] = []
        self._hangs = hangs
        self._fails = fails

    async def start(self) -> None:
        await self._step("start")

    async def drain(self) -> None:
        await self._step("drain")

    async def close(self) -> None:
        self.steps.append("close")

    async def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self._fails:
            raise ValueError(name)
        # The next signal comes while this step runs, or right after it.
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        if name == self._hangs:
            await asyncio.Event().wait()


async def test_a_signal_drains_and_closes() -> None:
    server = Recorder(hangs="drain")
    assert await run_until_stopped(server) == 0
    assert server.steps == ["start", "drain", "close"]


async def test_a_signal_during_the_start_ends_it_without_a_drain() -> None:
    server = Recorder(hangs="start")
    assert await run_until_stopped(server) == 0
    assert server.steps == ["start", "close"]


@pytest.mark.parametrize("step", ["start", "drain"])
async def test_an_error_closes_and_is_raised(step: str) -> None:
    server = Recorder(fails=step)
    with pytest.raises(ValueError, match=step):
        await run_until_stopped(server)
    assert server.steps[-1] == "close"


async def test_the_lag_probe_tells_how_late_the_loop_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformctl.net.loop.LAG_PROBE_SECONDS", 0.0)
    told: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    probe = asyncio.get_running_loop().create_task(probe_lag(lambda lag: told.done() or told.set_result(lag)))
    assert await told >= 0.0
    probe.cancel()
