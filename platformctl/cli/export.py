"""`platformctl export`: what satellites of a local platform export."""

from __future__ import annotations

import socket
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from platformctl.cli.connection import Connection, connected, from_state, read_env
from platformctl.cli.output import Column, Format, FormatOption, coloured, rows
from platformctl.cli.repeat import wait_until
from platformctl.errors import ConfigError, Conflict, NotFound, PlatformError, UsageError

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)

_NAME = Annotated[str, typer.Argument(metavar="NAME", help="Name of the service.")]
_SATELLITE = Annotated[str, typer.Option(metavar="SAT", help="Name of the satellite.")]
_WAIT = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when the hub has it.")]
_TIMEOUT = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long --wait waits.")]
_COLUMNS = (
    Column("SERVICE", lambda item: item["name"]),
    Column("SATELLITE", lambda item: item["satellite"]),
    Column("KIND", lambda item: item["kind"]),
    Column("TO", lambda item: item["to"]),
)


@app.callback()
def export() -> None:
    """Add, remove and list the services that satellites of a local platform export.

    A satellite elsewhere is told by its own exports file, which its agent watches.
    """


@app.command("add")
@connected
def add(
    connection: Connection,
    name: _NAME,
    satellite: _SATELLITE,
    to: Annotated[str, typer.Option(metavar="URL", help="http://host:port, https://host:port or tcp://host:port.")],
    health: Annotated[
        str | None, typer.Option(metavar="PATH", help="Check this path over HTTP. [default: check that it accepts TCP]")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a service of the same name.")] = False,
    wait: _WAIT = True,
    timeout: _TIMEOUT = 10.0,
) -> None:
    """Export a service: callable through the hub within two seconds.

    With --wait (the default) the command returns when the hub lists it as healthy.
    """
    from platformctl.cli.exporter import LocalExporter, exports_file
    from platformctl.deploy import exports

    state = connection.state()
    known = {str(each.get("name")): each for each in exports.listed(exports_file(state, satellite))}
    entry: dict[str, Any] = {"name": name, "to": to}
    if health:
        entry["health"] = {"type": "http", "path": health}
    _check(entry)
    if name in known and known[name] != entry and not replace:
        hint = "Replace it with --replace, or remove it first."
        raise Conflict(f"{satellite} exports {name!r} already, from {known[name].get('to')}", hint=hint)
    LocalExporter(state).change(satellite, [entry])
    if wait:
        _await(connection, satellite, name, True, timeout, to)
    env = read_env(state)
    typer.echo(f"{name}.{satellite} exported")
    if to.startswith("tcp://"):
        typer.echo(f"  platformctl forward {name}.{satellite} --state {state}")
    else:
        typer.echo(f"  {env['hub_url']}/s/{satellite}/{name}/")


@app.command("remove")
@connected
def remove(
    connection: Connection, name: _NAME, satellite: _SATELLITE, wait: _WAIT = True, timeout: _TIMEOUT = 10.0
) -> None:
    """Export a service no more; requests that run are finished."""
    from platformctl.cli.exporter import LocalExporter, exports_file
    from platformctl.deploy import exports

    state = connection.state()
    if all(each.get("name") != name for each in exports.listed(exports_file(state, satellite))):
        raise NotFound(f"{satellite} does not export {name!r}", hint="`platformctl export list` shows what it exports.")
    LocalExporter(state).change(satellite, remove=[name])
    if wait:
        _await(connection, satellite, name, False, timeout)
    typer.echo(f"{name}.{satellite} removed")


@app.command("list", short_help="List what the exports files say.")
@connected
def list_(
    connection: Connection,
    satellite: Annotated[str | None, typer.Option(metavar="SAT", help="Only this satellite's.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List what the exports files say; `platformctl services` says what the hub knows of it."""
    from platformctl.cli.exporter import exports_file
    from platformctl.deploy import exports

    state = connection.state()
    names = [satellite] if satellite else sorted(read_env(state).get("satellites", {}))
    items = [
        {
            **each,
            "satellite": sat,
            "kind": each.get("kind") or ("tcp" if str(each.get("to")).startswith("tcp:") else "http"),
        }
        for sat in names
        for each in exports.listed(exports_file(state, sat))
    ]
    form = rows(
        items,
        _COLUMNS,
        output,
        kind="export",
        name=lambda item: f"{item['name']}.{item['satellite']}",
        colour=coloured(),
    )
    if form:
        typer.echo(form)


def _await(connection: Connection, satellite: str, name: str, present: bool, timeout: float, to: str = "") -> None:
    """Ask each replica: a client may be served by any of them."""
    from pathlib import Path

    from platformctl.cli.client import HubClient

    target = from_state(connection.state(), "--state")
    urls = [each["public_url"] for each in read_env(connection.state())["replicas"]]
    for url in urls:
        with HubClient(url, token_file=target.token_file, ca_file=Path(target.ca_file or "")) as client:

            def lacking(items: list[dict[str, Any]], url: str = url) -> str:
                states = [each["state"] for each in items if (each["satellite"], each["name"]) == (satellite, name)]
                if present:
                    return (
                        "" if "healthy" in states else f"at {url}, {name}.{satellite} is {(states or ['unknown'])[0]}"
                    )
                return f"at {url}, {name}.{satellite} is still there" if states else ""

            try:
                wait_until(lambda: client.items("services"), lacking, timeout=timeout, interval=0.05)
            except PlatformError as e:
                log = read_env(connection.state())["satellites"][satellite]["log_file"]
                e.hint = f"{_unanswered(to)}The exports file is changed all the same. See {log}"
                raise


def _check(entry: dict[str, Any]) -> None:
    """UsageError for what no exports file may hold, before any file is touched."""
    from platformctl.deploy import exports
    from platformctl.satellite.exports import parse_exports

    try:
        parse_exports(exports.text([entry]), "")
    except ConfigError as e:
        raise UsageError(e.message.removeprefix("services[0]."), hint=e.hint) from e


def _unanswered(to: str) -> str:
    """ "Nothing listens at 127.0.0.1:8000. ", if that is so; satellites of a local platform see what we see."""
    at = urlsplit(to)
    address = at.hostname or "", at.port or {"http": 80, "https": 443}.get(at.scheme, 0)
    if not all(address):
        return ""
    try:
        socket.create_connection(address, timeout=1.0).close()
    except ConnectionRefusedError:
        return f"Nothing listens at {at.netloc}. "
    except OSError as e:
        return f"{at.netloc} cannot be reached: {e.strerror or e}. "
    return ""
