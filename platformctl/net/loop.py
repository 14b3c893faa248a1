"""Running an event loop the way every runtime of ours does: uvloop where it is there, signals, and a lag probe."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from platformctl.net.memory import keep_buffers

try:
    from uvloop import run as run_loop
except ImportError:  # no wheel for this platform: asyncio's own loop works, only slower
    run_loop = asyncio.run  # type: ignore[assignment]

LAG_PROBE_SECONDS: Final = 0.5
# How long a thread that computes (a policy being compiled) may keep the loop waiting; Python's default is 5 ms.
SWITCH_SECONDS: Final = 0.001


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run `main` to its end; its result is the exit code."""
    keep_buffers()
    # Objects of start-up live for ever: taken out of the collector's sight, its runs stay short (PEP 556's measurements
    # and Instagram's gc.freeze report the same effect). Reference counting frees what requests make.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(SWITCH_SECONDS)
    return run_loop(main)


class Server(Protocol):
    """A runtime of ours. `start` may raise; `drain` leaves without losing a request; `close` ends what is left."""

    async def start(self) -> None: ...
    async def drain(self) -> None: ...
    async def close(self) -> None: ...


async def run_until_stopped(server: Server) -> int:
    """Start, wait for SIGTERM or SIGINT, drain, end; the exit code. A signal during the start or the drain ends it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        if await _unless(stop, server.start()):
            await stop.wait()
            stop.clear()
            await _unless(stop, server.drain())
    finally:
        await server.close()
    return 0


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do `work` to its end, with its exception; False when `stop` came first, and it was cancelled."""
    loop = asyncio.get_running_loop()
    working, stopped = loop.create_task(work), loop.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
            return True
        return False
    finally:
        stopped.cancel()
        working.cancel()
        await asyncio.wait({working, stopped})


async def probe_lag(observe: Callable[[float], None]) -> None:
    """Tell `observe` again and again how late a timer ran, in seconds."""
    while True:
        due = time.monotonic() + LAG_PROBE_SECONDS
        await asyncio.sleep(LAG_PROBE_SECONDS)
        observe(max(0.0, time.monotonic() - due))
