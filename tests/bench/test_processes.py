"""Benchmarks must end what they start, and read the right numbers: on real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.bench.local_platform import wait_until
from tests.bench.processes import BenchError, Processes, free_port, require
from tests.bench.procfs import alive, read_cpu, read_others, read_rss
from tests.bench.sink import content_length

pytestmark = pytest.mark.integration
_ROOT = Path(__file__).resolve().parents[2]
_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"


async def test_leaving_the_context_ends_every_process_also_after_an_error(tmp_path: Path) -> None:
    pids: list[int] = []

    async def broken_run() -> None:
        async with Processes(tmp_path) as processes:
            pids.extend([(await processes.start(f"p{n}", ["sleep", "100"])).pid for n in range(2)])
            assert all(map(alive, pids))
            raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        await broken_run()
    assert len(pids) == 2
    assert not any(map(alive, pids))


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.processes._TERM_GRACE", 0.1)
    async with Processes(tmp_path) as processes:
        stubborn = await processes.start("stubborn", [sys.executable, "-c", _STUBBORN])
        await wait_until(lambda: processes.log_of("stubborn").read_text(), seconds=10, what="started")
    assert stubborn.returncode == -signal.SIGKILL


async def test_a_killed_benchmark_takes_its_processes_along(tmp_path: Path) -> None:
    script = (
        "import asyncio, pathlib\nfrom tests.bench.processes import Processes\n"
        f"async def main():\n async with Processes(pathlib.Path({str(tmp_path)!r})) as p:\n"
        "  print((await p.start('child', ['sleep', '100'])).pid, flush=True); await asyncio.sleep(100)\n"
        "asyncio.run(main())"
    )
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, cwd=_ROOT
    )
    assert owner.stdout is not None
    child = int(await owner.stdout.readline())
    assert alive(child)
    owner.kill()
    await owner.wait()
    await wait_until(lambda: not alive(child), seconds=5, what="the child ended")


async def test_a_server_that_ends_before_it_listens_is_named_with_its_log(tmp_path: Path) -> None:
    async with Processes(tmp_path) as processes:
        with pytest.raises(BenchError, match=r"broken: process \d+ ended with 3 .*/broken\.log"):
            await processes.start("broken", [sys.executable, "-c", "raise SystemExit(3)"], port=free_port())


async def test_a_command_is_bounded_in_time_and_its_failure_is_an_error(tmp_path: Path) -> None:
    async with Processes(tmp_path) as processes:
        assert await processes.run("echo", ["echo", "hello"], seconds=10) == b"hello\n"
        with pytest.raises(BenchError, match="did not end within 0 s"):
            await processes.run("slow", ["sleep", "50"], seconds=0.1)
        with pytest.raises(BenchError, match="ended with 1"):
            await processes.run("false", ["false"], seconds=10)


def test_a_missing_program_says_how_to_get_it() -> None:
    with pytest.raises(BenchError, match="no-such-program is not installed; apt-get install it"):
        require("no-such-program", hint="apt-get install it")


async def test_cpu_time_is_counted_for_the_process_that_works(tmp_path: Path) -> None:
    spin = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\ntime.sleep(60)"
    async with Processes(tmp_path) as processes:
        idle = await processes.start("idle", ["sleep", "100"])
        busy = await processes.start("busy", [sys.executable, "-c", spin])
        before_idle = read_cpu([idle.pid])
        await wait_until(lambda: read_cpu([busy.pid]).since(read_cpu([])) >= 0.3e9, seconds=20, what="0.3 s of CPU")
        assert read_cpu([idle.pid]).since(before_idle) < 0.05e9


async def test_other_peoples_cpu_is_seen_and_ours_is_not(tmp_path: Path) -> None:
    spin = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\ntime.sleep(60)"
    async with Processes(tmp_path) as processes:
        busy = await processes.start("busy", [sys.executable, "-c", spin])
        await wait_until(lambda: read_others([]).get(busy.pid, 0) >= 25, seconds=20, what="0.25 s in ticks")
        assert busy.pid not in read_others([busy.pid])
        assert busy.pid not in read_others([os.getpid()])  # a child of ours


def test_resident_memory_is_in_bytes_and_nothing_for_a_process_that_is_gone() -> None:
    before = read_rss([os.getpid()])
    ballast = bytearray(os.urandom(1)) * (64 << 20)
    grown = read_rss([os.getpid()]) - before
    assert 60 << 20 < grown < 80 << 20
    assert len(ballast) == 64 << 20
    assert read_rss([2**22 + 1]) == 0


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"PUT / HTTP/1.1\r\nContent-Length: 12", 12),
        (b"GET / HTTP/1.1\r\nHost: x", 0),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked", None),
    ],
)
def test_the_sink_knows_how_long_a_body_is(head: bytes, length: int | None) -> None:
    assert content_length(head) == length
