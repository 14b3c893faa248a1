"""What only a file can get wrong: modes, full and read-only disks, damage, other versions, locks, killed processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from platformctl.access.tokens import JoinToken
from platformctl.errors import StoreError
from platformctl.hub.store import CaMaterial
from platformctl.hub.store_sqlite import SQLiteStore

REPOSITORY = Path(__file__).parents[3]
TOKEN = JoinToken("jt-1", "d" * 64, "edge-1", {}, 100.0, 1000.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "hub.db"


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def _python(script: str, *arguments: object, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload]


@pytest.mark.usefixtures("open_umask")
def test_only_the_owner_may_read_the_files(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.put_join_token(TOKEN)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert modes == {"hub.db": 0o600, "hub.db-wal": 0o600, "hub.db-shm": 0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    SQLiteStore(path).close()
    path.chmod(0o644)
    SQLiteStore(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_is_said_and_loses_nothing(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.put_join_token(TOKEN)
        database = store._file._db
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        before = store.version()
        with pytest.raises(StoreError, match="full") as caught:
            store.put_setting("policy", "x" * 1_000_000)
        assert "free some space" in caught.value.hint
        assert store.version() == before
        assert store.get_setting("policy") is None
        assert store.consume_join_token("jt-1", 200.0)
        database.execute("PRAGMA max_page_count = 100000")
        store.put_setting("policy", "x" * 1_000_000)
    with SQLiteStore(path) as again:
        assert len(again.get_setting("policy") or "") == 1_000_000


_AS_NOBODY = """
import os, sys
from platformctl.errors import StoreError
from platformctl.hub.store_sqlite import SQLiteStore
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    with SQLiteStore(sys.argv[1]) as store:
        store.put_setting("a", "b")
except StoreError as e:
    print(e.message, "|", e.hint)
"""


@pytest.mark.parametrize("place", ["hub.db", "deeper/hub.db"])
def test_a_read_only_folder_is_said(place: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Root may write everywhere, so the process becomes somebody else.
        os.chmod(folder, 0o555)
        said, _ = _python(_AS_NOBODY, Path(folder) / place).communicate(timeout=30)
        os.chmod(folder, 0o755)
    assert f"the state file {Path(folder) / place} could not be opened: Permission denied" in said
    assert "owner and mode" in said


def test_a_file_that_became_read_only_is_said(path: Path) -> None:
    with SQLiteStore(path) as store:
        store._file._db.execute("PRAGMA query_only = 1")
        with pytest.raises(StoreError, match="could not be written") as caught:
            store.put_setting("a", "b")
        assert "cannot be written" in caught.value.hint


def test_a_path_through_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="could not be opened"):
        SQLiteStore(tmp_path / "file" / "hub.db")


def test_a_file_that_is_something_else_is_said_and_kept(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, but 100 bytes of something that someone may need" * 20)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="could not be opened") as caught:
        SQLiteStore(path)
    assert "backup" in caught.value.hint
    assert path.read_bytes() == before


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    SQLiteStore(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreError, match="has format 99; this version knows 1") as caught:
        SQLiteStore(path)
    assert "newer" in caught.value.hint


def test_a_record_that_cannot_be_read_shows_nothing_of_itself(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.get_or_create_ca(lambda: CaMaterial(b"certificate", b"very secret"))
        for broken in ('{"very secret"', '{"very secret": 1}', '["very secret"]'):
            store._file._db.execute("UPDATE objects SET body = ?", (broken,))
            with pytest.raises(StoreError, match="a ca in the state file") as caught:
                store.get_or_create_ca(lambda: CaMaterial(b"", b""))
            assert "very secret" not in caught.value.message + caught.value.hint
            assert caught.value.__cause__ is None


def test_a_lock_that_is_never_released_is_said(path: Path) -> None:
    SQLiteStore(path).close()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with SQLiteStore(path, busy_seconds=0.05) as store:
        with pytest.raises(StoreError, match="locked") as caught:
            store.put_setting("a", "b")
        assert "another process" in caught.value.hint
        assert store.get_setting("a") is None
        blocker.execute("ROLLBACK")
        store.put_setting("a", "b")
    blocker.close()


_WRITE_UNTIL_KILLED = """
import sys
from platformctl.hub.store import SatelliteRecord
from platformctl.hub.store_sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1])
record = store.put_satellite(SatelliteRecord("edge-1", {}, "active", "", (), 0.0))
number = 0
while True:
    number += 1
    record = store.put_satellite(record.with_serial(f"{number:x}" * 200))
    store.put_setting("latest", str(number))
    print(number, flush=True)
"""


def test_a_process_killed_in_mid_write_leaves_whole_records(path: Path) -> None:
    process = _python(_WRITE_UNTIL_KILLED, path)
    assert process.stdout is not None
    told = 0
    for line in process.stdout:
        told = int(line)
        if told == 20:
            break
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    told = int(rest[-1]) if rest and rest[-1].isdigit() else told
    with SQLiteStore(path) as store:
        # What was reported as done is there; at most one more write of each kind is.
        latest = int(store.get_setting("latest") or "0")
        assert told <= latest <= told + 1
        record = store.get_satellite("edge-1")
        assert record is not None
        assert record.serials[-1] in {f"{n:x}" * 200 for n in (latest, latest + 1)}
        store.put_setting("latest", "again")


def test_an_exception_in_a_change_undoes_it(path: Path) -> None:
    with SQLiteStore(path) as store:
        before = store.version()

        def interrupted() -> None:
            with store._file.change():
                store._file.put("setting", "a", "b")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert store.get_setting("a") is None
        assert store.version() == before
        store.put_setting("a", "c")
        assert store.get_setting("a") == "c"
