from __future__ import annotations

import os

import pytest

from platformctl.access.identity import Identity
from platformctl.access.policy_file import load_policy
from platformctl.access.tokens import ENTROPY_BYTES, ClientToken, ClientTokens, mint_client_token
from platformctl.hub.front import Caller, Front
from platformctl.hub.plan import Plan, Refusal
from platformctl.net.deadlines import Deadlines
from platformctl.net.http1 import ServerOptions
from platformctl.routing.addressing import Addressing
from platformctl.routing.registry import Registry
from platformctl.routing.spec import Limits, ServiceSpec
from platformctl.wire.heads import parse_request

POLICY = """
apiVersion: platformctl.io/v1alpha1
kind: AccessPolicy
metadata: {name: test}
rules:
  - {name: all, subjects: ["*"], satellites: ["*"], services: ["*"]}
"""
CALLER = Caller("192.0.2.7", False, False)


class Tunnel:
    inflight = 0
    lane = 0
    draining = False


class World:
    """A front with one service, and the clocks that it reads."""

    def __init__(self, *records: ClientToken, limits: Limits | None = None) -> None:
        self.now = 1000.0
        registry = Registry()
        lease, _ = registry.attach("sat-1", "instance", {}, Tunnel())
        registry.register(lease, [ServiceSpec("web", limits=limits or Limits())])
        endpoint = registry.endpoint("sat-1", "web")
        assert endpoint is not None
        self.endpoint = endpoint
        self.front = Front(
            addressing=Addressing("hub.test"),
            registry=registry,
            options=ServerOptions(Deadlines(lambda: self.now)),
            clock=lambda: self.now,
            wall=lambda: self.now,
            known=lambda name: {},
            audit=None,
            count_decision=lambda allowed: None,
            count_local=lambda status: None,
            suspicious=lambda endpoint, what: None,
        )
        self.front.set_access(load_policy([("policy", POLICY)]), ClientTokens(records))

    def resolve(self, token: str, *fields: str, caller: Caller = CALLER) -> Plan:
        lines = ["GET /s/sat-1/web/ HTTP/1.1", "Host: hub.test", f"Authorization: Bearer {token}", *fields, "", ""]
        plan = self.front.resolve(caller, parse_request("\r\n".join(lines).encode()), b"id")
        assert isinstance(plan, Plan)
        return plan


def minted(ttl: float | None) -> tuple[str, ClientToken]:
    return mint_client_token(os.urandom(ENTROPY_BYTES), "alice", (), now=1000.0, ttl_seconds=ttl)


def test_a_token_that_expires_ends_what_was_worked_out_with_it() -> None:
    text, record = minted(10.0)
    world = World(record)
    plan = world.resolve(text)
    assert plan.identity == Identity("token", "alice")
    world.now = 1009.0
    world.front.expire_queues(world.now)
    assert plan.generation == world.front.generation
    world.now = 1011.0
    world.front.expire_queues(world.now)
    assert plan.generation != world.front.generation
    with pytest.raises(Refusal) as refused:
        world.resolve(text)
    assert refused.value.status == 401


def test_a_token_without_an_end_keeps_its_plans() -> None:
    text, record = minted(None)
    world = World(record)
    plan = world.resolve(text)
    for _ in range(3):
        world.now += 100_000.0
        world.front.expire_queues(world.now)
    assert plan.generation == world.front.generation


class Waiter:
    """Fails as soon as it is let in, and so lets in the next one."""

    def __init__(self, world: World, log: list[int], number: int) -> None:
        self._world, self._log, self._number = world, log, number

    def admitted(self) -> None:
        self._log.append(self._number)
        self._world.front.leave(self._world.endpoint)


def test_a_long_queue_that_fails_at_once_is_a_loop_and_keeps_its_order() -> None:
    world = World(limits=Limits(concurrency=1, queue=5000, queue_timeout=60.0))
    gate = world.endpoint.gate
    assert gate.try_enter()
    log: list[int] = []
    for number in range(5000):
        assert gate.enqueue(Waiter(world, log, number), world.now)
    world.front.leave(world.endpoint)
    assert log == list(range(5000))
    assert (gate.active, gate.waiting) == (0, 0)


def test_a_waiter_that_breaks_does_not_stop_the_others() -> None:
    class Broken(Waiter):
        def admitted(self) -> None:
            super().admitted()
            raise RuntimeError("a bug")

    world = World(limits=Limits(concurrency=1, queue=10, queue_timeout=60.0))
    gate = world.endpoint.gate
    assert gate.try_enter()
    log: list[int] = []
    assert gate.enqueue(Broken(world, log, 1), world.now)
    with pytest.raises(RuntimeError):
        world.front.leave(world.endpoint)
    assert gate.try_enter()
    assert gate.enqueue(Waiter(world, log, 2), world.now)
    world.front.leave(world.endpoint)
    assert log == [1, 2]


def test_all_lines_of_a_trusted_proxy_are_believed() -> None:
    text, record = minted(None)
    world = World(record)
    lines = ["X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.9, 10.0.0.1"]
    trusted = world.resolve(text, *lines, caller=Caller("10.0.0.2", False, True))
    assert b"X-Forwarded-For: 198.51.100.1, 203.0.113.9, 10.0.0.1, 10.0.0.2\r\n" in trusted.head
    assert b"X-Forwarded-For: 192.0.2.7\r\n" in world.resolve(text, *lines).head


def test_an_upgrade_is_ignored_when_a_body_comes_with_it() -> None:
    text, record = minted(None)
    world = World(record)
    upgrade = ("Connection: upgrade", "Upgrade: foo")
    with_body = world.resolve(text, *upgrade, "Content-Length: 3")
    assert (with_body.raw, with_body.upgrade, b"Upgrade" in with_body.head) == (False, b"", False)
    without = world.resolve(text, *upgrade)
    assert (without.raw, without.upgrade, b"Upgrade: foo\r\n" in without.head) == (True, b"foo", True)
