"""What a check is given: the environment, its place in it, and the clients that are shared by all checks."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Any

from platformctl.net.tasks import spawn
from platformctl.verify.backend import EchoBackend, Exporter
from platformctl.verify.client import Problem, ReplicaClient, Unreachable
from platformctl.verify.environment import Environment, Replica, Satellite
from platformctl.verify.processes import trouble

__all__ = ["Context", "Shared"]

LIVE_WITHIN = 4.0
"""Seconds that an export may take to be live on a replica: twice what the platform promises, for a busy machine."""
POLL = 0.05


class Shared:
    """One run's clients and backend."""

    def __init__(self, env: Environment, exporter: Exporter) -> None:
        self.env = env
        self.clients = {replica.id: ReplicaClient(replica.public_url, env.token, env.tls) for replica in env.replicas}
        self.backend = EchoBackend(env, exporter)
        self._live: dict[str, asyncio.Task[float | None]] = {}

    async def live(self, ctx: Context) -> float | None:
        """Seconds until the replica knew the satellite's echo backend as healthy; None when it did not in time."""
        if ctx.place not in self._live:
            self._live[ctx.place] = spawn(_until_live(ctx), f"verify live {ctx.place}")
        return await asyncio.shield(self._live[ctx.place])

    async def close(self) -> None:
        for task in self._live.values():
            task.cancel()
        await asyncio.gather(*self._live.values(), return_exceptions=True)
        try:
            await self.backend.close()
        finally:
            for client in self.clients.values():
                await client.close()


@dataclass(frozen=True)
class Context:
    """`at_replica` and `at_satellite` are set as the check's scope says; asking for one that is not set is our bug."""

    shared: Shared
    at_replica: Replica | None = None
    at_satellite: Satellite | None = None

    @property
    def env(self) -> Environment:
        return self.shared.env

    @property
    def replica(self) -> Replica:
        assert self.at_replica is not None
        return self.at_replica

    @property
    def satellite(self) -> Satellite:
        assert self.at_satellite is not None
        return self.at_satellite

    @property
    def client(self) -> ReplicaClient:
        return self.shared.clients[self.replica.id]

    @property
    def place(self) -> str:
        if self.at_satellite and self.at_replica:
            return f"{self.at_satellite.name} via {self.at_replica.id}"
        if self.at_satellite:
            return self.at_satellite.name
        return self.at_replica.id if self.at_replica else ""

    def path(self, service: str, rest: str = "/") -> str:
        """The path on the hub of the echo backend's `http` or `websocket` service."""
        return f"/s/{self.satellite.name}/{EchoBackend.name(service)}{rest}"

    def through(self, replica: Replica) -> Context:
        return replace(self, at_replica=replica)

    async def registered(self) -> dict[str, dict[str, Any]]:
        """Name -> service, as this replica's registry has them for this satellite."""
        items = await self.client.list_all("/api/v1/services")
        return {str(item["name"]): item for item in items if item["satellite"] == self.satellite.name}

    async def seen(self) -> dict[str, Any] | None:
        """This satellite, as this replica sees it."""
        items = await self.client.list_all("/api/v1/satellites")
        return next((item for item in items if item["name"] == self.satellite.name), None)


async def _until_live(ctx: Context) -> float | None:
    if ctx.satellite.name in ctx.shared.backend.refusals:
        return None
    began = time.monotonic()
    wanted = set(ctx.shared.backend.names)
    while (waited := time.monotonic() - began) < LIVE_WITHIN:
        try:
            healthy = {name for name, item in (await ctx.registered()).items() if item["state"] == "healthy"}
        except (Problem, Unreachable):
            healthy = set()
        if wanted <= healthy:
            return waited
        if trouble(ctx.satellite.pid) or trouble(ctx.replica.pid):
            return None  # it will not come to be
        await asyncio.sleep(POLL)
    return None
