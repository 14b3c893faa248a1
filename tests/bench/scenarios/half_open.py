"""The network between hub and agent is cut, in real network namespaces: a pulled cable, and packets that vanish.

The platform is set up in the hub's node; its agent is then moved to a node of its own, beside the backend, with the
hub's ports translated to where the agent expects them.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.bench.backend import start_backend
from tests.bench.context import MIB, Bench
from tests.bench.local_platform import LocalPlatform, own_platform, wait_until
from tests.bench.plan import Plan
from tests.bench.processes import BenchError, signal_pid
from tests.bench.procfs import alive, command_of
from tests.bench.rawhttp import Timeline
from tests.bench.results import Bar, Results, at_most
from tests.bench.scenarios.scenario import Scenario
from tests.faults.lab import Lab
from tests.faults.namespaces import unavailable

NAME = "half_open"
_RATE = 40
_HONEST = {502, 503}
_CUTS: dict[str, Callable[[Lab, str], None]] = {"packets vanish": Lab.silence, "link down": Lab.cut}


@dataclass(frozen=True)
class _Scene:
    lab: Lab
    timeline: Timeline


async def measure(bench: Bench, plan: Plan) -> None:
    reason = unavailable()
    if reason is not None:
        bench.say(f"{NAME} IS LEFT OUT: {reason}")
        bench.results.note(NAME, f"left out: {reason}")
        return
    with Lab("hub", "sat-1") as lab:
        async with own_platform(bench.processes, bench.folder, inside=lab["hub"].argv([])) as platform:
            scene = _Scene(lab, await _spread(bench, platform, lab))
            sender = asyncio.create_task(scene.timeline.run())
            try:
                for round_ in range(1, plan.rounds + 1):
                    for cut in list(_CUTS)[: plan.cuts]:
                        bench.add(NAME, cut, "platformctl", round_, await _one(scene, cut))
            finally:
                sender.cancel()


async def _spread(bench: Bench, platform: LocalPlatform, lab: Lab) -> Timeline:
    """Move the agent to its own node, with a backend; returns a client in the hub's node that gets answers."""
    agent = platform.satellite_pids["sat-1"]
    command = command_of(agent)
    signal_pid(agent, signal.SIGTERM)
    await wait_until(lambda: not alive(agent), seconds=20, what="the agent in the hub's node ended")
    ports = json.loads((platform.state / "local.json").read_text())["ports"]
    tunnels = {ports["shared"]["tunnel"], *(own["tunnel"] for own in ports["hubs"].values())}
    lab.share_loopback("sat-1", "hub", tunnels)
    folder = bench.folder / "half-open"
    folder.mkdir(exist_ok=True)
    backend = await start_backend(bench.processes, folder, inside=lab["sat-1"].argv([]), blob_bytes=MIB)
    await bench.processes.start("agent-in-its-node", lab["sat-1"].argv(command))
    await platform.export("web", f"http://127.0.0.1:{backend.web}")
    target = platform.target("web", bench.folder / "half-open.headers")
    timeline = Timeline(target, "/small", _RATE, new_socket=lambda: lab["hub"].inside(socket.socket))
    probe = replace(timeline, per_second=10, answers=[])
    task = asyncio.create_task(probe.run())
    answered = await probe.wait_for(ok=True, since=time.monotonic(), seconds=20)
    task.cancel()
    if answered is None:
        raise BenchError("the agent in its own node was not reached through the hub within 20 s")
    return timeline


async def _one(scene: _Scene, cut: str) -> dict[str, float]:
    await asyncio.sleep(3)
    broken = time.monotonic()
    _CUTS[cut](scene.lab, "sat-1")
    first = await scene.timeline.wait_for(ok=False, since=broken, seconds=40)
    if first is None:
        raise BenchError(f"{cut}: no request failed within 40 s")
    await asyncio.sleep(3)
    returned = time.monotonic()
    scene.lab.heal("sat-1")
    back = await scene.timeline.wait_for(ok=True, since=returned, seconds=60)
    if back is None:
        raise BenchError(f"{cut}: no request was answered within 60 s after the network was back")
    failed = [answer for answer in scene.timeline.since(first.ended) if answer.status != 200]
    return {
        "detected_s": first.ended - broken,
        "slowest_failure_s": max(answer.seconds for answer in failed),
        "returned_s": back.ended - returned,
        "requests": float(len(failed)),
        "errors": float(sum(answer.status not in _HONEST for answer in failed)),
    }


def bars(results: Results) -> list[Bar]:
    judged = []
    for cut in _CUTS:
        for figure, metric, limit in (
            ("found within", "detected_s", 15),
            ("a request fails within", "slowest_failure_s", 1),
            ("routes back within", "returned_s", 2),
        ):
            spread = results.spread(NAME, cut, "platformctl", metric)
            judged.append(at_most(f"{cut}: {figure}", None if spread is None else spread.high, limit, "s"))
    return judged


def estimate(plan: Plan) -> float:
    return 12 + plan.rounds * plan.cuts * 19


SCENARIO = Scenario(
    NAME,
    "The network between hub and agent cut",
    measure,
    bars,
    full=Plan(rounds=2, cuts=len(_CUTS)),
    quick=Plan(cuts=1),
    estimate=estimate,
)
