"""`platformctl bench`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from platformctl.cli.connection import Connection, connected
from platformctl.cli.output import Format, FormatOption, document, plain
from platformctl.errors import UsageError

if TYPE_CHECKING:
    from platformctl.verify.load import LoadResult

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
@connected
def bench(
    connection: Connection,
    url: Annotated[str, typer.Argument(metavar="URL", help="A URL, or a path of the hub such as /s/sat-1/api/.")],
    connections: Annotated[
        int, typer.Option("-c", "--connections", metavar="N", min=1, max=10000, help="Kept open, one request each.")
    ] = 16,
    duration: Annotated[float, typer.Option("-d", "--duration", metavar="SECONDS", min=0.1, help="How long.")] = 10.0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Send GET requests to a URL in a closed loop and print rate and latencies. Exit code 1 when a request failed.

    A path, and a URL at the hub, are sent with the context's token and CA; another server never gets the token. For
    figures with an open-loop load generator and peers side by side, see docs/benchmarks.md.
    """
    from platformctl.cli.client import read_token, tls_context
    from platformctl.verify.load import Target, closed_loop

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
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    typer.echo(f"{url}: {connections} connections for {duration:g} s …", err=True)
    load = closed_loop(Target(url, headers=headers, tls=tls), connections=connections, seconds=duration)
    result = asyncio.run(load)
    if output in (Format.JSON, Format.YAML):
        typer.echo(document({"url": url, **result.to_dict()}, output))
    else:
        typer.echo(_text(result))
    raise typer.Exit(1 if result.failed or not result.requests else 0)


def _text(result: LoadResult) -> str:
    rate = f"{result.rps:.0f} requests/s, {result.bytes_received / result.seconds / 1e6:.1f} MB/s"
    latency = f"p50 {result.p50_ms:.1f} ms, p90 {result.p90_ms:.1f} ms, p99 {result.p99_ms:.1f} ms"
    rows = [("answered", f"{result.requests} in {result.seconds:.1f} s")]
    if result.requests:
        rows += [("rate", rate), ("latency", f"{latency}, longest {result.max_ms:.1f} ms")]
    failed = ", ".join(f"{count} × {plain(kind)}" for kind, count in sorted(result.errors.items()))
    rows.append(("failed", f"{result.failed}" + (f": {failed}" if failed else "")))
    return "\n".join(f"{name:<9} {text}" for name, text in rows)
