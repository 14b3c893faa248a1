"""The agent: keeps a tunnel (or several lanes) to every hub replica, and serves what the hub opens on them.

Reconciliation: what is wanted is a set of (URL, lane); each has a keeper. The wanted URLs are the replicas that the
tunnels' hubs tell of, the configured ones before any has told, and both while no tunnel has been up for a while. A
tunnel that is no longer wanted is drained, never cut.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import platformctl
from platformctl.errors import ConfigError
from platformctl.net.filewatch import fingerprint
from platformctl.net.tasks import spawn
from platformctl.net.tls import IDENTITY_CA, IDENTITY_CERT, IDENTITY_KEY, tunnel_client_context
from platformctl.satellite.keeper import QUICK_CAP, Keeper
from platformctl.satellite.tunnel import AgentTunnel
from platformctl.wire import frames

if TYPE_CHECKING:
    from platformctl.satellite.services import Services
    from platformctl.telemetry.metrics import TunnelMetrics

log = logging.getLogger("platformctl.satellite.agent")

# No tunnel for this long: the replica list may be stale, so the configured addresses are dialled as well.
STRANDED_SECONDS: Final = 5.0
RECONCILE_SECONDS: Final = 1.0
DRAIN_STEP: Final = 0.02
# A REGISTER is one control frame of at most MAX_CONTROL bytes, with some room for what is around the list.
REGISTER_BYTES: Final = frames.MAX_CONTROL - 4096

Key = tuple[str, int]


class Agent:
    """One satellite's agent.

    Args:
        name: the satellite's name, as in its certificate.
        identity: folder with identity.crt, identity.key and ca.pem.
        hubs: `wss://host:port` of the hub, one or more.
        lanes: tunnels to each replica; lanes above 0 carry services of lane "bulk".
        jitter: floats in [0, 1) for backoff.
        counters: the metric handle of the tunnels to a hub replica.
    """

    def __init__(
        self,
        name: str,
        identity: Path,
        hubs: tuple[str, ...],
        services: Services,
        *,
        labels: dict[str, str] | None = None,
        lanes: int = 1,
        jitter: Callable[[], float] | None = None,
        counters: Callable[[str], TunnelMetrics] | None = None,
    ) -> None:
        self.name = name
        self.identity = identity
        self.hubs = hubs
        self.services = services
        self.labels = labels or {}
        self.lanes = lanes
        self.instance = uuid.uuid4().hex
        self.version = platformctl.__version__
        self.healthy: dict[str, dict[str, object]] = {}
        self.replicas: dict[str, str] = {}
        self.tunnels: set[AgentTunnel] = set()
        self.reconnects = 0
        self.problem = ""
        self.draining = False
        self.counters = counters
        self.jitter = jitter or random.Random().random
        self._keepers: dict[Key, tuple[Keeper, asyncio.Task[Any]]] = {}
        self._up_at = time.monotonic()
        self._wake = asyncio.Event()
        self._context: ssl.SSLContext | None = None
        self._context_of: list[object] = []

    # ---- state for health and metrics ----------------------------------------------------------------------------

    @property
    def expected(self) -> int:
        """How many tunnels there should be."""
        return max(len(self.replicas) or len(self.hubs), 1) * self.lanes

    @property
    def connected(self) -> int:
        """How many of them there are."""
        return sum(1 for tunnel in self.tunnels if tunnel.ready and not tunnel.leaving)

    # ---- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Reconcile until cancelled."""
        try:
            while True:
                self._reconcile()
                try:
                    async with asyncio.timeout(RECONCILE_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    self._follow_identity()
                self._wake.clear()
        finally:
            self._stop_keepers()
            for tunnel in list(self.tunnels):
                tunnel.link.close("the agent stopped")

    async def drain(self, seconds: float) -> None:
        """Leave without losing a request: the hub opens nothing more, what runs ends, then the tunnels close."""
        self.draining = True
        self._stop_keepers()
        links = [tunnel.link for tunnel in self.tunnels]
        for tunnel in list(self.tunnels):
            tunnel.leave()
        end = time.monotonic() + seconds
        # Not before the last bytes of the last response have left this process.
        while not all(link.is_gone for link in links) and time.monotonic() < end:  # noqa: ASYNC110  # many links
            await asyncio.sleep(DRAIN_STEP)

    def wake(self) -> None:
        """Something changed: reconcile now."""
        self._wake.set()

    def _stop_keepers(self) -> None:
        for _, task in self._keepers.values():
            task.cancel()
        self._keepers.clear()

    def _wanted(self) -> set[Key]:
        if self.draining:
            return set()
        # A replica that leaves knows nothing new, and one that is cut off from the others knows fewer.
        told: dict[str, str] = {}
        for tunnel in self.tunnels:
            if tunnel.ready and tunnel.goaway is None:
                told |= tunnel.replicas
        self._expect(told)
        urls = set(self.replicas.values())
        now = time.monotonic()
        if any(tunnel.ready for tunnel in self.tunnels):
            self._up_at = now
        if not urls or now - self._up_at > STRANDED_SECONDS:
            urls |= set(self.hubs)
        return {(url, lane) for url in urls for lane in range(self.lanes)}

    def _expect(self, told: dict[str, str]) -> None:
        if not told or told == self.replicas:
            return
        before, self.replicas = self.replicas, told
        if self.counters is not None:
            for hub in before.keys() | told.keys():
                self.counters(hub).expected = self.lanes if hub in told else 0

    def _reconcile(self) -> None:
        wanted = self._wanted()
        # All who lost their hub turn to its configured address at the same moment: not in a herd.
        stranded = bool(self.replicas) and not self.connected
        for key in wanted - self._keepers.keys():
            keeper = Keeper(self, *key)
            wait = self.jitter() * QUICK_CAP if stranded else 0.0
            self._keepers[key] = keeper, spawn(keeper.run(wait), f"tunnel:{key[0]}#{key[1]}")
        # An unwanted tunnel goes only when its replica is served by another one: make before break.
        served = {(t.hub, t.lane) for t in self.tunnels if t.ready and (t.url, t.lane) in wanted}
        for key in self._keepers.keys() - wanted:
            mine = [t for t in self.tunnels if (t.url, t.lane) == key]
            if all((t.hub, t.lane) in served or t.hub not in self.replicas for t in mine):
                self._keepers.pop(key)[1].cancel()
                for tunnel in mine:
                    # A replica that drains closes by itself when its last request is answered.
                    if tunnel.goaway is None:
                        tunnel.leave()

    # ---- identity ------------------------------------------------------------------------------------------------

    def context(self) -> ssl.SSLContext:
        """The TLS context for new tunnels. Raises ConfigError."""
        if self._context is None:
            self._context_of = self._identity_files()
            self._context = tunnel_client_context(self.identity)
        return self._context

    def _follow_identity(self) -> None:
        """A new certificate, key or CA: every tunnel is replaced by one that was opened with them."""
        stamps = self._identity_files()
        if self._context is None or stamps == self._context_of:
            return
        try:
            self._context = tunnel_client_context(self.identity)
        except (ConfigError, OSError) as e:
            log.warning("the new identity cannot be used yet", extra={"reason": str(e)})
            return
        self._context_of = stamps
        log.info("a new identity is in force", extra={"satellite": self.name})
        for keeper, _ in self._keepers.values():
            keeper.roll()

    def _identity_files(self) -> list[object]:
        return [fingerprint(self.identity / name) for name in (IDENTITY_CERT, IDENTITY_KEY, IDENTITY_CA)]

    # ---- called by tunnels ---------------------------------------------------------------------------------------

    def welcomed(self, tunnel: AgentTunnel) -> None:
        """A tunnel is ready: register on it what is healthy."""
        self.problem = ""
        if self.counters is not None:
            self.counters(tunnel.hub).up(tunnel.session)
        self.register_on(tunnel, list(self.healthy.values()))
        self.wake()

    def tunnel_ended(self, tunnel: AgentTunnel) -> None:
        self.tunnels.discard(tunnel)
        if self.counters is not None and tunnel.hub:
            counters = self.counters(tunnel.hub)
            counters.down(tunnel.session)
            if not tunnel.leaving:
                counters.reconnects += 1
        self.wake()

    # ---- exports -------------------------------------------------------------------------------------------------

    def set_health(self, name: str, spec: dict[str, object] | None) -> None:
        """A service became healthy (`spec` in wire form) or, with None, unhealthy."""
        if spec is None:
            if self.healthy.pop(name, None) is not None:
                self._deregister([name], "unhealthy")
            return
        self.healthy[name] = spec
        for tunnel in self.tunnels:
            if tunnel.ready:
                self.register_on(tunnel, [spec])

    def withdraw(self, names: list[str]) -> None:
        """Services were taken out of the exports."""
        for name in names:
            self.healthy.pop(name, None)
        self._deregister(names, "removed")

    def register_on(self, tunnel: AgentTunnel, specs: list[dict[str, object]]) -> None:
        """REGISTER in as many frames as it takes; an empty one says that there is nothing to serve yet."""
        batch: list[dict[str, object]] = []
        size = 0
        for spec in specs:
            needed = len(json.dumps(spec)) + 1
            if batch and size + needed > REGISTER_BYTES:
                tunnel.session.send_control(frames.REGISTER, {"services": batch})
                batch, size = [], 0
            batch.append(spec)
            size += needed
        if batch or not specs:
            tunnel.session.send_control(frames.REGISTER, {"services": batch})

    def _deregister(self, names: list[str], reason: str) -> None:
        for tunnel in self.tunnels:
            if tunnel.ready and names:
                tunnel.session.send_control(frames.DEREGISTER, {"services": names, "reason": reason})
