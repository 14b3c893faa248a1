"""Satellites: running, connected to every replica, and registered with exactly what they export."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpx

from platformctl.verify.backend import exported_backends, own
from platformctl.verify.context import LIVE_WITHIN, Context
from platformctl.verify.model import Check, CheckFailed, CheckSkipped
from platformctl.verify.network_errors import reason
from platformctl.verify.processes import trouble

__all__ = ["CHECKS"]


async def agent_running(ctx: Context) -> str:
    state = trouble(ctx.satellite.pid)
    if state:
        raise CheckFailed(f"process {ctx.satellite.pid} {state}")
    url = ctx.satellite.health_url.removesuffix("/readyz").removesuffix("/metrics").rstrip("/")
    if not url:
        if ctx.satellite.pid is None:
            raise CheckSkipped("neither the agent's process nor its health listener is known here")
        return "the process runs"
    try:
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            response = await client.get(f"{url}/livez")
    except httpx.HTTPError as error:
        raise CheckFailed(f"no answer from {url}/livez: {reason(error)}") from error
    if response.status_code != 200:
        raise CheckFailed(f"/livez answers {response.status_code}")
    return "the process runs and its /livez answers"


async def agent_ready(ctx: Context) -> str:
    url = ctx.satellite.health_url.removesuffix("/readyz").removesuffix("/metrics").rstrip("/")
    if not url:
        raise CheckSkipped("the agent's health listener is not known here")
    try:
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            response = await client.get(f"{url}/readyz")
        failed = {str(row["name"]): str(row["detail"]) for row in response.json()["failed"]}
    except httpx.HTTPError as error:
        raise CheckFailed(f"no answer from {url}/readyz: {reason(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckFailed(f"what {url}/readyz answers is not ours") from error
    if "exports" in failed:
        hint = "Put the exports file right: until then, what it said when it was last good stays exported."
        raise CheckFailed(f"exports: {failed['exports']}", hint)
    if failed:
        raise CheckFailed("; ".join(f"{name}: {detail}" for name, detail in failed.items()))
    return "every check of its /readyz passes"


async def connected(ctx: Context) -> str:
    seen = await ctx.seen()
    if seen is None:
        raise CheckFailed("the replica does not know this satellite")
    tunnels = await ctx.client.list_all("/api/v1/tunnels")  # each replica lists its own alone
    if not any(one["satellite"] == ctx.satellite.name and not one.get("draining") for one in tunnels):
        raise CheckFailed(
            f"no tunnel to this replica; it counts {seen['connected']} of {seen['expected']} for the satellite"
        )
    if seen["connected"] != seen["expected"]:
        raise CheckFailed(f"connected to {seen['connected']} of {seen['expected']} replicas")
    wanted = len(ctx.env.replicas)
    if ctx.env.all_replicas and seen["expected"] != wanted:
        hint = (
            f"{ctx.replica.id} does not see all {wanted} replicas: check that they share one store, and their leases."
        )
        raise CheckFailed(f"the replica expects {seen['expected']} tunnels, and there are {wanted} replicas", hint)
    return f"connected to {seen['connected']} of {seen['expected']} replicas"


async def registry(ctx: Context) -> str:
    backends = exported_backends(ctx.satellite)
    if backends is None:
        raise CheckSkipped("the satellite's exports file is not on this machine")
    exported = {name for name in backends if not own(name)}
    services = {name: item for name, item in (await ctx.registered()).items() if not own(name)}
    missing, extra = sorted(exported - services.keys()), sorted(services.keys() - exported)
    if missing:
        hint = f"{ctx.satellite.exports} names {_list(missing)}, the registry does not: the agent's log says why."
        raise CheckFailed(f"not registered: {_list(missing)}", await _silent(ctx, backends, missing) or hint)
    if extra:
        raise CheckFailed(f"registered, and not exported: {_list(extra)}")
    ill = sorted(name for name, item in services.items() if item["state"] != "healthy")
    if ill:
        hint = "The agent's health check of the backend fails: check that it answers where the exports file says."
        detail = _list([f"{name} is {services[name]['state']}" for name in ill])
        raise CheckFailed(detail, await _silent(ctx, backends, ill) or hint)
    return f"{len(exported)} exported, {len(services)} registered"


async def _silent(ctx: Context, backends: dict[str, str], names: list[str]) -> str:
    """Which of the backends accept no connection, as a sentence. The satellites of a local platform see what we see."""
    found = []
    for name in names[:5] if ctx.env.state else ():
        at = urlsplit(backends[name])
        try:
            async with asyncio.timeout(1.0):
                port = at.port or {"http": 80, "https": 443}.get(at.scheme, 0)
                _, writer = await asyncio.open_connection(at.hostname, port)
            writer.close()
        except (OSError, ValueError) as error:
            found.append(f"The backend of {name}, {at.netloc}, accepts no connection ({reason(error)})")
    return "; ".join(found) + ": start it, or correct the exports file." if found else ""


def _list(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


async def export_live(ctx: Context) -> str:
    if await ctx.shared.live(ctx) is None:
        raise CheckFailed(f"the echo backend was not live after {LIVE_WITHIN:g} s")
    return "the echo backend is live"


CHECKS = (
    Check(
        name="agent-running",
        category="satellites",
        scope="satellite",
        description="The satellite's agent runs and answers its /livez.",
        run=agent_running,
        remedy="The agent is not working: start it again with `platformctl satellite run`, or see its log.",
    ),
    Check(
        name="agent-ready",
        category="satellites",
        scope="satellite",
        description="The agent's own checks pass: it has an identity and tunnels, and its exports file can be read.",
        run=agent_ready,
        remedy="The detail says which of the agent's checks fails: see its log.",
        retry_for=2.0,
        needs=("agent-running",),
    ),
    Check(
        name="connected",
        category="satellites",
        scope="path",
        description="The replica has a tunnel of the satellite, and counts as many as there are replicas.",
        run=connected,
        remedy="The agent dials every replica that it is told of: its log says why a dial failed.",
        retry_for=2.0,
        needs=("hub-ready", "hub-api"),
    ),
    Check(
        name="registry",
        category="satellites",
        scope="path",
        description="The replica's registry holds what the satellite's exports file names, and each is healthy.",
        run=registry,
        remedy="The registry follows the exports file within two seconds: see the agent's log.",
        retry_for=2.0,
        needs=("connected", "agent-ready"),
    ),
    Check(
        name="export-live",
        category="satellites",
        scope="path",
        description="An export that was just added is live and healthy on the replica.",
        run=export_live,
        remedy="The agent watches its exports file and registers what is new: see its log.",
        needs=("connected", "agent-ready"),
        backend=True,
    ),
)
