"""One SQLite file with objects in it: (kind, id) -> text, and a counter of changes. Transactions and errors are here.

Write-ahead logging lets readers read while one writes; every change is one immediate transaction, so a second writer
waits at its beginning and not in its middle. `synchronous=FULL` because a join token that a power failure brings back
is a hole.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformctl.errors import StoreError

__all__ = ["BUSY_SECONDS", "SQLiteFile"]

SCHEMA_VERSION = 1
BUSY_SECONDS = 10.0
_SCHEMA = (
    """CREATE TABLE objects (kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id))
       WITHOUT ROWID""",
    "CREATE TABLE counter (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL)",
    "INSERT INTO counter VALUES (1, 0)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_HINTS = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space; nothing that was stored before is lost",
    sqlite3.SQLITE_READONLY: "the file or its folder cannot be written: check their owner and mode",
    sqlite3.SQLITE_CANTOPEN: "check that the folder exists and that this user may write in it",
    sqlite3.SQLITE_BUSY: "another process holds the file for too long: look for a stopped hub with `ps`",
    sqlite3.SQLITE_NOTADB: "the file is damaged or something else: restore it from a backup, or choose another folder",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup",
}
_OTHER_HINT = "check the disk, and the owner and mode of the file and its folder"


class SQLiteFile:
    """The file at `path`, made with mode 0600, in a folder made with 0700 when it is missing.

    Safe for all threads of a process. Not to be carried across a fork: open it in each process.
    """

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._wrapped("opened"):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite gives its journals the mode of the file, so that must be right before SQLite sees it. A file that
            # is there is not opened: closing it would drop the locks that this process's other connections hold (POSIX
            # fcntl), and whoever then believes to be alone deletes the log that they write to.
            try:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except FileExistsError:
                path.chmod(0o600)
            self._db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
            try:
                self._set_up(time.monotonic() + busy_seconds)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def get(self, kind: str, id: str) -> str | None:
        with self._lock, self._wrapped("read"):
            row = self._db.execute("SELECT body FROM objects WHERE kind = ? AND id = ?", (kind, id)).fetchone()
        return None if row is None else str(row[0])

    def list(self, kind: str) -> list[str]:
        """The bodies of all objects of a kind, by id."""
        with self._lock, self._wrapped("read"):
            rows = self._db.execute("SELECT body FROM objects WHERE kind = ? ORDER BY id", (kind,)).fetchall()
        return [str(row[0]) for row in rows]

    def put(self, kind: str, id: str, body: str) -> None:
        """Within `change`: add or replace."""
        with self._wrapped("written"):
            self._db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (kind, id, body))

    def delete(self, kind: str, id: str) -> bool:
        """Within `change`: True when it was there."""
        with self._wrapped("written"):
            return self._db.execute("DELETE FROM objects WHERE kind = ? AND id = ?", (kind, id)).rowcount > 0

    def version(self) -> int:
        """Grows with every change; within `change` it is the number before it."""
        with self._lock, self._wrapped("read"):
            return int(self._db.execute("SELECT version FROM counter").fetchone()[0])

    @contextmanager
    def change(self, *, counted: bool = True) -> Iterator[None]:
        """One transaction: what is read in it is current until its end, and an exception in it undoes it.

        A transaction that wrote something moves `version` by one, unless it is not `counted`.
        """
        with self._lock:
            with self._wrapped("written"):
                self._db.execute("BEGIN IMMEDIATE")
            before = self._db.total_changes
            try:
                yield
                with self._wrapped("written"):
                    if counted and self._db.total_changes != before:
                        self._db.execute("UPDATE counter SET version = version + 1")
                    self._db.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, a full disk among them.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _set_up(self, deadline: float) -> None:
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as e:
                # The busy timeout does not cover this switch, and all processes make it when they start together.
                if _primary(e) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self._db.execute("PRAGMA synchronous = FULL")
        if self._schema_version() == SCHEMA_VERSION:
            return
        self._db.execute("BEGIN IMMEDIATE")
        found = self._schema_version()
        if found > SCHEMA_VERSION:
            raise StoreError(
                f"the state file {self.path} has format {found}; this version knows {SCHEMA_VERSION}",
                hint="a newer platformctl wrote it: use that version, or another state folder",
            )
        for statement in _SCHEMA if found == 0 else ():
            self._db.execute(statement)
        self._db.execute("COMMIT")

    def _schema_version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _wrapped(self, done: str) -> Iterator[None]:
        message = f"the state file {self.path} could not be {done}"
        try:
            yield
        except sqlite3.Error as e:
            raise StoreError(f"{message}: {e}", hint=_HINTS.get(_primary(e), _OTHER_HINT)) from e
        except OSError as e:
            raise StoreError(f"{message}: {e.strerror}", hint=_OTHER_HINT) from e


def _primary(error: sqlite3.Error) -> int:
    """The primary result code; SQLite keeps details in the higher bits."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
