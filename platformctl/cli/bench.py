"""`platformctl bench`."""

from __future__ import annotations

import asyncio
from typing import Annotated
from urllib.parse import urlsplit

import typer

from platformctl.cli.connection import Connection, connected
from platformctl.cli.output import Format, FormatOption, document
from platformctl.errors import UsageError

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
@connected
def bench(
    connection: Connection,
    url: Annotated[str, typer.Argument(metavar="URL", help="A URL, or a path of the hub such as /s/sat-1/api/.")],
    connections: Annotated[
        int, typer.Option("-c", "--connections", min=1, max=10000, help="Kept open, one request each.")
    ] = 16,
    duration: Annotated[float, typer.Option("-d", "--duration", metavar="SECONDS", min=0.1, help="How long.")] = 10.0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Send GET requests to a URL in a closed loop and print rate and latencies. Exit code 1 when a request failed.

    A path, and a URL at the hub, are sent with the context's token and CA; another server never gets the token. For
    figures with an open-loop load generator and peers side by side, see docs/benchmarks.md.
    """
    from platformctl.cli.client import read_token, tls_context
    from platformctl.cli.loading import Request, load

    target, own = None, url.startswith("/")
    if own or connection.named():
        target = connection.target()
    if own and target:
        url = target.hub + url
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is not an http:// or https:// URL, nor a path of the hub")
    hub = target is not None and target.serves(url)
    ca_file = target.ca_file if target and hub else None
    token = read_token(target.token_file) if target and hub and target.token_file else None
    tls = tls_context(ca_file) if parts.scheme == "https" else None
    result = asyncio.run(load(Request.get(url, tls, token), connections, duration))
    figures = result.to_dict()
    if output in (Format.JSON, Format.YAML):
        typer.echo(document({"url": url, "connections": connections, **figures}, output))
    else:
        typer.echo(f"{url}, {connections} connections, {result.seconds:.1f} s")
        typer.echo(f"  {figures['requests_per_second']} requests/s, {result.received / result.seconds / 1e6:.1f} MB/s")
        typer.echo(
            "  latency "
            + ", ".join(f"{key[:-3]} {figures[key]} ms" for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms"))
        )
        statuses = figures["statuses"]
        typer.echo(f"  answers {statuses}" + (f", errors {dict(result.errors)}" if result.errors else ""))
    raise typer.Exit(1 if result.failed or not result.latencies else 0)
