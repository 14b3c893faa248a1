"""A hub replica: opens its listeners, keeps itself current, drains and ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import platformctl
from platformctl.access.tokens import ClientTokens
from platformctl.errors import PlatformError
from platformctl.hub.access_source import AccessSource
from platformctl.hub.config import HubConfig
from platformctl.hub.front import Front
from platformctl.hub.ingress import make_handler
from platformctl.hub.join import JoinConfig, JoinDesk
from platformctl.hub.join_decision import JoinRules
from platformctl.hub.listeners import FrontListeners, opened
from platformctl.hub.presence import Presence, Seen
from platformctl.hub.raw import make_raw
from platformctl.hub.serving import ServingCertificates, load_ca
from platformctl.hub.store import Replica
from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.hub.tunnel_listener import TunnelListener
from platformctl.hub.tunnels import HubTunnels
from platformctl.hub.upkeep import Upkeep
from platformctl.net.address import Address
from platformctl.net.asgi import App
from platformctl.net.deadlines import Deadlines
from platformctl.net.filewatch import FileWatch
from platformctl.net.health import Check, health_app
from platformctl.net.health_listener import health_server
from platformctl.net.http1 import HttpConnection, ServerOptions
from platformctl.net.loop import probe_lag, run, run_until_stopped
from platformctl.net.tasks import spawn
from platformctl.net.tls import public_server_context, tunnel_server_context
from platformctl.net.tls_reload import ReloadingContext
from platformctl.routing.addressing import Addressing, ServiceTarget
from platformctl.routing.endpoint import Endpoint
from platformctl.routing.registry import Registry
from platformctl.telemetry.audit import AuditLog
from platformctl.telemetry.logs import configure
from platformctl.telemetry.metrics import HubMetrics

log = logging.getLogger("platformctl.hub")

QUEUE_SECONDS: Final = 0.25
# A store that is locked for longer than this is in trouble, for what runs beside requests.
BUSY_SECONDS: Final = 2.0
# How long a new replica waits for the satellites that the others hold before it takes requests.
SETTLE_SECONDS: Final = 10.0
# While draining: how often to look whether the last request has ended.
DRAIN_STEP: Final = 0.05
# TLS handshakes that were under way when the listeners closed become connections within this time.
HANDSHAKE_SECONDS: Final = 0.25
# A kept connection has this long for one more request, which is answered with `Connection: close`; closing it under
# the client would lose a request that is on its way.
IDLE_SECONDS: Final = 2.0
# The first agent is asked to come back so soon after a drain.
RETURN_SECONDS: Final = 0.5


class HubServer:
    """One replica. `start`, then `drain`, then `close`.

    Attributes:
        mounts: ASGI applications by path prefix; the composition root fills it before `start`.
    """

    def __init__(self, config: HubConfig) -> None:
        self.config = config
        self.started_at = time.time()
        self.draining = False
        self.mounts: dict[str, App] = {}
        config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.store = SQLiteStore(config.state / "hub.db")
        self.ca = load_ca(self.store, config)
        self.audit = self._audit_log()
        self.metrics = HubMetrics(platformctl.__version__, self.audit)
        self.registry = Registry()
        self.metrics.watch(self.registry, time.monotonic)
        self.deadlines = Deadlines(time.monotonic)
        self.options = ServerOptions(self.deadlines, config.timeouts.head, config.timeouts.idle)
        self.access = AccessSource(
            self.store,
            config.policy,
            config.trust_domain,
            on_access=self._on_access,
            on_satellites=self._on_satellites,
        )
        self.certificates = ServingCertificates(config, self.ca)
        self.front = Front(
            addressing=Addressing(config.domain),
            registry=self.registry,
            options=self.options,
            clock=time.monotonic,
            wall=time.time,
            known=self.access.labels,
            audit=self.audit,
            audit_all=config.audit.decisions == "all",
            count_decision=self.metrics.count_decision,
            count_local=self.metrics.count_local,
            suspicious=self._on_suspicious,
            trusted_proxies=config.trusted_proxies,
            sample_ratio=config.sample_ratio,
        )
        self.tunnels = HubTunnels(
            self.registry,
            config.id,
            config.ping_interval,
            labels=self.access.active_labels,
            adopt=self._adopt,
            removed=self.front.removed,
            changed=lambda: self.upkeep.tell(),
            counters=lambda satellite: self.metrics.tunnel(satellite, config.id),
            authenticate=self.access.authenticate,
            retired_elsewhere=lambda *who: self.upkeep.seen.others(config.id).retired(*who),
        )
        self._own_store = SQLiteStore(config.state / "hub.db", busy_seconds=BUSY_SECONDS)
        self.upkeep = Upkeep(
            self._own_store, self.access, self.certificates, holds=self.tunnels.holds, on_seen=self._on_seen
        )
        self.tunnel_url = config.advertise.tunnel_url
        self._settled = False
        self._listeners = FrontListeners(reuse_port=config.reuse_port)
        self._health_servers: list[asyncio.AbstractServer] = []
        self._tunnel_servers: list[asyncio.Server] = []
        self._contexts: list[ReloadingContext] = []
        self._watches: list[FileWatch] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def _audit_log(self) -> AuditLog | None:
        target = self.config.audit.path
        if target is None:
            return None
        every = self.config.audit.decisions == "all"
        if str(target) == "-":
            return AuditLog(os.fdopen(os.dup(1), "wb", buffering=0), every_decision=every)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return AuditLog(target, every_decision=every)

    # ---- start ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open every listener, those for clients last. Raises PlatformError when the configuration, the store or a port
        is not usable.
        """
        self.access.load()
        self.certificates.issue(self.access.active(), time.time())
        self.tunnels.expect(self.access.active())
        self.front.apps.update(self.mounts)
        self.deadlines.start(asyncio.get_running_loop())
        app = health_app(self.checks, self.metrics.text, self.metrics.openmetrics)
        for address in self.config.listeners.health:
            self._health_servers.append(await opened(address, health_server(address, app, self.deadlines)))
        await self._listen_for_tunnels()
        public_url, metrics_url = self.config.advertise.public_url, self.config.advertise.metrics_url
        me = Replica(self.config.id, self.tunnel_url, public_url, metrics_url, 0.0)
        await self.upkeep.appear(Presence(self._own_store, me))
        self._tasks.append(spawn(self.upkeep.run(), "upkeep"))
        self._tasks.append(spawn(self._expire_queues(), "queues"))
        self._tasks.append(spawn(probe_lag(self.metrics.loop_lag.observe), "lag-probe"))
        if self.config.policy is not None:
            self._watch(FileWatch([self.config.policy], self.upkeep.reload_policy))
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        await self._settle()
        await self._listen_for_clients()
        self._settled = True
        log.info("hub replica is up", extra={"replica": self.config.id})

    async def _listen_for_tunnels(self) -> None:
        files = self.certificates.tunnel
        context = ReloadingContext(_tunnel_context, files.cert, files.key, self.certificates.client_ca)
        self._follow(context)
        desk = JoinDesk(
            JoinRules(self.store, self.ca, os.urandom),
            self.ca.cert_pem,
            time.time,
            self._audit_join,
            JoinConfig(approval=self.config.approval == "required", replicas=lambda: self.tunnels.replicas),
        )
        listener = TunnelListener(self.tunnels, desk)
        for address in self.config.listeners.tunnel:
            opening = listener.listen(address, context.context, reuse_port=self.config.reuse_port)
            self._tunnel_servers.append(await opened(address, opening))
        if not self.tunnel_url and self._tunnel_servers:
            address = Address(*self._tunnel_servers[0].sockets[0].getsockname()[:2])
            # Nobody can dial "any address": then agents keep to the address that they were given.
            self.tunnel_url = "" if ip_address(address.host).is_unspecified else f"wss://{address}"

    async def _listen_for_clients(self) -> None:
        listeners = self.config.listeners
        files = self.certificates.public
        context = ReloadingContext(lambda cert, key, ca: public_server_context(cert, key), files.cert, files.key)
        self._follow(context)
        for address in listeners.public:
            await self._listeners.open(address, self._connection, context)
        for address in listeners.http:
            await self._listeners.open(address, self._connection)
        for address in listeners.sni:
            await self._listeners.open(address, make_raw(self.front, None))
        for port in listeners.tcp:
            target = ServiceTarget(port.satellite, port.service, "")
            await self._listeners.open(port.address, make_raw(self.front, target))

    async def _settle(self) -> None:
        """Wait for the satellites that other replicas hold: until they are here too, requests are better off there."""
        end = time.monotonic() + SETTLE_SECONDS
        while self._awaited() and time.monotonic() < end:  # noqa: ASYNC110  # three things change it
            await asyncio.sleep(DRAIN_STEP)

    def _awaited(self) -> list[str]:
        """Satellites that another replica holds, and that have not registered here."""
        here = {one.name for one in self.registry.satellites() if one.registered}
        return sorted((self.upkeep.seen.others(self.config.id).held() & set(self.access.active())) - here)

    def _follow(self, context: ReloadingContext) -> None:
        self._contexts.append(context)
        self._watch(context.watch())

    def _watch(self, watch: FileWatch) -> None:
        self._watches.append(watch)
        self._tasks.append(spawn(watch.run(), "file-watch"))

    def _reload(self) -> None:
        """SIGHUP: read the policy and the certificates again."""
        for watch in self._watches:
            watch.poke()

    def _connection(self) -> HttpConnection:
        return HttpConnection(self.options, make_handler(self.front))

    # ---- keeping current -----------------------------------------------------------------------------------------

    async def _expire_queues(self) -> None:
        while True:
            await asyncio.sleep(QUEUE_SECONDS)
            self.front.expire_queues(time.monotonic())

    def _on_seen(self, seen: Seen) -> None:
        self.tunnels.set_replicas(seen.urls())

    def _on_access(self, policy: Any, tokens: ClientTokens) -> None:
        self.front.set_access(policy, tokens)

    def _on_satellites(self) -> None:
        self.tunnels.expect(self.access.active())
        self.tunnels.enforce(self.access.accepts)

    def _on_suspicious(self, endpoint: Endpoint, what: str) -> None:
        log.warning("satellite broke the rules", extra={"service": endpoint.key, "what": what})

    def _adopt(self, endpoint: Endpoint) -> None:
        if endpoint.metrics is None:
            endpoint.metrics = self.metrics.requests(endpoint.satellite, endpoint.service)

    def _audit_join(self, event: Any) -> None:
        if self.audit is not None:
            self.audit.record(event)

    # ---- health --------------------------------------------------------------------------------------------------

    def checks(self) -> list[Check]:
        """What readiness depends on. A broken policy file is only told: the former policy is in force."""
        awaited = "" if self._settled else f"waiting for satellites: {', '.join(self._awaited()[:10])}"
        certificates = "; ".join(str(one.error) for one in self._contexts if one.error is not None)
        return [
            ("draining", not self.draining, "shutting down" if self.draining else "serving"),
            ("store", not self.upkeep.problem, self.upkeep.problem or "reachable"),
            ("tunnels", not awaited, awaited or f"{self.registry.tunnel_count} connected"),
            ("certificates", not certificates, certificates or "in force"),
            ("policy", True, f"the former one is in force: {self.access.problem}" if self.access.problem else "loaded"),
        ]

    # ---- end -----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Leave without losing a request: readiness off, no new connections, GOAWAY; then wait for the streams."""
        log.info("draining", extra={"replica": self.config.id})
        self.draining = True
        self.options.draining = True
        end = time.monotonic() + self.config.timeouts.drain
        await self._listeners.drain()
        for server in self._tunnel_servers:
            server.close()
        self.tunnels.drain(RETURN_SECONDS)
        await self.upkeep.leave()
        await asyncio.sleep(HANDSHAKE_SECONDS)
        quiet = time.monotonic() + IDLE_SECONDS
        while self._busy() and time.monotonic() < end:
            if time.monotonic() >= quiet:
                for connection in list(self.options.connections):
                    connection.drain()
            await asyncio.sleep(DRAIN_STEP)

    def _busy(self) -> bool:
        return bool(self.options.connections) or any(t.session.streams for t in self.tunnels.members)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.tunnels.close()
        self._listeners.close()
        for server in (*self._tunnel_servers, *self._health_servers):
            server.close()
        for connection in list(self.options.connections):
            connection.transport.abort()
        self.deadlines.stop()
        await asyncio.sleep(0)
        self.upkeep.close()
        if self.audit is not None:
            self.audit.close()
        self.store.close()


def _tunnel_context(cert: Path, key: Path, ca: Path | None) -> Any:
    assert ca is not None
    return tunnel_server_context(cert, key, ca)


def run_hub(config: HubConfig) -> int:
    """Run a hub replica until it is told to stop; the exit code.

    Raises:
        PlatformError: it could not start.
    """
    configure(format=config.log.format, level=config.log.level)
    from platformctl.hub.api.app import create_api
    from platformctl.hub.console import console_app
    from platformctl.hub.view import ServerView

    async def main() -> int:
        server = HubServer(config)
        server.mounts["/api"] = create_api(ServerView(server))
        server.mounts["/console"] = console_app()
        return await run_until_stopped(server)

    try:
        return run(main())
    except OSError as e:
        raise PlatformError(f"the hub cannot run: {e}") from e
