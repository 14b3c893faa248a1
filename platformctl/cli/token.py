"""`platformctl token`: join tokens."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from platformctl.cli.connection import Connection, connected
from platformctl.cli.listing import Kind, show
from platformctl.cli.output import Column, Format, FormatOption, document, instant
from platformctl.errors import UsageError

__all__ = ["app", "duration", "labels"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)

_COLUMNS = (
    Column("ID", lambda item: item.get("id")),
    Column("SATELLITE", lambda item: item.get("satellite")),
    Column("STATE", lambda item: item.get("state")),
    Column("USES", lambda item: item.get("uses")),
    Column("EXPIRES", lambda item: instant(item.get("expires_at"))),
    Column("LABELS", lambda item: item.get("labels")),
    Column("CREATED", lambda item: instant(item.get("created_at")), wide=True),
    Column("USED", lambda item: instant(item.get("used_at")), wide=True),
)
_TOKEN = Kind("token", "tokens", _COLUMNS, lambda item: str(item.get("id")))
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@app.callback()
def token() -> None:
    """Create, list and revoke join tokens: each lets one satellite join, once, within minutes."""


def labels(pairs: list[str] | None) -> dict[str, str]:
    """`["region=eu", "role=gpu,tier=1"]` → {"region": "eu", …}; UsageError names what is not KEY=VALUE."""
    found: dict[str, str] = {}
    for pair in ",".join(pairs or []).split(","):
        key, equals, value = pair.strip().partition("=")
        if not pair.strip():
            continue
        if not equals or not key:
            raise UsageError(
                f"the label {pair!r} is not KEY=VALUE", hint="For example: --label region=eu --label role=gpu"
            )
        found[key] = value
    return found


def duration(text: str) -> int:
    """`90`, `90s`, `15m` or `1h` in seconds."""
    match = re.fullmatch(r"(\d{1,9})([smh]?)", text.strip())
    if not match or not int(match[1]):
        raise UsageError(f"{text!r} is not a duration", hint="For example: 90s, 15m or 1h.")
    return int(match[1]) * _UNITS[match[2]]


@app.command("create", short_help="Create a join token, and print the command that uses it.")
@connected
def create(
    connection: Connection,
    satellite: Annotated[str, typer.Option(metavar="NAME", help="The one satellite that may use it.")],
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label of the satellite; may be repeated.")
    ] = None,
    ttl: Annotated[str, typer.Option(metavar="DURATION", help="How long it can be used: 90s, 15m, 1h.")] = "15m",
    output: FormatOption = Format.TABLE,
) -> None:
    """Create a join token and print the exact command that uses it. It is shown this once."""
    body = {"satellite": satellite, "labels": labels(label), "ttl_seconds": duration(ttl)}
    with connection.client() as client:
        made = client.post("tokens", body)
    if output in (Format.JSON, Format.YAML):
        typer.echo(document(made, output))
    elif output is Format.NAME:
        typer.echo(f"token/{made['id']}")
    else:
        typer.echo(f"Run this where the satellite is, until {instant(made['expires_at'])}; it works once:\n", err=True)
        typer.echo(made["join_command"])


@app.command("list", short_help="List join tokens with their use and expiry.")
@connected
def list_(connection: Connection, output: FormatOption = Format.TABLE) -> None:
    """List join tokens with their use and expiry; their secrets are not kept anywhere."""
    show(connection, _TOKEN, [], output)


@app.command("revoke")
@connected
def revoke(
    connection: Connection, ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of `token list`.")]
) -> None:
    """Revoke join tokens. A satellite that joined with one stays joined."""
    with connection.client() as client:
        for each in ids:
            client.delete("tokens", each)
            typer.echo(f"token/{each} revoked")
