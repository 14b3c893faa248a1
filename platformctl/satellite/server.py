"""A satellite's agent as a process: exports, health checks, tunnels, health listener, signals."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from typing import Any, Final

import platformctl
from platformctl.errors import ConfigError, PlatformError
from platformctl.net.deadlines import Deadlines
from platformctl.net.filewatch import FileWatch
from platformctl.net.health import Check, health_app
from platformctl.net.health_listener import health_server
from platformctl.net.loop import probe_lag, run, run_until_stopped
from platformctl.net.tasks import spawn
from platformctl.net.tls import IDENTITY_CERT
from platformctl.satellite.agent import Agent
from platformctl.satellite.config import SatelliteConfig
from platformctl.satellite.exports import Export, ExportsFile
from platformctl.satellite.health import HealthChecker
from platformctl.satellite.services import Services
from platformctl.telemetry.logs import configure
from platformctl.telemetry.metrics import SatelliteMetrics

log = logging.getLogger("platformctl.satellite")

DRAIN_SECONDS: Final = 30.0


class SatelliteServer:
    """One agent process."""

    def __init__(self, config: SatelliteConfig) -> None:
        if not (config.state / IDENTITY_CERT).exists():
            raise ConfigError(
                f"satellite {config.name} has no identity in its state folder",
                hint="Join it first: `platformctl join satellite` with a token from `platformctl token create`.",
            )
        self.config = config
        self.deadlines = Deadlines(time.monotonic)
        self.services = Services(self.deadlines)
        self.metrics = SatelliteMetrics(platformctl.__version__, config.name)
        self.agent = Agent(
            config.name,
            config.state,
            config.hubs,
            self.services,
            labels=dict(config.labels),
            lanes=config.lanes,
            counters=lambda hub: self.metrics.tunnel(config.name, hub),
        )
        self.file = ExportsFile(config.exports) if config.exports is not None else None
        self.health = HealthChecker(self._on_health, jitter=random.Random().random)
        self._tasks: list[asyncio.Task[Any]] = []
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.deadlines.start(loop)
        if self.file is not None:
            watch = FileWatch([self.file.path], self._reload)
            await self._reload()
            self._tasks.append(spawn(watch.run(), "exports-watch"))
            loop.add_signal_handler(signal.SIGHUP, watch.poke)
        else:
            loop.add_signal_handler(signal.SIGHUP, lambda: None)  # its default action is the end of the process
        if self.config.health is not None:
            app = health_app(self.checks, self.metrics.text, self.metrics.openmetrics)
            try:
                self._server = await health_server(self.config.health, app, self.deadlines)
            except OSError as e:
                raise ConfigError(f"cannot listen on {self.config.health}: {e.strerror or e}") from e
        self._tasks.append(spawn(self.agent.run(), "agent"))
        self._tasks.append(spawn(probe_lag(self.metrics.loop_lag.observe), "lag-probe"))

    async def _reload(self) -> None:
        assert self.file is not None
        changed, removed = self.file.reload()
        self.services.update(changed, removed)
        if removed:
            self.agent.withdraw(removed)
        self.health.update(changed, removed)
        self._count_exports()

    def _on_health(self, export: Export, healthy: bool) -> None:
        self.agent.set_health(export.name, export.spec.to_wire() if healthy else None)
        self._count_exports()
        log.info("service health changed", extra={"service": export.name, "healthy": healthy})

    def _count_exports(self) -> None:
        healthy = len(self.agent.healthy)
        self.metrics.exports_healthy.value = healthy
        self.metrics.exports_unhealthy.value = len(self.services.exports) - healthy

    def checks(self) -> list[Check]:
        """What readiness depends on: a tunnel, and exports that can be read."""
        agent = self.agent
        error = self.file.error if self.file is not None else None
        return [
            ("tunnels", agent.connected > 0, agent.problem or f"{agent.connected} of {agent.expected} connected"),
            ("exports", error is None, str(error) if error is not None else f"{len(self.services.exports)} services"),
            ("draining", not agent.draining, "shutting down" if agent.draining else "serving"),
        ]

    async def drain(self) -> None:
        """Leave without losing a request."""
        log.info("draining", extra={"satellite": self.config.name})
        await self.agent.drain(DRAIN_SECONDS)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.sleep(0)
        self.health.close()
        self.services.close()
        if self._server is not None:
            self._server.close()
        self.deadlines.stop()


def run_satellite(config: SatelliteConfig) -> int:
    """Run an agent until it is told to stop; the exit code.

    Raises:
        PlatformError: it could not start.
    """
    configure(format=config.log.format, level=config.log.level)

    async def main() -> int:
        return await run_until_stopped(SatelliteServer(config))

    try:
        return run(main())
    except OSError as e:
        raise PlatformError(f"the agent cannot run: {e}") from e
