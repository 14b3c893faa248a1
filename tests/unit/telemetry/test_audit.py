from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.errors import StoreError
from platformctl.telemetry.audit import FIELDS, AuditLog

REPOSITORY = Path(__file__).parents[3]
DENIAL = {
    "event": "request",
    "decision": "deny",
    "identity": "token:alice",
    "satellite": "sat-1",
    "service": "echo",
    "method": "GET",
    "path": "/admin?token=hunter2",
    "rule": "",
    "reason": "no rule lets token:alice call service echo of satellite sat-1",
    "request_id": "r-1",
    "client_ip": "192.0.2.1",
    "status": 403,
}


class Gate(io.BytesIO):
    """A stream whose writes wait until the gate is opened, as a disk that hangs; it can also fail."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.broken = False

    def write(self, data: Any) -> int:
        self.entered.set()
        assert self.opened.wait(20)
        if self.broken:
            raise OSError(28, "No space left on device")
        return super().write(data)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def lines(data: bytes | Path) -> list[dict[str, Any]]:
    text = data.read_bytes() if isinstance(data, Path) else data
    assert text == b"" or text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_denial_is_one_line_with_its_fields_in_order(tmp_path: Path) -> None:
    path = tmp_path / "audit" / "audit.jsonl"
    with AuditLog(path, clock=lambda: 1_700_000_000.1234) as log:
        log.record(DENIAL)
    [line] = lines(path)
    assert line == {
        "time": "2023-11-14T22:13:20.123Z",
        **{key: value for key, value in DENIAL.items() if key != "rule"},
        "path": "/admin",
    }
    assert list(line) == [name for name in FIELDS if name != "rule"]
    assert (log.written, log.dropped) == (1, 0)


def test_time_is_when_it_happened_and_has_milliseconds_also_on_the_second() -> None:
    times = iter([1_700_000_000.0, 1_700_000_060.5])
    out = io.BytesIO()
    with AuditLog(out, clock=lambda: next(times)) as log:
        log.record(DENIAL)
        log.record({**DENIAL, "time": "1970-01-01T00:00:00Z"})
    assert [line["time"] for line in lines(out.getvalue())] == ["2023-11-14T22:13:20.000Z", "2023-11-14T22:14:20.500Z"]


def test_allowed_requests_are_recorded_only_on_demand() -> None:
    for every in (False, True):
        out = io.BytesIO()
        with AuditLog(out, every_decision=every) as log:
            log.record({"decision": "allow", "rule": "r"})
            log.record({"decision": "deny"})
        assert [line["decision"] for line in lines(out.getvalue())] == ["allow", "deny"][not every :]


def test_other_fields_of_an_event_follow() -> None:
    out = io.BytesIO()
    with AuditLog(out) as log:
        log.record({"tool": "pods_list", "decision": "deny", "where": Path("/x")})
    [line] = lines(out.getvalue())
    assert list(line) == ["time", "event", "decision", "tool", "where"]
    assert (line["event"], line["where"]) == ("access", "/x")


@given(st.dictionaries(st.sampled_from(FIELDS[2:]), st.text(st.characters(), max_size=40), max_size=6))
def test_no_value_can_forge_a_line(values: dict[str, str]) -> None:
    out = io.BytesIO()
    forged = 'x"}\r\n\u2028\x85{"decision":"allow"}\x1b[2J'
    with AuditLog(out, every_decision=True, linger=0) as log:
        log.record({**values, "reason": forged})
    raw = out.getvalue()
    assert raw.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in raw[:-1])
    assert len(raw.decode().splitlines()) == 1
    assert json.loads(raw)["reason"] == forged


def test_long_values_are_cut() -> None:
    out = io.BytesIO()
    with AuditLog(out) as log:
        log.record({"decision": "deny", "path": "/" + "x" * 100_000, "reason": "y" * 2048})
    [line] = lines(out.getvalue())
    assert line["path"] == "/" + "x" * 2047 + "…"
    assert line["reason"] == "y" * 2048


def test_a_caller_may_use_its_record_again() -> None:
    out = io.BytesIO()
    record: dict[str, Any] = dict(DENIAL)
    with AuditLog(out) as log:
        for number in range(3):
            record["status"] = number
            log.record(record)
    assert [line["status"] for line in lines(out.getvalue())] == [0, 1, 2]


def test_a_record_that_is_not_json_is_counted_and_stops_nothing() -> None:
    out = io.BytesIO()
    loop: list[Any] = []
    loop.append(loop)
    with AuditLog(out) as log:
        for bad in (loop, float("nan"), {(1, 2): 3}):
            log.record({"decision": "deny", "detail": bad})
        log.record(DENIAL)
    assert [line["event"] for line in lines(out.getvalue())] == ["audit.dropped", "request"]
    assert log.dropped == 3


def test_flush_waits_for_what_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, linger=30) as log:
        for _ in range(1000):
            log.record(DENIAL)
        assert log.flush()
        assert len(lines(path)) == 1000
        assert log.flush()
    assert not log.flush()


def test_a_disk_that_hangs_never_blocks_and_every_lost_line_is_counted(gate: Gate) -> None:
    log = AuditLog(gate, queue_lines=10, linger=0)
    log.record(DENIAL)
    assert gate.entered.wait(20)
    for _ in range(25):
        log.record(DENIAL)
    assert log.dropped == 15
    assert not log.flush(timeout=0)
    gate.opened.set()
    assert log.flush()
    log.close()
    written = lines(gate.getvalue())
    assert [line["dropped"] for line in written if line["event"] == "audit.dropped"] == [15]
    assert sum(line["event"] == "request" for line in written) == log.written == 11


def test_lines_that_a_full_disk_refused_are_told_when_there_is_space_again(gate: Gate) -> None:
    gate.opened.set()
    gate.broken = True
    with AuditLog(gate, linger=0) as log:
        for _ in range(7):
            log.record(DENIAL)
        assert log.flush()
        assert (log.dropped, log.written) == (7, 0)
        gate.broken = False
        log.record(DENIAL)
        assert log.flush()
    first, second = lines(gate.getvalue())
    assert (first["event"], first["dropped"]) == ("audit.dropped", 7)
    assert second["event"] == "request"


def test_what_comes_after_closing_is_counted() -> None:
    out = io.BytesIO()
    log = AuditLog(out)
    log.close()
    log.record(DENIAL)
    log.close()
    assert log.dropped == 1
    assert out.getvalue() == b""


def test_threads_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, max_bytes=1 << 30) as log:
        threads = [
            threading.Thread(target=lambda n=n: [log.record({**DENIAL, "status": n}) for _ in range(2000)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = [line["status"] for line in lines(path)]
    assert sorted(found) == sorted(list(range(4)) * 2000)
    assert (log.written, log.dropped) == (8000, 0)


def test_only_the_owner_may_read_the_log_also_when_it_was_open_to_others(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch(0o644)
    path.chmod(0o644)
    with AuditLog(path, max_bytes=300) as log:
        for _ in range(4):
            log.record(DENIAL)
            assert log.flush()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_files_rotate_by_size_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, max_bytes=300, kept_files=2) as log:
        for number in range(5):
            log.record({**DENIAL, "status": number})
            assert log.flush()
    found = {file.name: [line["status"] for line in lines(file)] for file in tmp_path.iterdir()}
    assert found == {"audit.jsonl": [4], "audit.jsonl.1": [3], "audit.jsonl.2": [2]}
    assert log.dropped == 0


def test_without_kept_files_the_old_one_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, max_bytes=300, kept_files=0) as log:
        for number in range(3):
            log.record({**DENIAL, "status": number})
            assert log.flush()
    assert [line["status"] for line in lines(path)] == [2]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_moved_is_written_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    (tmp_path / "audit.jsonl.1" / "in-the-way").mkdir(parents=True)
    with AuditLog(path, max_bytes=300, kept_files=1) as log:
        for number in range(3):
            log.record({**DENIAL, "status": number})
            assert log.flush()
    assert [line["status"] for line in lines(path)] == [0, 1, 2]
    assert log.dropped == 0


def test_a_new_start_appends_and_ends_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path) as log:
        log.record({**DENIAL, "status": 1})
    with path.open("ab") as file:
        file.write(b'{"time":"2023')
    with AuditLog(path) as log:
        log.record({**DENIAL, "status": 2})
        assert log.flush()
        log.record({**DENIAL, "status": 3})
    first, torn, second, third = path.read_bytes().splitlines()
    assert torn == b'{"time":"2023'
    assert [json.loads(line)["status"] for line in (first, second, third)] == [1, 2, 3]


def test_a_file_that_vanished_folder_and_all_is_counted_and_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "audit" / "audit.jsonl"
    with AuditLog(path, max_bytes=400, kept_files=1) as log:
        log.record(DENIAL)
        assert log.flush()
        path.unlink()
        path.parent.rmdir()
        log.record(DENIAL)
        assert log.flush()
        assert log.dropped == 1
        path.parent.mkdir()
        log.record(DENIAL)
        assert log.flush()
    assert [line["event"] for line in lines(path)] == ["audit.dropped", "request"]


def test_a_log_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="could not be opened") as caught:
        AuditLog(tmp_path / "file" / "audit.jsonl")
    assert caught.value.hint


_FULL_DISK = """
import resource, signal, sys
from platformctl.telemetry.audit import AuditLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = AuditLog(sys.argv[1], linger=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for number in range(20):
    log.record({"decision": "deny", "status": number, "reason": "x" * 100})
    log.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.record({"decision": "deny", "status": 99})
log.close()
print(log.written, log.dropped)
"""


def test_a_file_that_cannot_grow_tears_at_most_one_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", _FULL_DISK, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True)
    written, dropped = map(int, done.stdout.split())
    assert written + dropped == 21
    whole, torn = [], []
    for line in path.read_bytes().splitlines():
        try:
            whole.append(json.loads(line))
        except ValueError:
            torn.append(line)
    assert len(torn) == 1
    assert [line.get("status") for line in whole] == [*range(written - 1), None, 99]
    assert whole[-2]["dropped"] == dropped
