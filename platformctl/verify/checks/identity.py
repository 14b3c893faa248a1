"""Who is calling: what the backend is told, what callers cannot forge, who is refused, and that it is on record."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from pathlib import Path

import httpx

from platformctl.errors import excerpt
from platformctl.verify.checks.paths import NEEDS
from platformctl.verify.context import Context
from platformctl.verify.model import Check, CheckFailed, CheckSkipped

__all__ = ["CHECKS"]

FORGED_ADDRESS = "203.0.113.77"  # RFC 5737: documentation, nobody's
FORGED = {
    "platform-identity": "token:verify-forged",
    "platform-groups": "verify-forged",
    "x-forwarded-for": FORGED_ADDRESS,
    "x-real-ip": FORGED_ADDRESS,
    "forwarded": f"for={FORGED_ADDRESS}",
    "x-forwarded-host": "verify-forged.example",
    "x-forwarded-prefix": "/verify-forged",
}
EXPECTED = (
    "platform-identity",
    "x-request-id",
    "traceparent",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-prefix",
)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
AUDIT_WITHIN = 2.0
AUDIT_TAIL = 4 << 20


async def identity_headers(ctx: Context) -> str:
    trace, parent = secrets.token_hex(16), secrets.token_hex(8)
    sent = {"traceparent": f"00-{trace}-{parent}-01"}
    response = await ctx.client.get_ok(ctx.path("http", "/headers"), headers=sent)
    got = _at_backend(response)
    for name in EXPECTED:
        if len(got.get(name, [])) != 1 or not got[name][0]:
            raise CheckFailed(f"the backend got {len(got.get(name, []))} {name} fields, not one")
    match = _TRACEPARENT.fullmatch(got["traceparent"][0])
    if match is None or match[1] != trace:
        raise CheckFailed(f"the trace {trace} arrived as {excerpt(got['traceparent'][0])}")
    if any(ctx.client.token in value for values in got.values() for value in values):
        raise CheckFailed("the caller's token was passed on to the backend")
    told = response.headers.get("x-request-id")
    if told != got["x-request-id"][0]:
        raise CheckFailed("the request id of the answer is not the one that the backend got")
    return f"the backend sees {excerpt(got['platform-identity'][0])}"


async def forged_headers(ctx: Context) -> str:
    response = await ctx.client.get_ok(ctx.path("http", "/headers"), headers=FORGED)
    arrived = [
        name
        for name, values in _at_backend(response).items()
        for value in values
        if "verify-forged" in value or FORGED_ADDRESS in value
    ]
    if arrived:
        raise CheckFailed(f"forged by the client, and arrived at the backend: {', '.join(sorted(set(arrived)))}")
    return f"{len(FORGED)} forged headers, none arrives"


def _at_backend(response: httpx.Response) -> dict[str, list[str]]:
    got: dict[str, list[str]] = {}
    for name, value in response.json()["headers"]:
        got.setdefault(name.lower(), []).append(value)
    return got


async def unauthenticated(ctx: Context) -> str:
    for what, token in (("no token", None), ("an unknown token", f"verify.{secrets.token_hex(16)}")):
        response = await ctx.client.request("GET", ctx.path("http"), token=token)
        if response.status_code != 401:
            raise CheckFailed(f"a request with {what} is answered {response.status_code}, not 401")
        if "www-authenticate" not in response.headers:
            raise CheckFailed(f"the 401 for {what} has no WWW-Authenticate (RFC 9110 section 15.5.2)")
    return "401 without a token and with an unknown one"


async def denied(ctx: Context) -> str:
    response = await _denied_request(ctx)
    if response.status_code != 403:
        raise CheckFailed(f"an identity without rights is answered {response.status_code}, not 403")
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        raise CheckFailed("the 403 has no problem document (RFC 9457)")
    return "403 with a problem document"


async def _denied_request(ctx: Context) -> httpx.Response:
    token = ctx.env.denied_token
    if token is None:
        raise CheckSkipped(
            "the environment has no token without rights", "Name its file as `client_tokens.denied` in env.json."
        )
    return await ctx.client.request("GET", ctx.path("http"), token=token)


async def audit(ctx: Context) -> str:
    if not ctx.replica.audit_file:
        raise CheckSkipped("the replica's audit log is not on this machine")
    response = await _denied_request(ctx)
    request_id = response.headers.get("x-request-id", "")
    if not request_id:
        raise CheckFailed("the refusal carries no X-Request-Id to look for")
    path = Path(ctx.replica.audit_file)
    loop = asyncio.get_running_loop()
    end = loop.time() + AUDIT_WITHIN
    while True:
        record = await asyncio.to_thread(_record, path, request_id)
        if record is not None:
            return record
        if loop.time() >= end:
            raise CheckFailed(f"no record of request {request_id} in {path}")
        await asyncio.sleep(0.05)


def _record(path: Path, request_id: str) -> str | None:
    """What the record of a request says, if there is one; CheckFailed when its line is not JSON."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - AUDIT_TAIL))
            lines = [line for line in file.read().split(b"\n")[:-1] if request_id.encode() in line]
    except FileNotFoundError:
        return None
    if not lines:
        return None
    try:
        json.loads(lines[0])
    except ValueError as error:
        raise CheckFailed(f"the audit record of {request_id} is not JSON: {excerpt(lines[0])}") from error
    return "a denial is on record with its request id"


CHECKS = (
    Check(
        name="identity-headers",
        category="identity",
        scope="path",
        description="Identity, request id, trace and forwarding headers reach the backend; its token does not.",
        run=identity_headers,
        remedy="The hub sets these headers: something between it and the backend removes or repeats them.",
        needs=NEEDS,
        backend=True,
    ),
    Check(
        name="forged-headers",
        category="identity",
        scope="path",
        description="Identity and forwarding headers that the client made up do not arrive.",
        run=forged_headers,
        remedy="A backend could be told a false identity: take the hub out of service and report this.",
        needs=NEEDS,
        backend=True,
    ),
    Check(
        name="unauthenticated",
        category="identity",
        scope="path",
        description="A request with no token, or an unknown one, is a 401 with its challenge.",
        run=unauthenticated,
        remedy="Strangers reach services: check that the listener asks for an identity.",
        needs=NEEDS,
        backend=True,
    ),
    Check(
        name="denied",
        category="identity",
        scope="path",
        description="An identity that the access policy gives nothing is a 403 with a problem document.",
        run=denied,
        remedy="The access policy allows too much: look for a rule whose subjects match every identity.",
        needs=NEEDS,
        backend=True,
    ),
    Check(
        name="audit",
        category="audit",
        scope="path",
        description="A denial is in the replica's audit log, under its request id, within 2 s.",
        run=audit,
        remedy="The audit log is not written: check its path, and that the disk has room.",
        needs=(*NEEDS, "denied"),
        backend=True,
    ),
)
