"""Hub replicas: alive, ready, and of one version."""

from __future__ import annotations

import httpx

from platformctl.verify.context import Context
from platformctl.verify.model import Check, CheckFailed, CheckSkipped
from platformctl.verify.network_errors import reason
from platformctl.verify.processes import trouble

__all__ = ["CHECKS"]


async def hub_ready(ctx: Context) -> str:
    state = trouble(ctx.replica.pid)
    if state:
        raise CheckFailed(f"process {ctx.replica.pid} {state}")
    base = ctx.replica.health_url
    if not base:
        raise CheckSkipped("the environment names no health listener", "Add `metrics_url` to the replica in env.json.")
    try:
        async with httpx.AsyncClient(timeout=5.0, trust_env=False, verify=ctx.env.tls) as client:
            response = await client.get(f"{base}/readyz")
    except httpx.HTTPError as error:
        raise CheckFailed(f"no answer from {base}/readyz: {reason(error)}") from error
    if response.status_code == 200:
        return "every check of /readyz passes"
    raise CheckFailed(*_not_ready(response))


def _not_ready(response: httpx.Response) -> tuple[str, str]:
    try:
        failed = [f"{row['name']}: {row['detail']}" for row in response.json()["failed"]]
    except (ValueError, KeyError, TypeError):
        failed = []
    if not failed:
        return f"/readyz answers {response.status_code}", ""
    return (
        f"/readyz answers {response.status_code}: {'; '.join(failed)}",
        f"The replica is not ready ({'; '.join(failed)}).",
    )


async def hub_api(ctx: Context) -> str:
    answer = (await ctx.client.get_ok("/api/v1/version")).json()
    return f"version {answer['version']}"


CHECKS = (
    Check(
        name="hub-ready",
        category="hub",
        scope="replica",
        description="The replica's process runs and every check of its /readyz passes.",
        run=hub_ready,
        remedy="The replica cannot do its work: its /readyz names the failing check, and its log has the cause.",
        retry_for=2.0,
    ),
    Check(
        name="hub-api",
        category="hub",
        scope="replica",
        description="The replica's control API answers this identity over verified TLS.",
        run=hub_api,
        remedy="The control API refused, or did not answer: check public URL, CA file and token in env.json.",
        needs=("hub-ready",),
    ),
)
