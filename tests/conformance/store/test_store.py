"""Every store keeps the rules of platformctl/hub/store.py."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from platformctl.access.tokens import ClientToken, JoinToken
from platformctl.errors import Conflict
from platformctl.hub.store import CaMaterial, Replica, SatelliteRecord, Store, update_satellite

Opener = Callable[[], Store]


@pytest.fixture
def racing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    name = "racing"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("racing.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def join_token(id: str = "jt-1", created: float = 100.0, **fields: object) -> JoinToken:
    return replace(JoinToken(id, "d" * 64, "edge-1", {"region": "eu"}, created, created + 900), **fields)


def satellite(name: str = "edge-1", **fields: object) -> SatelliteRecord:
    return replace(SatelliteRecord(name, {"region": "eu"}, "active", "sha256:ab", ("1f",), 100.0), **fields)


def replica(id: str = "hub-1", seen_at: float = 100.0, public_url: str = "https://hub.test") -> Replica:
    return Replica(id, "wss://hub.test:7443", public_url, "http://127.0.0.1:9090/metrics", seen_at)


def material(name: str = "one") -> CaMaterial:
    return CaMaterial(f"certificate {name}\n".encode(), f"key {name}\n".encode())


def never() -> CaMaterial:
    raise AssertionError("there is a CA already")


# ------------------------------------------------------------------------------------------------------------------ CA


def test_the_ca_is_made_once_and_kept(store: Store, other: Store, opener: Opener) -> None:
    assert store.get_or_create_ca(material) == material()
    assert other.get_or_create_ca(never) == material()
    third = opener()
    assert third.get_or_create_ca(never) == material()
    third.close()


def test_a_ca_that_could_not_be_made_leaves_nothing_behind(store: Store, other: Store) -> None:
    before = store.version()
    with pytest.raises(ZeroDivisionError):
        store.get_or_create_ca(lambda: material(str(1 // 0)))
    assert store.version() == before
    assert other.get_or_create_ca(lambda: material("two")) == material("two")


def test_processes_that_start_together_get_one_ca(opener: Opener, racing: ModuleType, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    keys = racing.race(racing.creating_ca(calls), opener)
    assert len(keys) == 4
    [winner] = [int(file.name) for file in calls.iterdir()]
    assert set(keys) == {b"key of %d" % winner}


# --------------------------------------------------------------------------------------------------------- join tokens


def test_join_tokens_are_kept_with_all_their_fields(store: Store, other: Store) -> None:
    first, second = join_token("jt-b", 100.0), join_token("jt-a", 200.0, labels={})
    store.put_join_token(second)
    store.put_join_token(first)
    assert other.get_join_token("jt-b") == first
    assert other.list_join_tokens() == [first, second]
    assert other.get_join_token("jt-c") is None


def test_an_id_is_given_once(store: Store) -> None:
    store.put_join_token(join_token())
    with pytest.raises(Conflict, match="jt-1 exists already"):
        store.put_join_token(join_token(digest="e" * 64))
    assert store.get_join_token("jt-1") == join_token()


def test_a_deleted_join_token_is_gone(store: Store, other: Store) -> None:
    store.put_join_token(join_token())
    assert other.delete_join_token("jt-1")
    assert not store.delete_join_token("jt-1")
    assert not store.consume_join_token("jt-1", 101.0)
    assert store.list_join_tokens() == []


def test_a_join_token_is_consumed_once(store: Store, other: Store) -> None:
    store.put_join_token(join_token())
    assert store.consume_join_token("jt-1", 101.0)
    assert not other.consume_join_token("jt-1", 101.0)
    assert other.get_join_token("jt-1") == join_token(used_at=101.0)


def test_an_expired_join_token_is_not_consumed(store: Store) -> None:
    store.put_join_token(join_token())
    assert not store.consume_join_token("jt-1", 1000.0)
    assert store.get_join_token("jt-1") == join_token()
    assert not store.consume_join_token("jt-none", 100.0)


def test_one_of_many_processes_consumes_each_token(store: Store, opener: Opener, racing: ModuleType) -> None:
    for n in range(50):
        store.put_join_token(join_token(f"jt-{n}", 500.0))
    results = racing.race(racing.consume_all, opener)
    assert [sum(wins) for wins in zip(*results, strict=True)] == [1] * 50


def test_one_of_many_threads_consumes_each_token(store: Store) -> None:
    for n in range(50):
        store.put_join_token(join_token(f"jt-{n}", 500.0))
    won: list[int] = []
    threads = [
        threading.Thread(target=lambda: won.extend(n for n in range(50) if store.consume_join_token(f"jt-{n}", 600.0)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(won) == Counter(range(50))


# ------------------------------------------------------------------------------------------------------- client tokens


def test_client_tokens_are_kept_listed_and_deleted(store: Store, other: Store) -> None:
    first = ClientToken("ct-b", "d" * 64, "alice", ("admins", "users"), 100.0)
    second = ClientToken("ct-a", "e" * 64, "bob", (), 200.0, 300.0)
    store.put_client_token(second)
    store.put_client_token(first)
    assert other.list_client_tokens() == [first, second]
    with pytest.raises(Conflict):
        other.put_client_token(first)
    assert other.delete_client_token("ct-b")
    assert not store.delete_client_token("ct-b")
    assert store.list_client_tokens() == [second]


def test_tokens_of_two_kinds_may_have_one_id(store: Store) -> None:
    store.put_join_token(join_token("same"))
    store.put_client_token(ClientToken("same", "d" * 64, "alice", (), 100.0))
    assert store.delete_client_token("same")
    assert store.get_join_token("same") is not None


# ---------------------------------------------------------------------------------------------------------- satellites


def test_satellites_are_kept_by_name(store: Store, other: Store) -> None:
    b, a = store.put_satellite(satellite("b")), store.put_satellite(satellite("a", state="pending", serials=()))
    assert other.list_satellites() == [a, b]
    assert other.get_satellite("b") == b
    assert replace(b, generation=0) == satellite("b")
    assert other.get_satellite("c") is None


def test_an_outdated_record_is_not_written_back(store: Store, other: Store) -> None:
    first = store.put_satellite(satellite())
    second = other.put_satellite(first.with_serial("2f"))
    assert second.generation > first.generation
    for outdated in (first, satellite()):
        with pytest.raises(Conflict, match="changed meanwhile"):
            store.put_satellite(outdated)
    assert store.get_satellite("edge-1") == second


def test_a_renewal_that_was_under_way_does_not_undo_a_revocation(store: Store, other: Store) -> None:
    read = store.put_satellite(satellite())
    assert other.revoke_satellite("edge-1")
    with pytest.raises(Conflict):
        store.put_satellite(read.with_serial("2f"))
    revoked = store.get_satellite("edge-1")
    assert revoked is not None
    assert revoked.state == "revoked"
    assert not revoked.accepts("1f")


def test_a_certificate_from_before_a_revocation_does_not_come_back(store: Store) -> None:
    store.put_satellite(satellite())
    store.revoke_satellite("edge-1")
    again = update_satellite(store, "edge-1", lambda r: replace(r or satellite(), state="active").with_serial("2f"))
    assert again.accepts("2f")
    assert not again.accepts("1f")


def test_nobody_can_revoke_what_does_not_exist(store: Store) -> None:
    before = store.version()
    assert not store.revoke_satellite("edge-1")
    assert not store.delete_satellite("edge-1")
    assert store.version() == before


def test_a_name_that_comes_again_has_a_new_generation(store: Store) -> None:
    first = store.put_satellite(satellite())
    assert store.delete_satellite("edge-1")
    second = store.put_satellite(satellite())
    assert second.generation > first.generation
    with pytest.raises(Conflict):
        store.put_satellite(first)


def test_one_of_many_processes_creates_a_satellite(opener: Opener, racing: ModuleType) -> None:
    results = racing.race(racing.create_satellites, opener)
    assert [sum(wins) for wins in zip(*results, strict=True)] == [1] * 20


def test_no_change_of_many_processes_is_lost(store: Store, opener: Opener, racing: ModuleType) -> None:
    store.put_satellite(satellite("sat-0", labels={}))
    racing.race(racing.add_labels, opener)
    found = store.get_satellite("sat-0")
    assert found is not None
    assert set(found.labels) == {f"p{p}-{n}" for p in range(4) for n in range(5)}


def test_an_update_starts_again_when_someone_else_was_faster(store: Store, other: Store) -> None:
    store.put_satellite(satellite(labels={}))
    faster = iter([True, False])

    def change(record: SatelliteRecord | None) -> SatelliteRecord:
        assert record is not None
        if next(faster):
            other.put_satellite(replace(record, labels={"theirs": "x"}))
        return replace(record, labels={**record.labels, "ours": "x"})

    assert update_satellite(store, "edge-1", change).labels == {"theirs": "x", "ours": "x"}


def test_an_update_that_always_loses_gives_up(store: Store, other: Store) -> None:
    store.put_satellite(satellite())

    def change(record: SatelliteRecord | None) -> SatelliteRecord:
        assert record is not None
        other.put_satellite(record)
        return record

    with pytest.raises(Conflict, match="in a row"):
        update_satellite(store, "edge-1", change)


# ------------------------------------------------------------------------------------------------ replicas and settings


def test_replicas_are_seen_until_they_fall_silent(store: Store, other: Store) -> None:
    store.heartbeat(replica("hub-2", 100.0))
    other.heartbeat(replica("hub-1", 105.0))
    assert [r.id for r in store.list_replicas(seen_since=100.0)] == ["hub-1", "hub-2"]
    assert store.list_replicas(seen_since=101.0) == [replica("hub-1", 105.0)]
    store.heartbeat(replica("hub-2", 110.0))
    assert [r.id for r in other.list_replicas(seen_since=101.0)] == ["hub-1", "hub-2"]
    assert other.remove_replica("hub-2")
    assert not store.remove_replica("hub-2")
    assert [r.id for r in store.list_replicas(seen_since=0.0)] == ["hub-1"]


def test_settings_are_kept_and_replaced(store: Store, other: Store) -> None:
    assert store.get_setting("policy") is None
    store.put_setting("policy", "rules: []\n# é\n")
    other.put_setting("empty", "")
    assert other.get_setting("policy") == "rules: []\n# é\n"
    store.put_setting("policy", "new")
    assert other.get_setting("policy") == "new"
    assert store.get_setting("empty") == ""


# -------------------------------------------------------------------------------------------------------------- version


CHANGES: dict[str, Callable[[Store], object]] = {
    "CA": lambda s: s.get_or_create_ca(material),
    "join token": lambda s: s.put_join_token(join_token("jt-new", 100.0)),
    "join token used": lambda s: s.consume_join_token("jt-1", 101.0),
    "join token deleted": lambda s: s.delete_join_token("jt-1"),
    "client token": lambda s: s.put_client_token(ClientToken("ct-new", "d" * 64, "bob", (), 100.0)),
    "client token deleted": lambda s: s.delete_client_token("ct-1"),
    "satellite": lambda s: s.put_satellite(satellite("new")),
    "satellite revoked": lambda s: s.revoke_satellite("edge-1"),
    "satellite deleted": lambda s: s.delete_satellite("edge-1"),
    "replica": lambda s: s.heartbeat(replica("hub-2")),
    "replica moved": lambda s: s.heartbeat(replica(public_url="https://elsewhere.test")),
    "replica removed": lambda s: s.remove_replica("hub-1"),
    "setting": lambda s: s.put_setting("policy", "new"),
}
QUIET: dict[str, Callable[[Store], object]] = {
    "heartbeat": lambda s: s.heartbeat(replica(seen_at=200.0)),
    "nothing deleted": lambda s: s.delete_join_token("jt-none"),
    "nothing consumed": lambda s: s.consume_join_token("jt-1", 5000.0),
    "reading": lambda s: (s.list_satellites(), s.get_setting("policy"), s.list_replicas(seen_since=0.0)),
}


def _fill(store: Store) -> None:
    store.put_join_token(join_token())
    store.put_client_token(ClientToken("ct-1", "d" * 64, "alice", (), 100.0))
    store.put_satellite(satellite())
    store.heartbeat(replica())


@pytest.mark.parametrize("change", CHANGES)
def test_the_version_grows_with_each_change_for_everybody(store: Store, other: Store, change: str) -> None:
    _fill(store)
    before = other.version()
    assert store.version() == before
    CHANGES[change](store)
    assert other.version() > before
    assert store.version() == other.version()


@pytest.mark.parametrize("quiet", QUIET)
def test_the_version_stays_when_nothing_new_was_said(store: Store, other: Store, quiet: str) -> None:
    _fill(store)
    before = other.version()
    QUIET[quiet](store)
    assert other.version() == before


def test_no_change_of_many_processes_is_missed(store: Store, opener: Opener, racing: ModuleType) -> None:
    before = store.version()
    racing.race(racing.move_version, opener)
    assert store.version() >= before + 100


def test_secrets_are_in_no_repr(store: Store) -> None:
    store.put_join_token(join_token())
    found = store.get_or_create_ca(material)
    assert "key one" not in repr(found)
    assert "d" * 64 not in repr(store.list_join_tokens())
