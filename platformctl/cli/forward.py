"""`platformctl forward`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Annotated

import typer

from platformctl.cli.connection import Connection, Target, connected, read_env
from platformctl.errors import UsageError

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


def _ports(text: str | None) -> tuple[int, int]:
    """`LOCAL`, `LOCAL:` or `LOCAL:REMOTE` → (local, remote); the remote one only fills the authority."""
    local, _, remote = (text or "0").partition(":")
    try:
        ports = int(local or "0"), int(remote or "443")
    except ValueError:
        ports = (-1, -1)
    if not (0 <= ports[0] <= 65535 and 0 < ports[1] <= 65535):
        raise UsageError(f"{text!r} is not a port", hint="For example 5432: or 0: for a free one.")
    return ports


async def _run(target: Target, service: str, host: str, local: int, remote: int) -> None:
    from platformctl.cli.client import read_token, tls_context
    from platformctl.cli.forwarding import Forwarder, Route

    token = read_token(target.token_file) if target.token_file else None
    # On this machine the plain listener is as safe, and lets each direction close by itself, which TLS does not.
    hub = read_env(target.state)["http_url"] if target.state else target.hub
    tls = tls_context(target.ca_file) if hub.startswith("https:") else None
    route = Route(hub, f"{service}:{remote}", token, tls)
    # Ask once before listening: a wrong name or a missing right is told now, and not to the first client.
    _, writer = await route.dial()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    forwarder = Forwarder(route, lambda text: typer.echo(text, err=True))
    port = await forwarder.listen(host, local)
    typer.echo(f"{host}:{port} → {service}, through {hub}. Ctrl-C ends it.")
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ending.set)
    try:
        await ending.wait()
    finally:
        await forwarder.close()


@app.command()
@connected
def forward(
    connection: Connection,
    service: Annotated[
        str, typer.Argument(metavar="SERVICE.SATELLITE", help="The service; see `platformctl services`.")
    ],
    port: Annotated[str | None, typer.Argument(metavar="[PORT:]", help="Local port. [default: a free one]")] = None,
    address: Annotated[str, typer.Option(metavar="IP", help="Local address to listen on.")] = "127.0.0.1",
) -> None:
    """Forward a local TCP port to a service behind the hub: databases, gRPC, anything.

    Each connection becomes one stream through the hub, as this identity and under the access policy. A service that the
    hub does not have, or that this identity may not use, is told at once.
    """
    name, dot, satellite = service.partition(".")
    if not (name and dot and satellite):
        raise UsageError(f"{service!r} is not SERVICE.SATELLITE", hint="`platformctl services` lists them.")
    local, remote = _ports(port)
    asyncio.run(_run(connection.target(), service, address, local, remote))
