"""The data path of every satellite through every replica: requests and bodies, against verify's own echo backend."""

from __future__ import annotations

import asyncio
import hashlib
import secrets

from platformctl.verify.client import Problem
from platformctl.verify.context import Context
from platformctl.verify.load import Target, closed_loop
from platformctl.verify.model import Check, CheckFailed
from platformctl.verify.sample_http import pattern

__all__ = ["CHECKS", "NEEDS"]

NEEDS = ("connected", "export-live")
BODY = 1 << 20
TOGETHER = 64
TOGETHER_WITHIN = 8.0
LATENCY_REQUESTS = 200
LATENCY_CONNECTIONS = 4
SLOW_P99_MS = 250.0


async def unary(ctx: Context) -> str:
    nonce = secrets.token_hex(8)
    response = await ctx.client.post_ok(ctx.path("http", "/echo"), nonce.encode())
    if response.text != nonce:
        raise CheckFailed(f"sent {len(nonce)} bytes, and {len(response.content)} other bytes came back")
    return "a request and its answer"


async def upload(ctx: Context) -> str:
    body = pattern(BODY)
    answer = (await ctx.client.post_ok(ctx.path("http", "/sha256"), body)).json()
    if answer["bytes"] != BODY:
        raise CheckFailed(f"sent {BODY} bytes, and {answer['bytes']} arrived at the backend")
    if answer["sha256"] != hashlib.sha256(body).hexdigest():
        raise CheckFailed("the body that arrived at the backend has another SHA-256")
    return "1 MiB to the backend, same SHA-256"


async def download(ctx: Context) -> str:
    body = (await ctx.client.get_ok(ctx.path("http", f"/bytes/{BODY}"))).content
    if len(body) != BODY:
        raise CheckFailed(f"the backend sent {BODY} bytes, and {len(body)} came back")
    if hashlib.sha256(body).digest() != hashlib.sha256(pattern(BODY)).digest():
        raise CheckFailed("the body that came back has another SHA-256")
    return "1 MiB from the backend, same SHA-256"


async def concurrent(ctx: Context) -> str:
    """The backend answers none of the requests before all of them are there: 64 streams are truly open at once."""
    key = secrets.token_hex(8)
    path = ctx.path("http", f"/rendezvous/{key}/{TOGETHER}")
    bodies = [f"{key} {number}".encode() for number in range(TOGETHER)]
    try:
        async with asyncio.timeout(TOGETHER_WITHIN):
            responses = await asyncio.gather(*(ctx.client.post_ok(path, body) for body in bodies))
    except TimeoutError:
        arrived = ctx.shared.backend.services.app.arrived(key)
        hint = f"A concurrency or connection limit below {TOGETHER} holds the rest back: see `limits` of the exports."
        raise CheckFailed(f"{arrived} of {TOGETHER} requests reached the backend together", hint) from None
    crossed = sum(response.content != body for response, body in zip(responses, bodies, strict=True))
    if crossed:
        raise CheckFailed(f"{crossed} of {TOGETHER} answers belong to another request")
    return f"{TOGETHER} requests at once, each with its own answer"


async def latency(ctx: Context) -> str:
    url = ctx.replica.public_url + ctx.path("http", "/healthz")
    target = Target(url, headers=ctx.client.authorization(), tls=ctx.env.tls)
    result = await closed_loop(target, connections=LATENCY_CONNECTIONS, requests=LATENCY_REQUESTS, seconds=8.0)
    if result.failed or not result.requests:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(result.errors.items())) or "no answer"
        raise CheckFailed(f"{result.failed} of {result.requests + result.failed} requests failed: {kinds}", fatal=True)
    figures = f"p50 {result.p50_ms:.1f} ms, p99 {result.p99_ms:.1f} ms"
    if result.p99_ms > SLOW_P99_MS:
        hint = (
            "The path is slow: compare with the round-trip time in `platformctl status` and the load of both machines."
        )
        raise CheckFailed(f"{figures}, which is over {SLOW_P99_MS:.0f} ms", hint)
    return figures


async def unknown_service(ctx: Context) -> str:
    for what, path in (
        ("service", f"/s/{ctx.satellite.name}/verify-no-such-service/"),
        ("satellite", "/s/verify-no-such-satellite/any/"),
    ):
        response = await ctx.client.request("GET", path)
        kind = response.headers.get("content-type", "")
        if response.status_code != 404:
            raise CheckFailed(f"an unknown {what} is answered {response.status_code}, not 404")
        if not kind.startswith("application/problem+json"):
            raise CheckFailed(f"the 404 of an unknown {what} is {kind or 'of no type'}, not application/problem+json")
        document = response.json()
        problem = Problem(404, response.content, kind)
        if document.get("status") != 404 or not problem.code or not problem.hint or not document.get("request_id"):
            raise CheckFailed(f"the 404 of an unknown {what} lacks its status, code, hint or request_id")
    return "404 with a problem document"


CHECKS = (
    Check(
        name="unary",
        category="data path",
        scope="path",
        description="A small request reaches the backend, and its answer comes back.",
        run=unary,
        remedy="The path does not carry a plain request: the detail has the hub's answer.",
        needs=NEEDS,
        backend=True,
    ),
    Check(
        name="upload",
        category="data path",
        scope="path",
        description="1 MiB reaches the backend with the SHA-256 it was sent with.",
        run=upload,
        remedy="Bodies towards the backend are cut, changed or refused: the detail says which.",
        needs=NEEDS,
        backend=True,
        deadline=20.0,
    ),
    Check(
        name="download",
        category="data path",
        scope="path",
        description="1 MiB comes back from the backend with the SHA-256 it was sent with.",
        run=download,
        remedy="Bodies from the backend are cut, changed or refused: the detail says which.",
        needs=NEEDS,
        backend=True,
        deadline=20.0,
    ),
    Check(
        name="concurrent",
        category="data path",
        scope="path",
        description="64 requests are in flight at once, and each gets its own answer.",
        run=concurrent,
        remedy="Requests wait for each other or are mixed up: the detail says which.",
        needs=NEEDS,
        backend=True,
        deadline=20.0,
    ),
    Check(
        name="latency",
        category="data path",
        scope="path",
        description="200 requests on 4 connections: p50 and p99, with a warning when the p99 is over 250 ms.",
        run=latency,
        remedy="Requests fail under a light load: the detail counts them by kind.",
        severity="warning",
        deadline=15.0,
        needs=NEEDS,
        backend=True,
        alone=True,
    ),
    Check(
        name="unknown-service",
        category="data path",
        scope="path",
        description="A service or satellite that does not exist is a 404 with a problem document (RFC 9457).",
        run=unknown_service,
        remedy="The hub, or a proxy before it, answers for services that do not exist: call the replica's own address.",
        needs=("connected",),
    ),
)
