"""`platformctl down`."""

from __future__ import annotations

from typing import Annotated

import typer

from platformctl.cli.connection import default_state
from platformctl.cli.contexts import Contexts, config_path
from platformctl.cli.signals import uninterrupted
from platformctl.cli.up import LOCAL, StateOption

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def down(
    state: StateOption = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete the state too: CA, tokens, identities, policy, logs.")
    ] = False,
    grace: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long streams may finish before a process is killed.")
    ] = 10.0,
) -> None:
    """Stop what `platformctl up` started; the state stays, and `up` continues from it.

    Without --state: the folder of the context `local`, else the default one. Only processes that `up` recorded are
    signalled, and only while they are still the same processes.
    """
    from platformctl.deploy import local

    contexts = Contexts.load(config_path())
    known = contexts.known.get(LOCAL)
    folder = (state or default_state()).expanduser().absolute()
    if state is None and known and known.state:
        folder = type(folder)(known.state)
    with uninterrupted():
        count = local.down(folder, lambda text: typer.echo(f"  {text}", err=True), grace=grace)
    if count:
        typer.echo(f"Stopped {count} process{'' if count == 1 else 'es'} of {folder}.")
    else:
        typer.echo(f"Nothing runs in {folder}.")
    if purge and not local.purge(folder):
        typer.echo("There is no state to delete.")
    elif purge:
        if known and known.state == str(folder):
            del contexts.known[LOCAL]
            contexts.current = "" if contexts.current == LOCAL else contexts.current
            contexts.save()
        typer.echo(f"Deleted the state in {folder}.")
