"""The agent: keeps a tunnel (or several lanes) to every hub replica, and serves what the hub opens on them.

Reconciliation: what is wanted is a set of (URL, lane); each has a keeper that dials, waits until the tunnel ends, and dials
again. The wanted URLs are the hub's own list of replicas once one hub has told it, the configured ones before that, and
both while no tunnel is up. A tunnel that is no longer wanted is drained, never cut.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from picows import WSError, ws_connect

import platformctl
from platformctl.errors import PlatformError, excerpt
from platformctl.net.backoff import Backoff
from platformctl.net.filewatch import Stamp, fingerprint
from platformctl.net.tasks import spawn
from platformctl.net.tls import IDENTITY_CERT, tunnel_client_context
from platformctl.satellite.tunnel import AgentTunnel
from platformctl.wire import frames

if TYPE_CHECKING:
    from platformctl.satellite.services import Services
    from platformctl.telemetry.metrics import TunnelMetrics

log = logging.getLogger("platformctl.satellite.agent")

DIAL_SECONDS: Final = 10.0
# No tunnel for this long: the replica list may be stale, so the configured addresses are dialled as well.
STRANDED_SECONDS: Final = 5.0
# Asked to stay away (revoked, or a newer agent runs with this identity): try again, but seldom.
UNWELCOME_SECONDS: Final = 30.0
RECONCILE_SECONDS: Final = 1.0
REGISTER_BATCH: Final = 100

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
        jitter: Callable[[], float] = random.random,
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
        self._jitter = jitter
        self._keepers: dict[Key, asyncio.Task[Any]] = {}
        self._up_at = time.monotonic()
        self._wake = asyncio.Event()
        self._context: ssl.SSLContext | None = None
        self._context_of: Stamp = None

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
                    pass
                self._wake.clear()
        finally:
            for keeper in self._keepers.values():
                keeper.cancel()
            for tunnel in list(self.tunnels):
                tunnel.link.close("the agent stopped")

    async def drain(self, seconds: float) -> None:
        """Leave without losing a request: the hub opens nothing more, what runs ends, then the tunnels close."""
        self.draining = True
        for keeper in self._keepers.values():
            keeper.cancel()
        self._keepers.clear()
        for tunnel in list(self.tunnels):
            tunnel.leave()
        end = time.monotonic() + seconds
        while self.tunnels and time.monotonic() < end:
            await asyncio.sleep(0.05)

    def _wanted(self) -> set[Key]:
        if self.draining:
            return set()
        urls = set(self.replicas.values())
        stranded = not any(tunnel.ready for tunnel in self.tunnels)
        if not stranded:
            self._up_at = time.monotonic()
        if not urls or (stranded and time.monotonic() - self._up_at > STRANDED_SECONDS):
            urls |= set(self.hubs)
        return {(url, lane) for url in urls for lane in range(self.lanes)}

    def _reconcile(self) -> None:
        wanted = self._wanted()
        for key in wanted - self._keepers.keys():
            self._keepers[key] = spawn(self._keep(*key), f"tunnel:{key[0]}#{key[1]}")
        # An unwanted tunnel goes only when its replica is served by another one: make before break.
        served = {(t.hub, t.lane) for t in self.tunnels if t.ready and (t.url, t.lane) in wanted}
        for key in list(self._keepers.keys() - wanted):
            mine = [t for t in self.tunnels if (t.url, t.lane) == key]
            if all((t.hub, t.lane) in served or t.hub not in self.replicas for t in mine):
                self._keepers.pop(key).cancel()
                for tunnel in mine:
                    tunnel.leave()

    async def _keep(self, url: str, lane: int) -> None:
        """Dial, wait for the end, dial again."""
        backoff = Backoff(self._jitter)
        first = True
        while True:
            if not first:
                self.reconnects += 1
                await asyncio.sleep(backoff.next_delay())
            first = False
            tunnel = AgentTunnel(self, url, lane)
            try:
                await self._dial(tunnel)
            except (OSError, WSError, TimeoutError, PlatformError) as e:
                self.problem = f"{url}: {excerpt(str(e) or type(e).__name__, 200)}"
                log.warning("cannot connect to the hub", extra={"url": url, "reason": self.problem})
                continue
            backoff.connected(time.monotonic())
            try:
                await tunnel.ended.wait()
            except asyncio.CancelledError:
                tunnel.leave()
                raise
            backoff.disconnected(time.monotonic())
            if tunnel.goaway is not None:
                backoff.retry_after(self._stay_away(tunnel.goaway))

    def _stay_away(self, goaway: dict[str, Any]) -> float:
        code = goaway.get("code")
        if code in (frames.UNAUTHORIZED, frames.SUPERSEDED, frames.VERSION):
            self.problem = f"the hub refused this agent: {excerpt(str(goaway.get('reason', '')), 200)}"
            return UNWELCOME_SECONDS
        retry_after = goaway.get("retry_after", 0.0)
        return float(retry_after) if isinstance(retry_after, (int, float)) else 0.0

    async def _dial(self, tunnel: AgentTunnel) -> None:
        async with asyncio.timeout(DIAL_SECONDS):
            await ws_connect(
                lambda: tunnel.link,
                f"{tunnel.url}/tunnel",
                ssl_context=self._client_context(),
                websocket_handshake_timeout=DIAL_SECONDS,
                enable_auto_ping=False,
                max_frame_size=2 * frames.MAX_MESSAGE,
                max_redirects=0,
                extra_headers={"Sec-WebSocket-Protocol": frames.SUBPROTOCOL},
                logger_name="tunnel",
            )

    def _client_context(self) -> ssl.SSLContext:
        stamp = fingerprint(self.identity / IDENTITY_CERT)
        if self._context is None or stamp != self._context_of:
            self._context = tunnel_client_context(self.identity)
            self._context_of = stamp
        return self._context

    # ---- called by tunnels ---------------------------------------------------------------------------------------

    def welcomed(self, tunnel: AgentTunnel) -> None:
        """A tunnel is ready: register on it what is healthy."""
        self.problem = ""
        if self.counters is not None:
            counters = self.counters(tunnel.hub)
            counters.expected = self.lanes
            counters.up(tunnel.session)
        self.register_on(tunnel, list(self.healthy.values()))
        self._wake.set()

    def set_replicas(self, value: object) -> None:
        """The hub's list of replicas, from WELCOME or REPLICAS."""
        if not isinstance(value, list):
            return
        replicas: dict[str, str] = {}
        for item in value[:64]:
            if isinstance(item, dict) and isinstance(item.get("id"), str) and isinstance(item.get("url"), str):
                if item["url"].startswith("wss://"):
                    replicas[item["id"]] = item["url"].rstrip("/")
        if replicas != self.replicas:
            self.replicas = replicas
            self._wake.set()

    def tunnel_ended(self, tunnel: AgentTunnel) -> None:
        self.tunnels.discard(tunnel)
        if self.counters is not None and tunnel.hub:
            counters = self.counters(tunnel.hub)
            counters.down(tunnel.session)
            if not tunnel.leaving:
                counters.reconnects += 1
        self._wake.set()

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
        for start in range(0, max(len(specs), 1), REGISTER_BATCH):
            tunnel.session.send_control(frames.REGISTER, {"services": specs[start : start + REGISTER_BATCH]})

    def _deregister(self, names: list[str], reason: str) -> None:
        for tunnel in self.tunnels:
            if tunnel.ready and names:
                tunnel.session.send_control(frames.DEREGISTER, {"services": names, "reason": reason})
