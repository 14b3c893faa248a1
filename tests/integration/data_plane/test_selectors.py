"""Requests that name labels and no satellite: choice, failover, ejection and return, and satellites that die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter

import pytest

from tests.integration.data_plane.conftest import Platform, running
from tests.integration.data_plane.peers import Answer, Peer, ok, serving, until

pytestmark = pytest.mark.integration

ONE = serving(ok(b"sat-1"))
TWO = serving(ok(b"sat-2"))


def request(platform: Platform, selector: str = "", method: str = "GET", service: str = "fleet") -> bytes:
    fields = [f"Platform-Service: {service}", *([f"Platform-Selector: {selector}"] if selector else [])]
    length = ["Content-Length: 0"] if method == "POST" else []
    lines = [f"{method} /where HTTP/1.1", "Host: hub.test", platform.auth.strip(), *fields, *length]
    return "\r\n".join([*lines, "", ""]).encode()


async def asked(platform: Platform, count: int, selector: str = "", method: str = "GET") -> list[Answer]:
    answers = []
    async with await platform.connect() as peer:
        for _ in range(count):
            await peer.send(request(platform, selector, method))
            answers.append(await peer.answer())
    return answers


async def refuse(peer: Peer) -> None:
    await peer.request()
    peer.cut()


async def test_labels_choose_the_satellite_and_without_them_all_share(platform: Platform) -> None:
    async with platform.backend("fleet", ONE), platform.backend("fleet@2", TWO):
        assert {answer.body for answer in await asked(platform, 10, "region=eu")} == {b"sat-1"}
        assert {answer.body for answer in await asked(platform, 10, "region=us")} == {b"sat-2"}
        shares = Counter(answer.body for answer in await asked(platform, 60))
        assert min(shares[b"sat-1"], shares[b"sat-2"]) > 10


@pytest.mark.parametrize(
    ("selector", "status", "code"),
    [("region=mars", 503, "selector-no-match"), ("=", 400, "selector-invalid")],
)
async def test_labels_that_match_nothing_say_so(platform: Platform, selector: str, status: int, code: str) -> None:
    answer = (await asked(platform, 1, selector))[0]
    assert (answer.status, json.loads(answer.body)["code"]) == (status, code)


async def test_the_busier_satellite_gets_less(platform: Platform) -> None:
    async def stuck(peer: Peer) -> None:
        await peer.request()
        await peer.closed()

    async with (
        platform.backend("fleet", stuck, ONE),
        platform.backend("fleet@2", TWO),
        await platform.connect() as busy,
    ):
        await busy.send(request(platform, "region=eu"))
        await asyncio.sleep(0.1)
        assert {answer.body for answer in await asked(platform, 20)} == {b"sat-2"}


async def returned(platform: Platform) -> None:
    """No satellite is left out any more; the tests share the platform."""
    url = platform.env["metrics_urls"][0]

    def ejected() -> bool:
        return any(v for k, v in platform.metrics(url).items() if k.startswith("platformctl_service_ejected{"))

    await until(lambda: not ejected(), 25)


async def test_a_satellite_that_keeps_failing_is_left_out_and_comes_back(platform: Platform) -> None:
    url = platform.env["metrics_urls"][0]
    name = 'platformctl_service_ejected{satellite="sat-2",service="fleet"}'
    await returned(platform)
    async with platform.backend("fleet", ONE), platform.backend("fleet@2", refuse) as failing:
        for _ in range(60):
            await asked(platform, 1)
            if platform.metrics(url)[name]:
                break
        else:
            pytest.fail("never ejected")
        began = time.monotonic()
        before = failing.connections
        assert {answer.body for answer in await asked(platform, 20)} == {b"sat-1"}
        assert failing.connections == before
        # Its labels leave no choice: then it is asked all the same.
        assert (await asked(platform, 1, "region=us"))[0].status == 502
    async with platform.backend("fleet", ONE), platform.backend("fleet@2", TWO):
        await returned(platform)
        assert time.monotonic() - began > 2
        assert {answer.body for answer in await asked(platform, 40)} == {b"sat-1", b"sat-2"}


async def test_a_get_goes_elsewhere_when_a_backend_is_not_there_and_so_does_a_post(platform: Platform) -> None:
    async with platform.backend("fleet", ONE):
        for method in ("GET", "POST"):
            # Nobody listens at sat-2: the request reached no backend, so any method may try again.
            answers = await asked(platform, 4, method=method)
            assert {(answer.status, answer.body) for answer in answers} == {(200, b"sat-1")}


async def test_what_may_have_had_an_effect_is_not_tried_again(platform: Platform) -> None:
    async with platform.backend("fleet", ONE), platform.backend("fleet@2", refuse):
        answers = await asked(platform, 4)
        assert {(answer.status, answer.body) for answer in answers} == {(200, b"sat-1")}
    async with platform.backend("fleet@2", refuse) as refusing:
        answer = (await asked(platform, 1, "region=us", method="POST"))[0]
        assert (answer.status, json.loads(answer.body)["code"]) == (502, "backend-failed")
        assert refusing.connections == 1


async def test_good_answers_between_keep_a_satellite_in(platform: Platform) -> None:
    url = platform.env["metrics_urls"][0]
    name = 'platformctl_service_ejections_total{satellite="sat-2",service="fleet"}'

    async def one_in_three(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.send(ok(b"sat-2"))
        await peer.request()
        await peer.send(ok(b"no", status="503 Service Unavailable"))

    await returned(platform)
    async with platform.backend("fleet@2", one_in_three):
        before = platform.metrics(url)[name]
        answers = await asked(platform, 18, "region=us")
        assert Counter(answer.status for answer in answers) == {200: 12, 503: 6}
        assert platform.metrics(url)[name] == before


async def test_a_full_satellite_hands_over_to_one_with_room(platform: Platform) -> None:
    go = asyncio.Event()

    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await go.wait()
            await peer.send(ok())

    async with (
        platform.backend("crowd", slow),
        platform.backend("crowd@2", slow),
        await platform.connect() as one,
        await platform.connect() as two,
    ):
        await one.send(request(platform, service="crowd"))
        await asyncio.sleep(0.1)
        await two.send(request(platform, service="crowd"))
        await asyncio.sleep(0.1)
        full = await platform.ask(request(platform, service="crowd"))
        assert (full.status, json.loads(full.body)["code"]) == (503, "overloaded")
        assert full.head.get("retry-after")
        go.set()
        assert (await one.answer()).status == (await two.answer()).status == 200


@pytest.mark.slow
async def test_a_killed_satellite_costs_no_get_and_returns(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("killed")) as platform:
        async with platform.backend("fleet", ONE), platform.backend("fleet@2", TWO):
            assert {answer.body for answer in await asked(platform, 40)} == {b"sat-1", b"sat-2"}
            stop = asyncio.Event()

            async def load() -> Counter[tuple[int, bytes]]:
                seen: Counter[tuple[int, bytes]] = Counter()
                async with await platform.connect() as peer:
                    while not stop.is_set():
                        await peer.send(request(platform))
                        answer = await peer.answer()
                        seen[answer.status, answer.body if answer.status == 200 else b""] += 1
                return seen

            tasks = [asyncio.create_task(load()) for _ in range(4)]
            await asyncio.sleep(0.3)
            os.kill(platform.env["pids"]["satellites"]["sat-2"], signal.SIGKILL)
            await asyncio.sleep(0.5)
            assert {answer.body for answer in await asked(platform, 40)} == {b"sat-1"}
            gone = (await asked(platform, 1, "region=us"))[0]
            assert gone.status == 503
            direct = (
                request(platform).replace(b"/where", b"/s/sat-2/fleet/", 1).replace(b"Platform-Service: fleet\r\n", b"")
            )
            answer = await platform.ask(direct)
            assert (answer.status, json.loads(answer.body)["code"]) == (503, "satellite-disconnected")
            assert answer.head.get("retry-after")
            stop.set()
            seen = sum((await asyncio.gather(*tasks)), Counter())
            assert {status for status, _ in seen} == {200}
            await asyncio.to_thread(
                platform.run, "up", "--state", str(platform.state), "-f", str(platform.state.parent / "topology.yaml")
            )
            assert {answer.body for answer in await asked(platform, 40)} == {b"sat-1", b"sat-2"}
