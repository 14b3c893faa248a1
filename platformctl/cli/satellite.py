"""`platformctl satellite`: the runtime of a satellite's agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from platformctl.cli.hub import ConfigOption, LogFormat, LogLevel, log_overrides

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)


@app.callback()
def satellite() -> None:
    """Run a satellite's agent."""


@app.command("run", short_help="Run the agent until SIGTERM or SIGINT.")
def run(
    config: ConfigOption,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder with the identity.")] = None,
    exports: Annotated[Path | None, typer.Option(metavar="FILE", help="Exports file; watched.")] = None,
    hub: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="wss:// address of a hub; may be repeated.")
    ] = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Run the agent until SIGTERM or SIGINT; SIGHUP reads the exports again. Flags win over the configuration file."""
    from platformctl.satellite.config import SatelliteConfig
    from platformctl.satellite.server import run_satellite

    overrides = log_overrides(log_format, log_level)
    given = {"state": state and str(state.absolute()), "exports": exports and str(exports.absolute()), "hubs": hub}
    overrides.update({key: value for key, value in given.items() if value})
    raise typer.Exit(run_satellite(SatelliteConfig.from_file(config, overrides)))
