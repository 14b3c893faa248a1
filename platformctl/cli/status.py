"""`platformctl status`: the platform at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from platformctl.cli.client import HubClient
from platformctl.cli.connection import Connection, connected
from platformctl.cli.output import Column, Format, FormatOption, coloured, document, table
from platformctl.cli.repeat import TimeoutOption, WaitOption, WatchOption, wait_until
from platformctl.cli.repeat import watch as watch_output
from platformctl.cli.satellites import COLUMNS

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

_FIELDS = ("name", "labels", "state", "connected", "expected", "rtt_ms", "version", "services")
_REPLICAS = (
    Column("REPLICA", lambda item: item.get("id")),
    Column("STATE", lambda item: item.get("state")),
    Column("TUNNELS", lambda item: item.get("tunnels")),
    Column("VERSION", lambda item: item.get("version")),
    Column("URL", lambda item: item.get("url"), wide=True),
    Column("STARTED", lambda item: item.get("started_at"), wide=True),
)


def _collect(client: HubClient) -> dict[str, Any]:
    version = client.get("version")
    return {
        "hub": {"url": client.url, "version": version.get("version"), "replica": version.get("replica")},
        "replicas": client.items("replicas"),
        "satellites": [{key: item.get(key) for key in _FIELDS} for item in client.items("satellites")],
    }


def _missing(status: Mapping[str, Any]) -> str:
    lacking = [
        f"{each['name']} {each['connected']}/{each['expected']}" for each in status["satellites"] if _partly(each)
    ]
    lacking += [
        f"{each.get('id')} is {each.get('state')}" for each in status["replicas"] if each.get("state") != "ready"
    ]
    return f"not complete: {', '.join(lacking)}" if lacking else ""


def _partly(satellite: Mapping[str, Any]) -> bool:
    return not satellite["expected"] or (satellite["connected"] or 0) < satellite["expected"]


def _text(status: Mapping[str, Any], form: Format) -> str:
    if form in (Format.JSON, Format.YAML):
        return document(status, form)
    if form is Format.NAME:
        return "\n".join(f"satellite/{each['name']}" for each in status["satellites"])
    look = {"wide": form is Format.WIDE, "colour": coloured()}
    hub, satellites = status["hub"], status["satellites"]
    parts = [f"Hub {hub['url']}, version {hub['version']}", table(status["replicas"], _REPLICAS, **look)]
    parts.append(table(satellites, COLUMNS, **look) if satellites else "No satellite has joined.")
    return "\n\n".join(parts)


@app.command()
@connected
def status(
    connection: Connection,
    output: FormatOption = Format.TABLE,
    watch: WatchOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = 60.0,
) -> None:
    """Show the hub's replicas and how each satellite is connected to them.

    With --wait, returns when all replicas are ready and every satellite has a tunnel to each of them.
    """
    with connection.client() as client:
        if watch:
            watch_output(lambda: _text(_collect(client), output))
        found = wait_until(lambda: _collect(client), _missing, timeout=timeout) if wait else _collect(client)
        typer.echo(_text(found, output))
