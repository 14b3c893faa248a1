"""Why a check failed, looked for from the processes outwards: the first cause found explains the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx

from platformctl.verify.client import Problem, Unreachable
from platformctl.verify.context import Context
from platformctl.verify.processes import NOT_RUNNING, trouble

__all__ = ["cause"]


async def cause(ctx: Context) -> str:
    """One or two sentences that name the cause and what to do; "" when everything we can look at is as it should be."""
    for look in _LOOKS:
        found = await look(ctx)
        if found:
            return found
    return ""


async def _hub_process(ctx: Context) -> str:
    if ctx.at_replica is None:
        return ""
    one = ctx.replica
    return _process(f"The process of hub replica {one.id}", one.pid, one.log_file, ctx.env.state)


async def _satellite_process(ctx: Context) -> str:
    if ctx.at_satellite is None:
        return ""
    one = ctx.satellite
    return _process(f"The agent of satellite {one.name}", one.pid, one.log_file, ctx.env.state)


def _process(what: str, pid: int | None, log: str, local: str) -> str:
    state = trouble(pid)
    if not state:
        return ""
    if state == NOT_RUNNING:
        how = f" with `platformctl up --state {local}`" if local else ""
        return f"{what} (pid {pid}) {state}: start it again{how}, and see {log or 'its log'}."
    return f"{what} (pid {pid}) {state}: let it go on with `kill -CONT {pid}`."


def _agents_log(ctx: Context) -> str:
    return ctx.satellite.log_file or "its log"


async def _hub_answers(ctx: Context) -> str:
    if ctx.at_replica is None:
        return ""
    try:
        await ctx.client.request("GET", "/api/v1/version")
    except Unreachable as error:
        where = f"{ctx.replica.id} does not answer at {ctx.replica.public_url}"
        return f"Hub replica {where} ({error}): check the address and its log."
    return ""


async def _tunnel(ctx: Context) -> str:
    if ctx.at_satellite is None or ctx.at_replica is None:
        return ""
    name, hub = ctx.satellite.name, ctx.replica.id
    try:
        seen = await ctx.seen()
        tunnels = await ctx.client.list_all("/api/v1/tunnels")
    except (Problem, Unreachable, KeyError, TypeError):
        return ""
    if seen is None:
        return f"Hub replica {hub} does not know a satellite {name}: join it with `platformctl join satellite`."
    if seen.get("state") == "revoked":
        return f"Satellite {name} was revoked: its certificate is refused until it joins anew."
    if any(item["satellite"] == name and not item.get("draining") for item in tunnels):
        return ""
    reason = await _agent_says(ctx)
    return (
        f"Satellite {name} has no tunnel to {hub}, though its agent was not found dead: "
        f"check that it reaches {ctx.replica.tunnel_url or 'the tunnel listener'}{reason}."
    )


async def _agent_says(ctx: Context) -> str:
    """What the agent's own readiness check complains about, as the end of a sentence."""
    url = ctx.satellite.health_url.removesuffix("/readyz").removesuffix("/metrics").rstrip("/")
    if not url:
        return f", and see {_agents_log(ctx)}"
    try:
        async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
            answer = (await client.get(f"{url}/readyz")).json()
        failed = "; ".join(f"{row['name']}: {row['detail']}" for row in answer["failed"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return f", and see {_agents_log(ctx)} (its health listener at {url} gives no answer either)"
    return f" (the agent says: {failed})" if failed else f", and see {_agents_log(ctx)}"


async def _backend(ctx: Context) -> str:
    if ctx.at_satellite is None or ctx.at_replica is None:
        return ""
    refusal = ctx.shared.backend.refusals.get(ctx.satellite.name)
    if refusal:
        return f"Verify could not export its echo backend into {ctx.satellite.name}: {refusal}"
    try:
        services = await ctx.registered()
    except (Problem, Unreachable, KeyError, TypeError):
        return ""
    if not ctx.shared.backend.services.ports:
        return ""
    for name in ctx.shared.backend.names:
        state = services[name]["state"] if name in services else "not registered"
        if state != "healthy":
            port = ctx.shared.backend.services.ports[name.rpartition("-")[2]]
            return (
                f"The echo backend {name} is {state} at {ctx.replica.id}: the agent of {ctx.satellite.name} must see "
                f"its exports file change and reach 127.0.0.1:{port}; see {_agents_log(ctx)}."
            )
    return ""


_LOOKS: tuple[Callable[[Context], Awaitable[str]], ...] = (
    _hub_process,
    _satellite_process,
    _hub_answers,
    _tunnel,
    _backend,
)
