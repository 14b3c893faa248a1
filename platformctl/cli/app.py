"""The root command: verbs loaded when used, options before the verb, errors turned into messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import completion as typer_completion
from typer.core import TyperGroup

from platformctl import __version__
from platformctl.cli.verbs import GROUPS, VERBS
from platformctl.errors import PlatformError, StoreError

if TYPE_CHECKING:  # a private name of typer's: for the types of overridden methods only
    from typer._click import Command, Context, HelpFormatter

__all__ = ["EXIT_CODES", "report", "root_command", "run"]

PROGRAM = "platformctl"

EXIT_CODES = (
    (0, "done"),
    (1, "checks failed, or the state could not be read or written"),
    (2, "wrong use: a flag, an argument, a configuration file"),
    (3, "the hub cannot be reached"),
    (4, "the hub refused this identity, or a join was refused"),
    (5, "the named object does not exist"),
    (6, "the object exists already, or changed meanwhile"),
    (7, "a wait ended before its condition was met"),
    (130, "interrupted (Ctrl-C)"),
)

# Standard output on a full disk, or over a quota: nobody's mistake here, and no bug either.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES) + "."


class VerbGroup(TyperGroup):
    """A group whose commands are named by the table, and imported one at a time when they run."""

    def list_commands(self, ctx: Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name not in VERBS:
            return None
        if cmd_name not in self.commands:
            command = typer.main.get_command(import_module(VERBS[cmd_name].module).app)
            command.name = cmd_name
            self.commands[cmd_name] = command
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        if args[0] not in VERBS and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS)
            ctx.fail(f"There is no command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        # From the table alone: importing each verb for its short help would take a second.
        for group in GROUPS:
            with formatter.section(group):
                formatter.write_dl([(name, verb.help) for name, verb in VERBS.items() if verb.group == group])


def _version(value: bool) -> None:
    if value:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


_root = typer.Typer(
    cls=VerbGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=_EPILOG,
)


@_root.callback()
def _options(
    ctx: typer.Context,
    context: Annotated[
        str | None, typer.Option(metavar="NAME", help="Context to use; see `platformctl context`.")
    ] = None,
    hub: Annotated[str | None, typer.Option(metavar="URL", help="Public https:// address of the hub.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """One front door for services in clusters that nobody can dial into.

    Start with `platformctl demo`, or `platformctl up` for a local hub and satellites of your own.
    """
    ctx.obj = {"context": context, "hub": hub}


def root_command() -> VerbGroup:
    """The command tree; verbs load when they are looked up."""
    command = typer.main.get_command(_root)
    assert isinstance(command, VerbGroup)
    return command


def report(error: PlatformError) -> int:
    """Say on stderr what happened and what to do next; return the exit code."""
    typer.echo(f"{PROGRAM}: {error.message}", err=True)
    if error.hint:
        typer.echo(f"  hint: {error.hint}", err=True)
    return error.exit_code


def run(args: Sequence[str]) -> int:
    """Run one command line; returns its exit code (see EXIT_CODES). A bug still shows its traceback."""
    command: Any = root_command()
    # Click's own name for the variable, whatever name this process was started by.
    complete_var = f"_{PROGRAM.upper()}_COMPLETE"
    if complete_var in os.environ:
        # With `add_completion=False` typer does not register the shells by itself.
        typer_completion.completion_init()  # type: ignore[attr-defined]
    try:
        command.main(args=list(args), prog_name=PROGRAM, complete_var=complete_var)
    except PlatformError as error:
        return report(error)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's last flush fails again
        return report(StoreError(f"the output cannot be written: {error.strerror}"))
    except KeyboardInterrupt:
        return 130
    except SystemExit as exit_:
        if isinstance(exit_.code, str):
            sys.stderr.write(exit_.code + "\n")
            return 1
        return exit_.code or 0
    return 0
