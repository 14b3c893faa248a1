"""The audit log: one JSON line for each decision, written by a thread of its own so that no request waits for a disk.

1. `record` only appends to a queue in memory: no IO, no formatting, no lock.
2. The queue is bounded. A line that does not fit, or that could not be written, is counted in `dropped`, and as soon as
   lines can be written again a line `{"event":"audit.dropped","dropped":n}` says so in the log itself.
3. A line is always one line: control characters and everything outside ASCII are escaped by JSON, and a line whose
   writing broke off is ended before the next one begins.
4. Paths are cut at `?`: queries carry secrets. Long values are cut.
5. Files have mode 0600. One process writes one file; rotation renames `audit.jsonl` to `audit.jsonl.1` and so on.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from platformctl.errors import StoreError

__all__ = ["FIELDS", "AuditLog"]

FIELDS = (
    *("time", "event", "decision", "identity", "satellite", "service", "method", "path"),
    *("rule", "reason", "request_id", "client_ip", "status"),
)
"""In this order, each line has those that it has a value for; other fields of an event follow them."""

QUEUE_LINES = 65_536
MAX_BYTES = 64 * 1024 * 1024
KEPT_FILES = 5
MAX_VALUE = 2048
# Lines are collected for this long: a wake-up for each line would take the interpreter from the event loop each time.
LINGER_SECONDS = 0.02
# Formatting holds the interpreter, so it is done in slices that a request can wait for (about 1 ms each).
BATCH_LINES = 128

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=str).encode

Item = tuple[float, dict[str, Any]] | threading.Event


class AuditLog:
    """Writes to a file (a path) or a binary stream that it does not own, until `close`.

    With `every_decision` allowed requests are recorded too, else only denials; callers can look at the attribute
    first and save building the record. `dropped` is how many lines were lost since the start; `written` how many were
    not. `clock` gives Unix seconds. StoreError when the file cannot be opened.
    """

    def __init__(
        self,
        target: Path | str | BinaryIO,
        *,
        every_decision: bool = False,
        queue_lines: int = QUEUE_LINES,
        max_bytes: int = MAX_BYTES,
        kept_files: int = KEPT_FILES,
        linger: float = LINGER_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.every_decision = every_decision
        self.written = 0
        self._limit = queue_lines
        self._linger = linger
        self._clock = clock
        self._queue: deque[Item] = deque()
        self._overflowed = 0
        self._failed = 0
        self._reported = 0
        self._overflow_lock = threading.Lock()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._closing = False
        self._sink = _File(Path(target), max_bytes, kept_files) if isinstance(target, Path | str) else _Stream(target)
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def dropped(self) -> int:
        return self._overflowed + self._failed

    def record(self, event: Mapping[str, Any]) -> None:
        """Queue one line. `event` has fields of FIELDS, at least `decision` (`allow` or `deny`); it is copied."""
        if not self.every_decision and event.get("decision") == "allow":
            return
        queue = self._queue
        if len(queue) >= self._limit or self._closing:
            with self._overflow_lock:
                self._overflowed += 1
            return
        queue.append((self._clock(), dict(event)))
        if not self._wake.is_set():
            self._wake.set()

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until what was recorded before this call is written; False when that took too long, or after `close`."""
        if not self._thread.is_alive():
            return False
        done = threading.Event()
        self._queue.append(done)
        self._hurry.set()
        self._wake.set()
        return done.wait(timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Write what is queued and end the thread. What is recorded later is counted as dropped."""
        self._closing = True
        self._hurry.set()
        self._wake.set()
        self._thread.join(timeout)
        if not self._thread.is_alive():
            # Recorded by another thread in the moment of closing, after the last look at the queue.
            self._overflowed += sum(not isinstance(item, threading.Event) for item in self._queue)
            self._queue.clear()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._hurry.wait(self._linger)
            # Cleared before the queue is emptied: who appends after the last look at it sets them again.
            self._hurry.clear()
            self._wake.clear()
            closing = self._closing
            while self._queue:
                self._write_batch()
            self._report_drops()
            if closing:
                self._sink.close()
                return

    def _write_batch(self) -> None:
        lines: list[bytes] = []
        waiting: list[threading.Event] = []
        while self._queue and len(lines) < BATCH_LINES:
            item = self._queue.popleft()
            if isinstance(item, threading.Event):
                waiting.append(item)
            else:
                try:
                    lines.append(_line(*item))
                except (TypeError, ValueError, RecursionError):  # not JSON; the thread must live on
                    self._failed += 1
        if lines:
            self._report_drops()
            self._write(lines)
        for event in waiting:
            event.set()

    def _write(self, lines: list[bytes]) -> None:
        complete = self._sink.write(lines)
        self.written += complete
        self._failed += len(lines) - complete

    def _report_drops(self) -> None:
        dropped = self.dropped
        if dropped > self._reported:
            news = {"event": "audit.dropped", "dropped": dropped - self._reported}
            if self._sink.write([_line(self._clock(), news)]) == 1:
                self._reported = dropped


def _line(at: float, event: dict[str, Any]) -> bytes:
    ordered: dict[str, Any] = {"time": _timestamp(at), "event": event.pop("event", "access")}
    event.pop("time", None)
    for name in FIELDS[2:]:
        value = event.pop(name, None)
        if value is not None and value != "":
            ordered[name] = value
    if "path" in ordered:
        ordered["path"] = str(ordered["path"]).partition("?")[0]
    ordered.update(event)
    for name, value in ordered.items():
        if isinstance(value, str) and len(value) > MAX_VALUE:
            ordered[name] = value[:MAX_VALUE] + "…"
    return _encode(ordered).encode("ascii") + b"\n"


def _timestamp(at: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Stream:
    """A stream that someone else opened and will close."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, lines: list[bytes]) -> int:
        try:
            self._stream.write(b"".join(lines))
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: it was closed
            return 0
        return len(lines)

    def close(self) -> None:
        pass


class _File:
    """An append-only file with rotation by size. `write` gives the number of lines that are in it completely."""

    def __init__(self, path: Path, max_bytes: int, kept: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._torn = False
        self._size = 0
        self._descriptor: int | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except OSError as e:
            raise StoreError(
                f"the audit log {path} could not be opened: {e.strerror}",
                hint="check that its folder exists, has space, and may be written by this user",
            ) from e

    def write(self, lines: list[bytes]) -> int:
        block = b"".join(lines)
        try:
            descriptor = self._ready(len(block))
        except OSError:
            return 0
        # A line that broke off earlier must not swallow the next one.
        lead = b"\n" if self._torn else b""
        done = (lead + block)[: self._append(descriptor, lead + block)]
        if done:
            self._torn = not done.endswith(b"\n")
        return done[len(lead) :].count(b"\n")

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, descriptor: int, block: bytes) -> int:
        """The number of bytes that went in before an error, or all."""
        done = 0
        with suppress(OSError):
            while done < len(block):
                done += os.write(descriptor, block[done:])
        self._size += done
        return done

    def _ready(self, coming: int) -> int:
        if self._descriptor is not None and self._size and self._size + coming > self._max_bytes:
            self._rotate()
        return self._open() if self._descriptor is None else self._descriptor

    def _rotate(self) -> None:
        """Move the file away; when that fails, go on in it: a log that is too large beats one that has holes."""
        self.close()
        with suppress(OSError):
            self._shift()

    def _shift(self) -> None:
        if self._kept == 0:
            self._path.unlink()
            return
        for number in range(self._kept - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _open(self) -> int:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(self._descriptor, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        # A process that was killed may have left half a line.
        self._torn = self._size > 0 and os.pread(self._descriptor, 1, self._size - 1) != b"\n"
        return self._descriptor
