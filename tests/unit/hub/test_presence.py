"""Replicas on one store: who is seen, for how long, and with what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from platformctl.hub.presence import FORGET_SECONDS, STALE_SECONDS, Presence
from platformctl.hub.store import Replica
from platformctl.hub.store_sqlite import SQLiteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "hub.db") as opened:
        yield opened


def presence(store: SQLiteStore, number: int) -> Presence:
    return Presence(store, Replica(f"hub-{number}", f"wss://hub-{number}", "", "", 0.0))


def test_replicas_see_each_other_and_what_they_hold(store: SQLiteStore) -> None:
    one, two = presence(store, 1), presence(store, 2)
    one.exchange({"sat-1": []}, 1000.0, 50.0)
    seen = two.exchange({"sat-1": [], "sat-2": []}, 1000.0, 7.0)
    assert seen.urls() == [{"id": "hub-1", "url": "wss://hub-1"}, {"id": "hub-2", "url": "wss://hub-2"}]
    assert [seen.connected(name) for name in ("sat-1", "sat-2", "sat-3")] == [2, 1, 0]
    assert seen.others("hub-2").held() == {"sat-1"}
    assert seen.others("hub-2").connected("sat-2") == 0


def test_a_replica_that_falls_silent_is_gone_after_a_while_and_forgotten_later(store: SQLiteStore) -> None:
    one, two = presence(store, 1), presence(store, 2)
    one.exchange({}, 1000.0, 0.0)
    assert len(two.exchange({}, 1000.0, 0.0).replicas) == 2
    assert len(two.exchange({}, 1000.0, STALE_SECONDS - 0.1).replicas) == 2
    assert len(two.exchange({}, 1000.0, STALE_SECONDS).replicas) == 1
    two.exchange({}, 1000.0, FORGET_SECONDS + 1)
    assert [one.id for one in store.list_replicas(seen_since=0.0)] == ["hub-2"]


def test_a_replica_that_comes_back_is_seen_at_once(store: SQLiteStore) -> None:
    one, two = presence(store, 1), presence(store, 2)
    one.exchange({}, 1000.0, 0.0)
    two.exchange({}, 1000.0, 0.0)
    assert len(two.exchange({}, 1060.0, 60.0).replicas) == 1
    one.exchange({}, 1060.0, 60.0)
    assert len(two.exchange({}, 1060.0, 60.0).replicas) == 2


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_replica_whose_clock_is_wrong_is_seen_as_long_as_it_speaks(store: SQLiteStore, skew: float) -> None:
    one, two = presence(store, 1), presence(store, 2)
    counts = []
    for second in range(20):
        one.exchange({}, 1_000_000.0 + skew + second, float(second))
        counts.append(len(two.exchange({}, 1_000_000.0 + second, float(second)).replicas))
    assert set(counts[1:]) == {2}


def test_a_row_from_long_ago_is_no_replica(store: SQLiteStore) -> None:
    presence(store, 1).exchange({"sat-1": []}, 1000.0, 0.0)
    assert [one.id for one in presence(store, 2).exchange({}, 9000.0, 0.0).replicas] == ["hub-2"]


def test_a_replica_that_leaves_is_gone_at_once(store: SQLiteStore) -> None:
    one, two = presence(store, 1), presence(store, 2)
    one.exchange({"sat-1": []}, 1000.0, 0.0)
    one.leave()
    seen = two.exchange({}, 1000.0, 0.0)
    assert [one.id for one in seen.replicas] == ["hub-2"]
    assert not seen.held()


def test_an_instance_that_another_replica_has_retired_is_known(store: SQLiteStore) -> None:
    one, two = presence(store, 1), presence(store, 2)
    one.exchange({"sat-1": ["old"]}, 1000.0, 0.0)
    seen = two.exchange({"sat-2": ["own"]}, 1000.0, 0.0).others("hub-2")
    assert seen.retired("sat-1", "old")
    assert not seen.retired("sat-1", "new")
    assert not seen.retired("sat-2", "own")


def test_a_heartbeat_that_tells_nothing_new_moves_no_version(store: SQLiteStore) -> None:
    one = presence(store, 1)
    one.exchange({"sat-1": []}, 1000.0, 0.0)
    version = store.version()
    one.exchange({"sat-1": []}, 1001.0, 1.0)
    assert store.version() == version


@pytest.mark.parametrize("text", ["[]", "{", '["sat-1"]'])
def test_what_another_version_left_in_the_store_counts_as_nothing(store: SQLiteStore, text: str) -> None:
    presence(store, 1).exchange({}, 1000.0, 0.0)
    store.put_setting("presence/hub-1", text)
    assert not presence(store, 2).exchange({}, 1000.0, 0.0).held()


def test_a_replica_that_does_not_know_its_address_is_not_told_to_agents(store: SQLiteStore) -> None:
    nameless = Presence(store, Replica("hub-1", "", "", "", 0.0))
    seen = nameless.exchange({}, 1000.0, 0.0)
    assert len(seen.replicas) == 1
    assert seen.urls() == []
