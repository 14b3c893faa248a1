"""How long a keeper waits before it dials again, for every way in which a tunnel can fail or end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from picows import WSError

from platformctl.errors import ConfigError
from platformctl.satellite import keeper as module
from platformctl.satellite.keeper import QUICK_CAP, SLOW_CAP, UNWELCOME_SECONDS, Keeper, Unreachable
from platformctl.wire import frames


class Agent:
    """As much of an agent as a keeper needs; every jitter is at its worst."""

    def __init__(self) -> None:
        self.problem = ""
        self.reconnects = 0

    def jitter(self) -> float:
        return 1.0


class Tunnel:
    """What `_open` gives: accepted or not, ended after a while, with a GOAWAY or without."""

    def __init__(self, lasted: float = 0.0, *, welcomed: bool = True, goaway: dict[str, Any] | None = None) -> None:
        self.lasted = lasted
        self.ready = self.welcomed = welcomed
        self.goaway = goaway
        self.retry_after = float((goaway or {}).get("retry_after", 0.0))
        self.replace = asyncio.Event()
        self.replace.set()
        self.left = False

    def leave(self) -> None:
        self.left = True


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def waits(monkeypatch: pytest.MonkeyPatch, *outcomes: Tunnel | Exception) -> list[float]:
    """The pauses of a keeper whose attempts have these outcomes."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    keeper = Keeper(Agent(), "wss://hub", 0)  # type: ignore[arg-type]
    pauses: list[float] = []
    left = iter(outcomes)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > len(outcomes):
            raise asyncio.CancelledError

    async def attempt() -> Tunnel:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        wait = outcome.replace.wait

        async def later() -> bool:
            clock.now += outcome.lasted
            return await wait()

        outcome.replace.wait = later  # type: ignore[method-assign]
        return outcome

    monkeypatch.setattr(keeper, "_pause", pause)
    monkeypatch.setattr(keeper, "_open", attempt)
    with contextlib.suppress(asyncio.CancelledError):
        await keeper.run()
    return pauses[1:]


async def test_the_first_attempt_is_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper(Agent(), "wss://hub", 0)  # type: ignore[arg-type]
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr(keeper, "_pause", pause)
    with contextlib.suppress(asyncio.CancelledError):
        await keeper.run()
    assert pauses == [0.0]


async def test_a_hub_that_is_not_there_is_tried_again_soon_however_long_it_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = await waits(monkeypatch, *[Unreachable("no")] * 50)
    assert found[0] == 0.5
    assert max(found) == QUICK_CAP < 2.0


@pytest.mark.parametrize("error", [WSError("no"), ConfigError("no"), TimeoutError(), OSError("tls"), ValueError("bug")])
async def test_something_that_refuses_is_tried_again_ever_more_seldom(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    found = await waits(monkeypatch, *[error] * 10)
    assert found[:5] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert max(found) == SLOW_CAP


async def test_a_tunnel_that_worked_is_replaced_soon_however_often_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(await waits(monkeypatch, *[Tunnel(3.0) for _ in range(20)])) == QUICK_CAP


async def test_a_hub_that_accepts_and_drops_is_tried_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(await waits(monkeypatch, *[Tunnel(0.1) for _ in range(20)])) == SLOW_CAP


async def test_the_hubs_wish_is_a_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    goaway = {"code": frames.NO_ERROR, "retry_after": 4.0}
    assert await waits(monkeypatch, Tunnel(60.0, goaway=goaway)) == [4.5]


@pytest.mark.parametrize("code", [frames.UNAUTHORIZED, frames.SUPERSEDED, frames.VERSION])
@pytest.mark.parametrize("welcomed", [True, False])
async def test_who_is_not_wanted_leaves_and_stays_away(
    monkeypatch: pytest.MonkeyPatch, code: int, welcomed: bool
) -> None:
    tunnel = Tunnel(60.0, welcomed=welcomed, goaway={"code": code, "reason": "no"})
    assert (await waits(monkeypatch, tunnel))[0] >= UNWELCOME_SECONDS
    assert tunnel.left


async def test_the_old_tunnel_is_left_when_the_new_one_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Tunnel(60.0), Tunnel(60.0)
    await waits(monkeypatch, old, Unreachable("no"), new)
    assert old.left
    assert not new.left


async def test_a_tunnel_of_a_draining_replica_is_left_to_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Tunnel(60.0, goaway={"code": frames.NO_ERROR, "retry_after": 1.0})
    await waits(monkeypatch, old, Tunnel(60.0))
    assert not old.left


async def test_a_new_certificate_ends_every_wait() -> None:
    keeper = Keeper(Agent(), "wss://hub", 0)  # type: ignore[arg-type]
    pausing = asyncio.get_running_loop().create_task(keeper._pause(3600.0))
    await asyncio.sleep(0)
    keeper.roll()
    await pausing
