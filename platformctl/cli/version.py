"""`platformctl version`."""

from __future__ import annotations

import platform
from typing import Annotated, Any

import typer

from platformctl import __version__, speedups
from platformctl.cli.connection import Connection, connected
from platformctl.cli.output import Format, FormatOption, document, plain
from platformctl.errors import PlatformError

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
@connected
def version(
    connection: Connection,
    client: Annotated[bool, typer.Option("--client", help="Do not ask the hub.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the version of this command, and of the hub when there is one and it answers.

    The hot path is the code that each request passes through: compiled, or pure Python and why (`make speedups`).
    """
    own = {"version": __version__, "python": platform.python_version(), "hot_path": speedups.state()}
    found: dict[str, Any] = {"client": own, "hub": None}
    reason = ""
    if not client:
        try:
            with connection.client(timeout=3.0) as hub:
                found["hub"] = hub.get("version")
        except PlatformError as e:
            reason = e.message
    if output in (Format.JSON, Format.YAML):
        typer.echo(document(found, output))
        return
    typer.echo(f"platformctl {__version__} (Python {own['python']}; hot path: {own['hot_path']})")
    if found["hub"]:
        version, replica, hot_path = (plain(found["hub"].get(key)) for key in ("version", "replica", "hot_path"))
        typer.echo(f"hub {version} (replica {replica}; hot path: {hot_path})")
    elif reason:
        typer.echo(f"hub not asked: {reason}", err=True)
