"""`platformctl satellites`."""

from __future__ import annotations

from typing import Annotated

import typer

from platformctl.cli.connection import Connection, connected
from platformctl.cli.listing import Item, Kind, show
from platformctl.cli.output import Column, Format, FormatOption, few
from platformctl.cli.repeat import TimeoutOption, WaitOption, WatchOption

__all__ = ["COLUMNS", "SATELLITE", "app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

COLUMNS = (
    Column("NAME", lambda item: item.get("name")),
    Column("STATE", lambda item: item.get("state")),
    Column("TUNNELS", lambda item: f"{item.get('connected', 0)}/{item.get('expected', 0)}"),
    Column("RTT(MS)", lambda item: item.get("rtt_ms")),
    Column("LABELS", lambda item: item.get("labels")),
    Column("SERVICES", lambda item: item.get("services"), short=lambda item: few(item.get("services") or ())),
    Column("VERSION", lambda item: item.get("version"), wide=True),
    Column("INSTANCE", lambda item: item.get("instance"), wide=True),
)


def _complete(item: Item) -> bool:
    return bool(item.get("expected")) and item.get("connected", 0) >= item["expected"]


SATELLITE = Kind("satellite", "satellites", COLUMNS, lambda item: str(item.get("name")), _complete)


@app.command()
@connected
def satellites(
    connection: Connection,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these.")] = None,
    output: FormatOption = Format.TABLE,
    watch: WatchOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = 60.0,
) -> None:
    """List satellites: how each is connected, and what it exports.

    TUNNELS counts hub replicas: those that it has a tunnel to, of those that there are. With --wait, returns when
    every satellite (or every NAME) has a tunnel to every replica.
    """
    show(connection, SATELLITE, names or [], output, watching=watch, waiting=wait, timeout=timeout)
