"""Policy, tokens and satellites of a replica, from a real store and a real file."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from platformctl.access.policy import Policy
from platformctl.access.tokens import ENTROPY_BYTES, ClientTokens, mint_client_token
from platformctl.errors import AccessDenied, ConfigError, StoreError
from platformctl.hub.access_source import AccessSource
from platformctl.hub.store import SatelliteRecord
from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.net.tls import PeerIdentity

POLICY = """
apiVersion: platformctl.io/v1alpha1
kind: AccessPolicy
metadata: {name: test}
rules:
  - {name: everybody, subjects: ["*"], satellites: ["*"], services: ["*"]}
"""


class Seen:
    """What the source told."""

    def __init__(self) -> None:
        self.access: list[tuple[Policy, ClientTokens]] = []
        self.satellites = 0

    def on_access(self, policy: Policy, tokens: ClientTokens) -> None:
        self.access.append((policy, tokens))

    def on_satellites(self) -> None:
        self.satellites += 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "hub.db") as opened:
        yield opened


@pytest.fixture
def seen() -> Seen:
    return Seen()


def made(store: SQLiteStore, seen: Seen, policy: Path | None = None) -> AccessSource:
    source = AccessSource(store, policy, "hub.example", on_access=seen.on_access, on_satellites=seen.on_satellites)
    source.load()
    return source


def follow(source: AccessSource, store: SQLiteStore) -> bool:
    """One poll; whether anything was read."""
    snapshot = source.read(store)
    if snapshot is not None:
        source.apply(snapshot)
    return snapshot is not None


def record(name: str = "edge-1", **more: Any) -> SatelliteRecord:
    return replace(SatelliteRecord(name, {}, "active", "", ("a1",), 0.0), **more)


def peer(name: str = "edge-1", serial: str = "a1", **more: Any) -> PeerIdentity:
    identity = PeerIdentity("", "hub.example", "satellite", name, serial, "", datetime(2030, 1, 1, tzinfo=UTC))
    return replace(identity, **more)


def test_nothing_is_read_while_the_store_does_not_change(store: SQLiteStore, seen: Seen) -> None:
    source = made(store, seen)
    assert not follow(source, store)
    store.put_satellite(record())
    assert follow(source, store)
    assert not follow(source, store)


def test_only_what_can_make_a_decision_wrong_is_told(store: SQLiteStore, seen: Seen) -> None:
    source = made(store, seen)
    assert (len(seen.access), seen.satellites) == (1, 0)
    store.put_setting("presence/hub-2", "{}")
    follow(source, store)
    assert (len(seen.access), seen.satellites) == (1, 0)
    joined = store.put_satellite(record())
    follow(source, store)
    assert (len(seen.access), seen.satellites) == (2, 1)
    renewed = store.put_satellite(joined.with_serial("b2"))
    follow(source, store)
    assert (len(seen.access), seen.satellites) == (2, 2)
    store.put_satellite(replace(renewed, labels={"region": "eu"}))
    follow(source, store)
    assert (len(seen.access), seen.satellites) == (3, 3)
    store.put_client_token(mint_client_token(secrets.token_bytes(ENTROPY_BYTES), "ci", [], now=0.0)[1])
    follow(source, store)
    assert (len(seen.access), seen.satellites) == (4, 3)


def test_a_satellite_may_connect_from_its_join_to_its_revocation(store: SQLiteStore, seen: Seen) -> None:
    source = made(store, seen)
    with pytest.raises(AccessDenied):
        source.authenticate(peer())
    store.put_satellite(record(labels={"region": "eu"}))
    source.authenticate(peer())  # before the next poll
    assert source.active_labels("edge-1") == source.labels("edge-1") == {"region": "eu"}
    assert source.active() == ["edge-1"]
    assert source.accepts("edge-1", "a1")
    assert not source.accepts("edge-1", "b2")
    store.revoke_satellite("edge-1")
    with pytest.raises(AccessDenied):
        source.authenticate(peer())
    follow(source, store)
    assert source.active_labels("edge-1") is None
    assert source.active() == []
    assert not source.accepts("edge-1", "a1")


def test_a_satellite_that_joins_while_the_store_is_read_is_not_lost(store: SQLiteStore, seen: Seen) -> None:
    source = made(store, seen)
    store.put_satellite(record("edge-0"))
    snapshot = source.read(store)
    store.put_satellite(record())
    source.authenticate(peer())
    assert snapshot is not None
    source.apply(snapshot)
    assert source.accepts("edge-1", "a1")
    assert follow(source, store)
    assert set(source.satellites) == {"edge-0", "edge-1"}


@pytest.mark.parametrize(
    "wrong",
    [None, peer(kind="client"), peer(trust_domain="other.example"), peer(serial="b2"), peer(name="edge-2")],
    ids=["none", "kind", "trust domain", "serial", "name"],
)
def test_other_certificates_are_denied(store: SQLiteStore, seen: Seen, wrong: PeerIdentity | None) -> None:
    store.put_satellite(record())
    with pytest.raises(AccessDenied):
        made(store, seen).authenticate(wrong)


def test_a_store_that_fails_is_answered_from_memory(
    store: SQLiteStore, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_satellite(record())
    source = made(store, seen)

    def fails(name: str) -> SatelliteRecord:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(store, "get_satellite", fails)
    assert source.authenticate(peer()).name == "edge-1"
    with pytest.raises(AccessDenied):
        source.authenticate(peer("edge-2"))


def test_a_policy_is_loaded_replaced_and_kept_when_its_file_breaks(
    store: SQLiteStore, seen: Seen, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("rules: [")
    with pytest.raises(ConfigError, match=r"policy\.yaml"):
        made(store, seen, file)
    file.write_text(POLICY)
    source = made(store, seen, file)
    former = seen.access[-1][0]
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as broken:
        source.read_policy()
    source.refuse_policy(broken.value)
    assert "policy.yaml" in source.problem
    assert seen.access[-1][0] is former
    file.write_text(POLICY)
    source.apply_policy(source.read_policy())
    assert not source.problem
    assert seen.access[-1][0] is not former
