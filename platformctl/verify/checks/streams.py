"""Streams through every path: server-sent events, WebSocket, TCP. Nothing may be held back, reordered or changed."""

from __future__ import annotations

import asyncio
import json
import secrets

from picows import WSMsgType

from platformctl.verify.backend import EchoBackend
from platformctl.verify.checks.paths import NEEDS
from platformctl.verify.context import Context
from platformctl.verify.model import Check, CheckFailed

__all__ = ["CHECKS"]

EVENTS = 5
HELD = 2.0
"""Seconds after which an event that was sent and has not come is held back, not late."""
MESSAGES = (125, 126, 65536, 200_000)
"""Bytes: on both sides of where a WebSocket frame's length field grows (RFC 6455 section 5.2), and a large one."""
TCP_BYTES = 300_000


async def sse(ctx: Context) -> str:
    """Each event is sent only when the one before it was acknowledged, so none can wait for company on the way."""
    key = secrets.token_hex(8)
    path = ctx.path("http", f"/events?count={EVENTS}&ack={key}")
    numbers: list[int] = []
    try:
        async with asyncio.timeout(HELD) as held, ctx.client.stream(path) as response:
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise CheckFailed(f"the content type came as {kind or 'nothing'}, not text/event-stream")
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                numbers.append(json.loads(line.removeprefix("data:"))["n"])
                held.reschedule(asyncio.get_running_loop().time() + HELD)
                if len(numbers) < EVENTS:
                    await ctx.client.post_ok(ctx.path("http", f"/events/{key}/ack"), b"")
    except TimeoutError:
        hint = "Something buffers streams, a proxy before the hub or compression: events must pass as they come."
        raise CheckFailed(f"event {len(numbers)} was sent, and had not come after {HELD:g} s", hint) from None
    if numbers != list(range(EVENTS)):
        raise CheckFailed(f"events 0 to {EVENTS - 1} were sent, and came as {numbers}")
    return f"{EVENTS} events in order, each before the next was sent"


async def websocket(ctx: Context) -> str:
    socket = await ctx.client.websocket(ctx.path("websocket"))
    try:
        for size in MESSAGES:
            message = secrets.token_bytes(size)
            socket.send(message)
            if await socket.receive() != message:
                raise CheckFailed(f"a message of {size} bytes came back changed")
        socket.send("grüße, 世界".encode(), WSMsgType.TEXT)
        if (await socket.receive()).decode() != "grüße, 世界":
            raise CheckFailed("a text message came back changed")
    finally:
        await socket.close()
    return f"{len(MESSAGES) + 1} messages and their echoes"


async def tcp(ctx: Context) -> str:
    data = secrets.token_bytes(TCP_BYTES)
    async with ctx.client.connect(f"{EchoBackend.name('tcp')}.{ctx.satellite.name}:1") as (reader, writer):
        # The first byte must come back on its own, before there is a second: nothing waits for a fuller buffer.
        writer.write(data[:1])
        got = await reader.readexactly(1)
        writer.write(data[1:])
        rest, _ = await asyncio.gather(reader.readexactly(TCP_BYTES - 1), writer.drain())
    if got + rest != data:
        raise CheckFailed(f"{TCP_BYTES} bytes came back changed")
    return f"{TCP_BYTES // 1000} kB and their echo"


CHECKS = (
    Check(
        name="sse",
        category="data path",
        scope="path",
        description="Server-sent events come in order, and each before the next is sent: nothing is buffered.",
        run=sse,
        remedy="The event stream broke off or was changed: the detail says how.",
        needs=NEEDS,
        backend=True,
    ),
    Check(
        name="websocket",
        category="data path",
        scope="path",
        description="WebSocket messages of 125 B to 200 kB, and text, come back as they were sent.",
        run=websocket,
        remedy="The upgrade was refused or messages were changed: a proxy before the hub must pass on Upgrade.",
        needs=NEEDS,
        backend=True,
    ),
    Check(
        name="tcp",
        category="data path",
        scope="path",
        description="A TCP connection by CONNECT carries one byte at once, and 300 kB unchanged.",
        run=tcp,
        remedy="CONNECT was refused or bytes were changed: a proxy before the hub must pass on CONNECT.",
        needs=NEEDS,
        backend=True,
    ),
)
