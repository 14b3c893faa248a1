"""Processes are killed, stopped, doubled and moved: what callers see, and how soon all is well again."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from .conftest import Platform, alive, until
from .hostile import enrol
from .load import Load

HONEST = {502, 503}


def load(platform: Platform, replica: int | None = None, per_second: float = 200, path: str = "/") -> Load:
    return Load(platform.url(replica, path=path), platform.token, per_second=per_second, connections=16)


async def test_a_rolling_restart_of_both_replicas_fails_no_request(platform: Platform) -> None:
    async with load(platform, per_second=800).running() as running:
        await asyncio.sleep(0.5)
        for number in range(2):
            pid = platform.hub(number)
            platform.signal(pid, signal.SIGTERM)
            await asyncio.to_thread(platform.ended, pid)
            await asyncio.to_thread(platform.up)
        await asyncio.sleep(0.5)
    assert not running.failed(), running.summary()
    assert len(running.outcomes) > 1000


async def test_a_rolling_restart_loses_no_client_that_connects_anew_for_each_request(platform: Platform) -> None:
    fresh = Load(platform.url(), platform.token, per_second=300, connections=8, fresh=True)
    async with fresh.running() as running:
        await asyncio.sleep(0.5)
        for number in range(2):
            pid = platform.hub(number)
            platform.signal(pid, signal.SIGTERM)
            await asyncio.to_thread(platform.ended, pid)
            await asyncio.to_thread(platform.up)
    assert not running.failed(), running.summary()


async def test_slow_answers_that_are_on_their_way_are_finished_by_a_draining_replica(platform: Platform) -> None:
    url = platform.url(0, path="/slow/1.5")
    answers = [asyncio.to_thread(platform.get, url) for _ in range(5)]
    waiting = asyncio.gather(*answers)
    await asyncio.sleep(0.5)
    platform.signal(platform.hub(0), signal.SIGTERM)
    await asyncio.sleep(0.2)
    ready = platform.ready(0)
    assert (ready.status_code, ready.json()["failed"][0]["name"]) == (503, "draining")
    assert [answer.status_code for answer in await waiting] == [200] * 5


async def test_a_second_signal_ends_a_drain_at_once(platform: Platform) -> None:
    pid = platform.hub(0)
    waiting = asyncio.gather(asyncio.to_thread(platform.get, platform.url(0, path="/slow/8")), return_exceptions=True)
    await asyncio.sleep(0.5)
    platform.signal(pid, signal.SIGTERM)
    await asyncio.sleep(0.5)
    assert alive(pid)
    platform.signal(pid, signal.SIGTERM)
    assert await asyncio.to_thread(platform.ended, pid) < 2.0
    answer = (await waiting)[0]
    assert isinstance(answer, Exception) or answer.status_code == 502


async def test_the_other_replica_serves_on_when_one_is_killed_and_it_is_back_two_seconds_after_it_returns(
    platform: Platform,
) -> None:
    async with load(platform, 1).running() as running:
        platform.signal(platform.hub(0), signal.SIGKILL)
        await asyncio.sleep(1)
        await asyncio.to_thread(platform.up)
        took = await asyncio.to_thread(until, lambda: platform.serving(0), 5, "the killed replica serves again")
        assert took < 2.0
    assert not running.failed(), running.summary()


async def test_all_routes_are_back_within_two_seconds_of_the_only_replica(platform: Platform) -> None:
    for pid in platform.env["pids"]["hub"]:
        platform.signal(pid, signal.SIGKILL)
    await asyncio.sleep(6)  # long enough for the agents' patience to have grown
    config = platform.state / "config" / "hub-1.yaml"
    pid = platform.start(config, "hub", "hub-1")
    try:
        until(lambda: platform.is_ready(0), 10, "the hub is up")
        took = await asyncio.to_thread(until, lambda: platform.serving(0), 5, "the route is back")
        assert took < 2.0
    finally:
        platform.signal(pid, signal.SIGTERM)
        platform.ended(pid)


async def test_a_killed_agent_is_noticed_at_once_and_served_again_at_once(platform: Platform) -> None:
    async with load(platform).running() as running:
        await asyncio.sleep(0.3)
        killed = time.monotonic()
        platform.signal(platform.agent(), signal.SIGKILL)
        first = await running.first(ok=False, since=killed - 0.1, seconds=2)
        assert first.seconds < 1.0
        await asyncio.sleep(1)
        started = time.monotonic()
        platform.start_agent()
        back = await running.first(ok=True, since=started, seconds=5)
        assert back.at + back.seconds - started < 2.5  # the program's own start, half a second, included
        await asyncio.sleep(0.5)
    failed = running.failed()
    assert failed
    assert {one.status for one in failed} <= HONEST, running.summary()
    assert max(one.seconds for one in failed) < 1.0
    assert not [one for one in failed if one.at > back.at + 0.5]


async def test_an_agent_that_is_replaced_by_a_second_one_loses_no_request(platform: Platform) -> None:
    old = platform.agent()
    async with load(platform, per_second=400).running() as running:
        await asyncio.sleep(0.3)
        config = yaml.safe_load((platform.state / "config" / "sat-1.yaml").read_text())
        config["health"]["address"] = "127.0.0.1:0"
        second = platform.state / "config" / "sat-1-again.yaml"
        second.write_text(yaml.safe_dump(config))
        new = platform.start(second, "satellite", "sat-1-again")
        await asyncio.to_thread(until, lambda: instances(platform) == 1 and retired(platform), 10, "the new one serves")
        platform.signal(old, signal.SIGTERM)
        assert await asyncio.to_thread(platform.ended, old) < 5.0
        await asyncio.sleep(0.5)
    assert not running.failed(), running.summary()
    platform.signal(new, signal.SIGTERM)
    assert platform.ended(new) < 5.0


def tunnels(platform: Platform, replica: int, satellite: str = "sat-1") -> list[dict[str, Any]]:
    return [one for one in platform.api("tunnels", replica) if one["satellite"] == satellite]


def instances(platform: Platform) -> int:
    return len({one["instance"] for replica in range(2) for one in tunnels(platform, replica)})


def retired(platform: Platform) -> bool:
    """Whether the platform's own agent has lost its tunnels."""
    log = (platform.state / "log" / "sat-1.log").read_text()
    return "refuses this agent" in log.rpartition('"tunnel up"')[2]


