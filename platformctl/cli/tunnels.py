"""`platformctl tunnels`."""

from __future__ import annotations

from typing import Annotated

import typer

from platformctl.cli.connection import Connection, connected
from platformctl.cli.listing import Item, Kind, show
from platformctl.cli.output import Column, Format, FormatOption, instant, size
from platformctl.cli.repeat import WatchOption

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

_COLUMNS = (
    Column("ID", lambda item: item.get("id")),
    Column("SATELLITE", lambda item: item.get("satellite")),
    Column("REPLICA", lambda item: item.get("replica")),
    Column("RTT(MS)", lambda item: item.get("rtt_ms")),
    Column("STREAMS", lambda item: item.get("streams")),
    Column("RECEIVED", lambda item: size(item.get("bytes_received"))),
    Column("SENT", lambda item: size(item.get("bytes_sent"))),
    Column("LANE", lambda item: item.get("lane"), wide=True),
    Column("DRAINING", lambda item: item.get("draining"), wide=True),
    Column("REMOTE", lambda item: item.get("remote"), wide=True),
    Column("CONNECTED", lambda item: instant(item.get("connected_at")), wide=True),
    Column("INSTANCE", lambda item: item.get("instance"), wide=True),
)

TUNNEL = Kind("tunnel", "tunnels", _COLUMNS, lambda item: str(item.get("id")))


@app.command()
@connected
def tunnels(
    connection: Connection,
    satellite: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this satellite.")] = None,
    output: FormatOption = Format.TABLE,
    watch: WatchOption = False,
) -> None:
    """List the tunnels that end at the hub replica that answers."""

    def kept(item: Item) -> bool:
        return satellite is None or item.get("satellite") == satellite

    show(connection, TUNNEL, [], output, watching=watch, keep=kept)
