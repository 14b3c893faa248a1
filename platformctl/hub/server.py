"""A hub replica: opens its listeners, keeps itself current, drains and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Any, Final

import aiofastnet

import platformctl
from platformctl.access.tokens import ClientTokens
from platformctl.errors import ConfigError, PlatformError, StoreError
from platformctl.hub.access_source import AccessSource
from platformctl.hub.config import HubConfig
from platformctl.hub.front import Front
from platformctl.hub.ingress import make_handler
from platformctl.hub.join import JoinConfig, JoinDesk
from platformctl.hub.join_decision import JoinRules
from platformctl.hub.presence import HEARTBEAT_SECONDS, Presence
from platformctl.hub.raw import make_raw
from platformctl.hub.serving import load_ca, serving_files
from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.hub.tunnel_listener import TunnelListener
from platformctl.hub.tunnels import HubTunnels
from platformctl.net.address import Address
from platformctl.net.asgi import App
from platformctl.net.deadlines import Deadlines
from platformctl.net.filewatch import FileWatch
from platformctl.net.health import Check, health_app
from platformctl.net.health_listener import health_server
from platformctl.net.http1 import HttpConnection, ServerOptions
from platformctl.net.loop import probe_lag, run, stop_on_signals
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

REFRESH_SECONDS: Final = 0.25
# While draining: how often to look whether the last request has ended.
DRAIN_STEP: Final = 0.05


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
            on_revoked=self._on_revoked,
        )
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
            changed=self._on_changed,
            counters=lambda satellite: self.metrics.tunnel(satellite, config.id),
            authenticate=self.access.authenticate,
        )
        self.tunnel_url = config.advertise.tunnel_url
        self.presence = Presence(
            self.store, config, self.tunnel_url, config.advertise.public_url, config.advertise.metrics_url
        )
        self._servers: list[asyncio.AbstractServer] = []
        self._front_servers: list[asyncio.AbstractServer] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._tunnel_listener: TunnelListener | None = None

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
        """Open every listener. Raises PlatformError when the configuration, the store or a port is not usable."""
        loop = asyncio.get_running_loop()
        self.access.load()
        self.front.apps.update(self.mounts)
        self.deadlines.start(loop)
        tls, bundle = serving_files(self.config, self.ca, sorted(self.access.satellites))
        public = ReloadingContext(lambda c, k, ca: public_server_context(c, k), tls.cert, tls.key)
        tunnel = ReloadingContext(_tunnel_context, tls.cert, tls.key, bundle)
        for context in (public, tunnel):
            self._tasks.append(spawn(context.watch().run(), "certificate-watch"))
        listeners = self.config.listeners
        desk = JoinDesk(
            JoinRules(self.store, self.ca, os.urandom),
            self.ca.cert_pem,
            time.time,
            self._audit_join,
            JoinConfig(approval=self.config.approval == "required", replicas=lambda: self.tunnels.replicas),
        )
        self._tunnel_listener = TunnelListener(self.tunnels, desk)
        for address in listeners.tunnel:
            self._servers.append(
                await self._opened(
                    address,
                    self._tunnel_listener.listen(address, tunnel.context, reuse_port=self.config.reuse_port),
                )
            )
        for address in listeners.public:
            await self._listen(address, lambda: self._connection("public"), public.context)
        for address in listeners.http:
            await self._listen(address, lambda: self._connection("http"), None)
        for address in listeners.sni:
            await self._listen(address, make_raw(self.front, None), None)
        for port in listeners.tcp:
            target = ServiceTarget(port.satellite, port.service, "")
            await self._listen(port.address, make_raw(self.front, target), None)
        app = health_app(self.checks, self.metrics.text, self.metrics.openmetrics)
        for address in listeners.health:
            self._servers.append(await self._opened(address, health_server(address, app, self.deadlines)))
        self._beat()
        self._tasks.append(spawn(self._keep_current(), "refresh"))
        self._tasks.append(spawn(probe_lag(self.metrics.loop_lag.observe), "lag-probe"))
        if self.config.policy is not None:
            watch = FileWatch([self.config.policy], self.access.reload_policy)
            self._tasks.append(spawn(watch.run(), "policy-watch"))
        log.info("hub replica is up", extra={"replica": self.config.id})

    async def _listen(self, address: Address, factory: Any, context: Any) -> None:
        server = await self._opened(
            address,
            aiofastnet.create_server(
                asyncio.get_running_loop(),
                factory,
                address.host or None,
                address.port,
                ssl=context,
                reuse_port=self.config.reuse_port,
                backlog=1024,
            ),
        )
        self._front_servers.append(server)

    async def _opened(self, address: Address, opening: Any) -> asyncio.AbstractServer:
        try:
            server: asyncio.AbstractServer = await opening
        except OSError as e:
            raise ConfigError(
                f"cannot listen on {address}: {e.strerror or e}",
                hint="Stop what uses the port, or choose another one in the configuration.",
            ) from e
        return server

    def _connection(self, listener: str) -> HttpConnection:
        return HttpConnection(self.options, make_handler(self.front))

    # ---- keeping current -----------------------------------------------------------------------------------------

    async def _keep_current(self) -> None:
        next_beat = 0.0
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            now = time.monotonic()
            self.front.expire_queues(now)
            try:
                self.access.refresh()
            except StoreError as e:
                self.presence.problem = e.message
            if now >= next_beat:
                next_beat = now + HEARTBEAT_SECONDS
                self._beat()

    def _beat(self) -> None:
        held = sorted({t.satellite for t in self.tunnels.members if t.lease is not None})
        if not self.draining:
            self.presence.beat(held, self.tunnels.set_replicas)

    def _on_changed(self) -> None:
        """A tunnel came or went; the next heartbeat tells the others."""
        asyncio.get_running_loop().call_soon(self._beat)

    def _on_access(self, policy: Any, tokens: ClientTokens) -> None:
        self.front.set_access(policy, tokens)

    def _on_revoked(self, satellite: str) -> None:
        log.warning("satellite lost its right to connect", extra={"satellite": satellite})
        self.tunnels.drop(satellite, "this satellite was revoked")

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
        """What readiness depends on."""
        return [
            ("draining", not self.draining, "shutting down" if self.draining else "serving"),
            ("store", not self.presence.problem, self.presence.problem or "reachable"),
            ("policy", not self.access.problem, self.access.problem or "loaded"),
        ]

    # ---- end -----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Leave without losing a request: readiness off, GOAWAY, no new connections, then wait for the streams."""
        self.draining = True
        self.options.draining = True
        with contextlib.suppress(StoreError):
            self.presence.leave()
        self.tunnels.drain(1.0)
        if self._tunnel_listener is not None:
            self._tunnel_listener.draining = True
        # What the kernel has accepted for us already is ours to serve: one more turn of the loop takes it in.
        await asyncio.sleep(DRAIN_STEP)
        for server in self._front_servers:
            server.close()
        for connection in list(self.options.connections):
            connection.drain()
        end = time.monotonic() + self.config.timeouts.drain
        while self._busy() and time.monotonic() < end:
            await asyncio.sleep(DRAIN_STEP)

    def _busy(self) -> bool:
        return bool(self.options.connections) or any(t.session.streams for t in self.tunnels.members)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.tunnels.close()
        for server in (*self._servers, *self._front_servers):
            server.close()
        for connection in list(self.options.connections):
            connection.transport.abort()
        self.deadlines.stop()
        await asyncio.sleep(0)
        if self.audit is not None:
            self.audit.close()
        self.store.close()


def _tunnel_context(cert: Path, key: Path, ca: Path | None) -> Any:
    assert ca is not None
    return tunnel_server_context(cert, key, ca)


async def serve(server: HubServer) -> int:
    """Start, wait for a signal, drain, end. A second signal ends at once."""
    stop = stop_on_signals()
    try:
        await server.start()
        await stop.wait()
        stop.clear()
        log.info("draining", extra={"replica": server.config.id})
        drain = spawn(server.drain(), "drain")
        hurry = spawn(stop.wait(), "second-signal")
        await asyncio.wait({drain, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        drain.cancel()
    finally:
        await server.close()
    return 0


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
        return await serve(server)

    try:
        return run(main())
    except OSError as e:
        raise PlatformError(f"the hub cannot run: {e}") from e
