"""Processes of a benchmark: started with a log of their own, awaited until they listen, ended by pid for sure."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

_TERM_GRACE = 5.0


class BenchError(Exception):
    """The benchmark cannot go on; the message says what is missing or broke, and where its log is."""


def require(program: str, *, hint: str) -> str:
    """Absolute path of a program, also from the sbin folders, which are not on everybody's PATH."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise BenchError(f"{program} is not installed; {hint}")
    return found


def free_port() -> int:
    """A loopback TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_listening(port: int, *, seconds: float = 15.0, process: Process | None = None) -> None:
    """Return when 127.0.0.1:port accepts; raise BenchError when it never does or the process ends first."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if process is not None and process.returncode is not None:
                raise BenchError(f"process {process.pid} ended with {process.returncode} before it listened") from None
            if time.monotonic() > deadline:
                raise BenchError(f"nothing listens on 127.0.0.1:{port} after {seconds:.0f} s") from None
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


class Processes:
    """All processes of one run. Use as an async context; leaving it ends every one, also on Ctrl-C.

    Children also get a parent-death signal, so that a killed benchmark leaves nothing behind.
    """

    def __init__(self, log_folder: Path) -> None:
        self._logs = log_folder
        self._running: list[tuple[str, Process]] = []
        self._at_end: list[Callable[[], Awaitable[None]]] = []

    async def __aenter__(self) -> Processes:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self._end_all())

    def at_end(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Have something that started processes of its own end them first; the latest is called first."""
        self._at_end.append(callback)

    def log_of(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    async def start(
        self, name: str, argv: Sequence[str], *, port: int = 0, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a server; with `port`, return only when it listens there."""
        with self.log_of(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *_bound_to_parent(argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        self._running.append((name, process))
        if port:
            try:
                await wait_listening(port, process=process)
            except BenchError as e:
                raise BenchError(f"{name}: {e}; see {self.log_of(name)}") from e
        return process

    async def run(
        self, name: str, argv: Sequence[str], *, seconds: float, env: Mapping[str, str] | None = None
    ) -> bytes:
        """Run a program to its end and return its stdout; over `seconds` or a non-zero exit is a BenchError."""
        with self.log_of(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *_bound_to_parent(argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        self._running.append((name, process))
        try:
            async with asyncio.timeout(seconds):
                output, _ = await process.communicate()
        except TimeoutError:
            raise BenchError(f"{name} did not end within {seconds:.0f} s; see {self.log_of(name)}") from None
        finally:
            await self.end(process)
        if process.returncode:
            raise BenchError(f"{name} ended with {process.returncode}; see {self.log_of(name)}")
        return output

    async def end(self, process: Process) -> None:
        """SIGTERM, then SIGKILL after a grace; returns when the process is reaped."""
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(_TERM_GRACE):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        self._running = [entry for entry in self._running if entry[1] is not process]

    async def _end_all(self) -> None:
        while self._at_end:
            await self._at_end.pop()()
        # Clients before servers: the newest first, so that no log fills with refused connections.
        for _, process in reversed(list(self._running)):
            await self.end(process)


def _bound_to_parent(argv: Sequence[str]) -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *argv] if setpriv else list(argv)


def signal_pid(pid: int, number: signal.Signals) -> None:
    """Signal one process by id; one that is gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
