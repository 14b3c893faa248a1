"""`platformctl hub`: the runtime of a hub replica."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["ConfigOption", "LogFormat", "LogLevel", "app", "log_overrides"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", metavar="FILE", exists=True, dir_okay=False, readable=True, help="Configuration file (YAML)."
    ),
]
LogFormat = Annotated[str | None, typer.Option(metavar="FORMAT", help="auto, json or console.")]
LogLevel = Annotated[str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")]


@app.callback()
def hub() -> None:
    """Run a hub replica."""


def log_overrides(log_format: str | None, log_level: str | None) -> dict[str, Any]:
    """The part of the configuration that --log-format and --log-level replace."""
    given = {"format": log_format, "level": log_level}
    log = {key: value for key, value in given.items() if value is not None}
    return {"log": log} if log else {}


@app.command("run")
def run(
    config: ConfigOption,
    id: Annotated[str | None, typer.Option(metavar="ID", help="Name of this replica.")] = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the store.")] = None,
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="Access policy.")] = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Run a hub replica until SIGTERM or SIGINT, then drain it. Flags win over the configuration file."""
    from platformctl.hub.config import HubConfig
    from platformctl.hub.server import run_hub

    overrides = log_overrides(log_format, log_level)
    given = {"id": id, "state": state and str(state.absolute()), "policy": policy and str(policy.absolute())}
    overrides.update({key: value for key, value in given.items() if value})
    raise typer.Exit(run_hub(HubConfig.from_file(config, overrides)))
