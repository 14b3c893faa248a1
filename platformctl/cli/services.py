"""`platformctl services`."""

from __future__ import annotations

from typing import Annotated

import typer

from platformctl.cli.connection import Connection, connected
from platformctl.cli.listing import Item, Kind, show
from platformctl.cli.output import Column, Format, FormatOption
from platformctl.cli.repeat import TimeoutOption, WaitOption, WatchOption
from platformctl.errors import UsageError

__all__ = ["SERVICE", "app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

_COLUMNS = (
    Column("SERVICE", lambda item: item.get("name")),
    Column("SATELLITE", lambda item: item.get("satellite")),
    Column("KIND", lambda item: item.get("kind")),
    Column("STATE", lambda item: item.get("state")),
    Column("PATH", lambda item: item.get("path")),
    Column("HOST", lambda item: item.get("host"), wide=True),
    Column("IN-FLIGHT", lambda item: item.get("in_flight"), wide=True),
    Column("WAITING", lambda item: item.get("waiting"), wide=True),
    Column("TUNNELS", lambda item: item.get("tunnels"), wide=True),
)


def _name(item: Item) -> str:
    return f"{item.get('name')}.{item.get('satellite')}"


SERVICE = Kind("service", "services", _COLUMNS, _name, lambda item: item.get("state") == "healthy")


@app.command()
@connected
def services(
    connection: Connection,
    names: Annotated[list[str] | None, typer.Argument(metavar="SERVICE.SATELLITE", help="Only these.")] = None,
    satellite: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this satellite.")] = None,
    output: FormatOption = Format.TABLE,
    watch: WatchOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = 60.0,
) -> None:
    """List the services that satellites export, and where the hub serves them.

    With --wait, returns when every service (or every SERVICE.SATELLITE named) is healthy.
    """

    for name in names or ():
        if "." not in name:
            raise UsageError(f"{name!r} is not SERVICE.SATELLITE", hint=f"For example {name}.sat-1.")

    def kept(item: Item) -> bool:
        return satellite is None or item.get("satellite") == satellite

    show(connection, SERVICE, names or [], output, watching=watch, waiting=wait, timeout=timeout, keep=kept)
