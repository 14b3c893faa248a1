"""What a replica does beside requests, with a real store that is broken on purpose."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from platformctl.errors import StoreError
from platformctl.hub import upkeep as module
from platformctl.hub.access_source import AccessSource
from platformctl.hub.config import HubConfig
from platformctl.hub.presence import Presence, Seen
from platformctl.hub.serving import ServingCertificates, load_ca
from platformctl.hub.store import Replica, SatelliteRecord
from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.hub.upkeep import Upkeep

POLICY = """
apiVersion: platformctl.io/v1alpha1
kind: AccessPolicy
metadata: {name: test}
rules:
  - {name: everybody, subjects: ["*"], satellites: ["*"], services: ["*"]}
"""


@dataclass
class Rig:
    """A replica's upkeep; `store` is the other replicas' hand on the same file."""

    upkeep: Upkeep
    access: AccessSource
    store: SQLiteStore
    own: SQLiteStore
    presence: Presence
    holds: dict[str, list[str]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  # it waits for a thread and its store
                await asyncio.sleep(0)

    def seen_at(self) -> float:
        return next(one.seen_at for one in self.store.list_replicas(seen_since=0.0) if one.id == "hub-1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "hub.db") as opened:
        yield opened


@pytest.fixture
async def rig(tmp_path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.0)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    config = HubConfig.from_text("id: hub-1\nstate: .\ndomain: hub.example\nlisteners: {}\n", "hub.yaml", tmp_path)
    own = SQLiteStore(tmp_path / "hub.db")
    access = AccessSource(
        store, policy, "hub.example", on_access=lambda policy, tokens: None, on_satellites=lambda: None
    )
    access.load()
    certificates = ServingCertificates(config, load_ca(store, config))
    made: Rig
    presence = Presence(own, Replica("hub-1", "wss://hub-1", "", "", 0.0))
    upkeep = Upkeep(
        own, access, certificates, holds=lambda: dict(made.holds), on_seen=lambda seen: made.seen.append(seen)
    )
    made = Rig(upkeep, access, store, own, presence)
    for name in ("heartbeat", "version"):
        monkeypatch.setattr(own, name, breakable(made, name, getattr(own, name)))
    await upkeep.appear(presence)
    running = asyncio.get_running_loop().create_task(upkeep.run())
    yield made
    running.cancel()
    await asyncio.wait({running})
    upkeep.close()


def breakable(rig: Rig, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        if name in rig.broken:
            raise StoreError(f"{name} is broken")
        return method(*args)

    return call


async def test_satellites_that_join_elsewhere_are_known_and_get_a_name_in_the_certificate(
    rig: Rig, tmp_path: Path
) -> None:
    rig.store.put_satellite(SatelliteRecord("edge-1", {}, "active", "", ("a1",), 0.0))
    await rig.until(lambda: rig.access.active() == ["edge-1"])
    certificate = tmp_path / "replicas" / "hub-1" / "public.crt"
    before = certificate.read_bytes() if certificate.exists() else b""
    await rig.until(lambda: certificate.exists() and certificate.read_bytes() != before)


async def test_what_the_replica_holds_is_told_to_the_others(rig: Rig) -> None:
    rig.holds["edge-1"] = []
    rig.upkeep.tell()
    await rig.until(lambda: rig.store.get_setting("presence/hub-1") == '{"edge-1": []}')


@pytest.mark.parametrize("operation", ["heartbeat", "version"])
async def test_trouble_with_the_store_is_said_once_and_ends_with_its_cause(
    rig: Rig, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig.broken.add(operation)
    await rig.until(lambda: rig.upkeep.problem == f"{operation} is broken")
    rounds = len(caplog.records)
    for _ in range(20):
        await asyncio.sleep(0)
        assert rig.upkeep.problem
    assert len(caplog.records) == rounds
    rig.broken.clear()
    await rig.until(lambda: not rig.upkeep.problem)


async def test_a_bug_is_logged_and_ends_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(store: SQLiteStore) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(rig.access, "read", fails)
        await rig.until(lambda: any(record.levelno == logging.ERROR for record in caplog.records))
    last = rig.seen_at()
    await rig.until(lambda: rig.seen_at() > last)


async def test_a_replica_that_left_is_not_heard_of_again(rig: Rig) -> None:
    await rig.upkeep.leave()
    await rig.upkeep.leave()
    told = len(rig.seen)
    for _ in range(50):
        await asyncio.sleep(0)
    assert rig.store.list_replicas(seen_since=0.0) == []
    assert len(rig.seen) <= told


async def test_leaving_a_store_that_fails_is_only_logged(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(replica: str) -> bool:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(rig.own, "remove_replica", fails)
    await rig.upkeep.leave()


async def test_a_policy_is_taken_over_and_a_broken_one_is_not(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("rules: [")
    await rig.upkeep.reload_policy()
    assert "policy.yaml" in rig.access.problem
    (tmp_path / "policy.yaml").write_text(POLICY)
    await rig.upkeep.reload_policy()
    assert not rig.access.problem


def test_two_stores_of_a_process_keep_their_locks_when_another_process_comes_and_goes(
    store: SQLiteStore, tmp_path: Path
) -> None:
    """POSIX locks belong to the process: closing any descriptor of the file would drop those of both stores, and the
    visitor, alone as it seems, would delete the log that they write to."""
    visit = (
        "import sys; from pathlib import Path; from platformctl.hub.store_sqlite import SQLiteStore\n"
        "with SQLiteStore(Path(sys.argv[1])) as store: print(store.get_setting('word'))"
    )
    with SQLiteStore(tmp_path / "hub.db") as second:
        for word in ("one", "two", "three"):
            (store if word == "two" else second).put_setting("word", word)
            done = subprocess.run(
                [sys.executable, "-c", visit, str(tmp_path / "hub.db")], capture_output=True, text=True, check=True
            )
            assert done.stdout.strip() == word
            assert store.get_setting("word") == word
