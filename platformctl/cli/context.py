"""`platformctl context`: which hub the other commands talk to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from platformctl.cli.contexts import Context, Contexts, config_path
from platformctl.cli.output import Column, Format, FormatOption, coloured, rows
from platformctl.errors import Conflict, UsageError

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)

_NAME = Annotated[str, typer.Argument(metavar="NAME", help="Name of the context.")]
_FILE = typer.Option(metavar="FILE", exists=True, dir_okay=False, resolve_path=True)
_COLUMNS = (
    Column("CURRENT", lambda item: "*" if item["current"] else " "),
    Column("NAME", lambda item: item["name"]),
    Column("HUB", lambda item: item["hub"] or f"local platform in {item['state']}"),
    Column("TOKEN FILE", lambda item: item["token_file"], wide=True),
    Column("CA FILE", lambda item: item["ca_file"], wide=True),
)


@app.callback()
def context() -> None:
    """Choose which hub the other commands talk to.

    Contexts are kept in $PLATFORMCTL_CONFIG, or ~/.config/platformctl/config.yaml, which names token files and holds no
    token.
    """


@app.command("list")
def list_(output: FormatOption = Format.TABLE) -> None:
    """List contexts; the current one has a star."""
    contexts = Contexts.load(config_path())
    items = [
        {
            "name": name,
            "current": name == contexts.current,
            "hub": row.hub,
            "state": row.state,
            "token_file": row.token_file,
            "ca_file": row.ca_file,
        }
        for name, row in sorted(contexts.known.items())
    ]
    if text := rows(items, _COLUMNS, output, kind="context", name=lambda item: str(item["name"]), colour=coloured()):
        typer.echo(text)


@app.command("use")
def use(name: _NAME) -> None:
    """Make a context the current one."""
    contexts = Contexts.load(config_path())
    contexts.get(name)
    contexts.current = name
    contexts.save()
    typer.echo(f"Now using context {name}.")


@app.command("add")
def add(
    name: _NAME,
    hub: Annotated[str | None, typer.Option(metavar="URL", help="Public https:// address of the hub.")] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, resolve_path=True, help="Folder of a local platform.")
    ] = None,
    token_file: Annotated[Path | None, _FILE] = None,
    ca_file: Annotated[Path | None, _FILE] = None,
    use: Annotated[bool, typer.Option("--use", help="Make it the current one.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace one of the same name.")] = False,
) -> None:
    """Add a context: a hub with its token and CA files, or the folder of a local platform."""
    if bool(hub) == bool(state):
        raise UsageError("a context is either a hub or a local platform", hint="Give --hub URL or --state DIR.")
    if hub and not hub.startswith(("https://", "http://")):
        raise UsageError(f"{hub!r} is not an address", hint="It looks like https://hub.example.com.")
    contexts = Contexts.load(config_path())
    if name in contexts.known and not replace:
        raise Conflict(f"there is a context {name!r} already", hint="Replace it with --replace.")
    contexts.known[name] = Context(
        hub=hub or "", token_file=str(token_file or ""), ca_file=str(ca_file or ""), state=str(state or "")
    )
    if use or not contexts.current:
        contexts.current = name
    contexts.save()
    typer.echo(f"Context {name} added{' and in use' if contexts.current == name else ''}.")


@app.command("remove")
def remove(name: _NAME) -> None:
    """Remove a context. The files that it names are left alone."""
    contexts = Contexts.load(config_path())
    contexts.get(name)
    del contexts.known[name]
    if contexts.current == name:
        contexts.current = ""
    contexts.save()
    typer.echo(f"Context {name} removed.")
