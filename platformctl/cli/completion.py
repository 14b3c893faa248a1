"""`platformctl completion`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer import completion as typer_completion

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="Which shell the script is for.")]) -> None:
    """Print a completion script.

    bash: source <(platformctl completion bash).  zsh: source <(platformctl completion zsh).
    fish: platformctl completion fish | source.
    """
    # typer.completion imports it, and does not say that it exports it.
    script_for = typer_completion.get_completion_script  # type: ignore[attr-defined]
    typer.echo(script_for(prog_name="platformctl", complete_var="_PLATFORMCTL_COMPLETE", shell=shell.value))
