"""Health checks of exported backends: one small loop for each export, and a callback when a state changes.

An export that is new or down is checked every second at most, whatever its interval: it has to be live soon after its
backend is. Intervals are jittered, so that a thousand exports are not checked in one instant.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable

from platformctl.errors import ConfigError, excerpt
from platformctl.net.address import dial_error
from platformctl.net.tasks import spawn
from platformctl.net.tls import PinMismatch
from platformctl.satellite.backend_trust import backend_tls
from platformctl.satellite.exports import Export
from platformctl.satellite.health_state import HealthState

__all__ = ["HealthChecker", "probe"]

RECHECK_SECONDS = 1.0
JITTER = 0.1
# A response head that is longer is not one of a health endpoint; nginx refuses more than 8 KiB as well.
MAX_HEAD = 16 * 1024

OnChange = Callable[[Export, bool], None]
Probe = Callable[[Export], Awaitable[str]]


class HealthChecker:
    """Calls `on_change(export, healthy)` with each export's first result, and with every change after that.

    An export that was replaced starts anew, unless backend and checks are the same: then its state is kept, and
    `on_change` is called at once if it is healthy, for something else in it changed that the hub has to know.
    `jitter` gives floats in [0, 1).
    """

    def __init__(self, on_change: OnChange, *, jitter: Callable[[], float], check: Probe | None = None) -> None:
        self._on_change = on_change
        self._check = check or probe
        self._jitter = jitter
        self._watched: dict[str, tuple[Export, HealthState, asyncio.Task[None] | None]] = {}

    def update(self, changed: Iterable[Export], removed: Iterable[str]) -> None:
        """Follow a new set of exports, as `exports.diff` describes it. To be called in the loop."""
        for name in removed:
            self._drop(name)
        for export in changed:
            old = self._watched.get(export.name)
            same = old is not None and _checked_as(old[0]) == _checked_as(export)
            state = old[1] if old is not None and same else _state(export)
            self._drop(export.name)
            task = None
            if export.health.type != "none":
                task = spawn(self._loop(export, state), f"health:{export.name}")
            self._watched[export.name] = (export, state, task)
            if export.health.type == "none" and state.healthy is None:
                state.record()
                self._on_change(export, True)
            elif state.healthy:
                self._on_change(export, True)

    def healthy(self, name: str) -> bool:
        """Whether the export passed its last checks; False for an unknown one."""
        found = self._watched.get(name)
        return found is not None and bool(found[1].healthy)

    def report(self) -> dict[str, dict[str, object]]:
        """For people: `{name: {"healthy": true | false | null, "reason": …}}`."""
        return {name: {"healthy": s.healthy, "reason": s.reason} for name, (_, s, _) in self._watched.items()}

    def close(self) -> None:
        for name in list(self._watched):
            self._drop(name)

    def _drop(self, name: str) -> None:
        _, _, task = self._watched.pop(name, (None, None, None))
        if task is not None:
            task.cancel()

    async def _loop(self, export: Export, state: HealthState) -> None:
        # A kept state was checked a moment ago by the loop before this one.
        if state.healthy is not None:
            await asyncio.sleep(self._pause(export, state))
        while True:
            if state.record(await self._check(export)):
                self._on_change(export, bool(state.healthy))
            await asyncio.sleep(self._pause(export, state))

    def _pause(self, export: Export, state: HealthState) -> float:
        interval = export.health.interval if state.healthy else min(export.health.interval, RECHECK_SECONDS)
        return interval * (1 + JITTER * (2 * self._jitter() - 1))


async def probe(export: Export) -> str:
    """Check the backend once, within its timeout. "" if it is fine, else why not."""
    try:
        async with asyncio.timeout(export.health.timeout):
            return await (_http(export) if export.health.type == "http" else _tcp(export))
    except TimeoutError:
        return f"{export.backend} did not answer in {export.health.timeout:g} s"
    except ConfigError as e:
        return e.message
    except ssl.SSLCertVerificationError as e:
        return f"{export.backend} is not trusted: {e.verify_message}"
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as e:
        return f"{export.backend}: {_said(e)}"


async def _tcp(export: Export) -> str:
    _, writer = await asyncio.open_connection(export.backend.host, export.backend.port)
    writer.close()
    return ""


async def _http(export: Export) -> str:
    to = export.backend
    tls = backend_tls(export.trust) if to.scheme == "https" else None
    reader, writer = await asyncio.open_connection(
        to.host,
        to.port,
        limit=MAX_HEAD,
        ssl=tls.context if tls else None,
        server_hostname=(tls.server_name or to.host) if tls else None,
    )
    try:
        if tls is not None:
            tls.check(writer.get_extra_info("ssl_object"))
        host = f"[{to.host}]" if ":" in to.host else to.host
        path = to.base + export.health.path
        head = f"GET {path} HTTP/1.1\r\nHost: {host}:{to.port}\r\nUser-Agent: platformctl-health\r\nAccept: */*\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode("latin-1"))
        status = await _status(reader)
    finally:
        # Not `close`: nobody reads the body, and a TLS farewell would only wait for a peer that may be stuck.
        writer.transport.abort()
    return "" if 200 <= status < 400 else f"{export.backend}{export.health.path} answered {status}"


async def _status(reader: asyncio.StreamReader) -> int:
    """The status of the final response; interim ones (1xx) are passed over."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        version, _, rest = head.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise ValueError(f"does not speak HTTP/1.1: {excerpt(head, 40)}")
        status = int(rest[:3])
        if status >= 200:
            return status


def _checked_as(export: Export) -> tuple[object, ...]:
    return export.backend, export.health, export.trust


def _state(export: Export) -> HealthState:
    return HealthState(export.health.healthy_threshold, export.health.unhealthy_threshold)


def _said(error: Exception) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "closed the connection before it answered"
    if isinstance(error, asyncio.LimitOverrunError):
        return "sent a response head that is too long"
    return dial_error(error) if isinstance(error, OSError) and not isinstance(error, PinMismatch) else str(error)
