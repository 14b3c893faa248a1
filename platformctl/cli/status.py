"""`platformctl status`: the platform at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from platformctl.cli.client import HubClient
from platformctl.cli.connection import Connection, connected, read_env
from platformctl.cli.output import Column, Format, FormatOption, coloured, document, instant, paint, plain, table
from platformctl.cli.repeat import TimeoutOption, WaitOption, WatchOption, wait_until
from platformctl.cli.repeat import watch as watch_output
from platformctl.cli.satellites import COLUMNS
from platformctl.deploy.readiness import complaints

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

_FIELDS = ("name", "labels", "state", "connected", "expected", "rtt_ms", "version", "services")
_REPLICAS = (
    Column("REPLICA", lambda item: item.get("id")),
    Column("STATE", lambda item: item.get("state")),
    Column("TUNNELS", lambda item: item.get("tunnels")),
    Column("VERSION", lambda item: item.get("version"), wide=True),
    Column("URL", lambda item: item.get("url"), wide=True),
    Column("STARTED", lambda item: instant(item.get("started_at")), wide=True),
)


def _collect(client: HubClient, state: Path | None) -> dict[str, Any]:
    version = client.get("version")
    found = {
        "hub": {"url": client.url, "version": version.get("version"), "replica": version.get("replica")},
        "replicas": client.items("replicas"),
        "satellites": [{key: item.get(key) for key in _FIELDS} for item in client.items("satellites")],
    }
    if state:
        # Of a local platform we see the processes, and can ask each what is wrong with it.
        found["problems"] = [{"name": name, "detail": detail} for name, detail in complaints(read_env(state))]
    return found


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
    problems = [f"{plain(each['name'])}: {plain(each['detail'])}" for each in status.get("problems", ())]
    if problems:
        parts.append("\n".join(paint(f"! {line}", "yellow") if look["colour"] else f"! {line}" for line in problems))
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

    With --wait, returns when all replicas are ready and every satellite has a tunnel to each of them. Of a local
    platform it also shows what is wrong with a process, such as an exports file that cannot be read.
    """
    state = connection.target().state
    with connection.client() as client:
        if watch:
            watch_output(lambda: _text(_collect(client, state), output))
        found = (
            wait_until(lambda: _collect(client, state), _missing, timeout=timeout) if wait else _collect(client, state)
        )
        typer.echo(_text(found, output))