async def test_of_two_agents_with_one_identity_the_newer_serves_and_the_older_stays_away(platform: Platform) -> None:
    config = yaml.safe_load((platform.state / "config" / "sat-1.yaml").read_text())
    config["health"]["address"] = "127.0.0.1:0"
    second = platform.state / "config" / "sat-1-twin.yaml"
    second.write_text(yaml.safe_dump(config))
    first_instance = {one["instance"] for one in tunnels(platform, 0)}
    pid = platform.start(second, "satellite", "sat-1-twin")
    try:
        until(lambda: instances(platform) == 1 and retired(platform), 12, "one of them has all tunnels")
        newer = {one["instance"] for one in tunnels(platform, 0)}
        assert not newer & first_instance
        seen = {one["id"] for replica in range(2) for one in tunnels(platform, replica)}
        for _ in range(30):  # no ping-pong: these very tunnels stay
            await asyncio.sleep(0.1)
            assert {one["id"] for replica in range(2) for one in tunnels(platform, replica)} == seen
            assert platform.serving(0)
        # A replica that starts anew knows nothing of the older one, but its neighbour does.
        platform.signal(platform.hub(0), signal.SIGTERM)
        await asyncio.to_thread(platform.ended, platform.hub(0))
        await asyncio.to_thread(platform.up)
        assert {one["instance"] for one in tunnels(platform, 0)} == newer
    finally:
        platform.signal(pid, signal.SIGTERM)
        platform.ended(pid)
        # The older one may come back now; it does within its half minute, and the test does not wait for that.
        platform.signal(platform.agent(), signal.SIGKILL)
        platform.ended(platform.agent())


async def test_an_agent_that_is_asked_to_stop_finishes_what_it_has_begun(platform: Platform) -> None:
    pid = platform.agent()
    waiting = asyncio.gather(*(asyncio.to_thread(platform.get, platform.url(path="/slow/1.5")) for _ in range(5)))
    big = asyncio.to_thread(platform.get, platform.url(path="/bytes/50000000"))
    reading = asyncio.get_running_loop().create_task(big)
    await asyncio.sleep(0.3)
    platform.signal(pid, signal.SIGTERM)
    assert [answer.status_code for answer in await waiting] == [200] * 5
    assert len((await reading).content) == 50_000_000
    assert await asyncio.to_thread(platform.ended, pid) < 5.0
    assert platform.get(platform.url()).status_code == 503


async def test_agents_connect_to_a_replica_that_was_added_and_forget_one_that_was_taken_away(
    platform: Platform,
) -> None:
    async with load(platform, 1).running() as running:
        await asyncio.to_thread(platform.up, 3)
        assert all(platform.serving(2, name) for name in ("sat-1", "sat-2"))
        assert {one["expected"] for one in platform.api("satellites")} == {3}
        await asyncio.to_thread(platform.up, 2)
        took = await asyncio.to_thread(
            until, lambda: {one["expected"] for one in platform.api("satellites")} == {2}, 5, "two are expected"
        )
        assert took < 2.0
    assert not running.failed(), running.summary()


async def test_new_certificate_files_roll_the_tunnels_and_lose_no_request(platform: Platform, tmp_path: Path) -> None:
    identity = platform.state / "satellites" / "sat-1"
    before = {one["id"] for replica in range(2) for one in tunnels(platform, replica)}
    renewed = enrol(platform.state / "hub", "sat-1", tmp_path / "renewed")
    async with load(platform, per_second=400).running() as running:
        await asyncio.sleep(0.3)
        for name in ("identity.key", "identity.crt"):  # not at once, as it would be in a mounted Secret
            shutil.copy(renewed / name, identity / name)
            await asyncio.sleep(0.2)

        def rolled() -> bool:
            now = {one["id"] for replica in range(2) for one in tunnels(platform, replica)}
            return len(now) == 2 and not now & before

        await asyncio.to_thread(until, rolled, 5, "all tunnels are new ones")
        await asyncio.sleep(0.3)
    assert not running.failed(), running.summary()


async def test_a_slow_reader_slows_nobody_else_on_the_tunnel(platform: Platform) -> None:
    parts = urlsplit(platform.url(0, path="/bytes/200000000"))
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {platform.token}\r\n\r\n"
    slow = [socket.create_connection((parts.hostname, parts.port)) for _ in range(5)]
    try:
        for each in slow:
            each.sendall(request.encode())
        async with load(platform, 0).running() as running:
            await asyncio.sleep(2)
        assert not running.failed(), running.summary()
        times = sorted(one.seconds for one in running.outcomes)
        assert times[len(times) * 99 // 100] < 0.25
    finally:
        for each in slow:
            each.close()


async def test_a_storm_of_restarts_leaves_all_routes_back_within_two_seconds(platform: Platform) -> None:
    for _ in range(3):
        pid = platform.hub(0)
        platform.signal(pid, signal.SIGKILL)
        await asyncio.to_thread(platform.ended, pid)
        await asyncio.to_thread(platform.up)
    took = await asyncio.to_thread(until, platform.whole, 5, "every satellite is served by every replica")
    assert took < 2.0
