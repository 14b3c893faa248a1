"""`platformctl verify`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from platformctl.cli.connection import Connection, Target, connected
from platformctl.cli.output import console
from platformctl.cli.signals import ends_like_ctrl_c
from platformctl.errors import UsageError

if TYPE_CHECKING:
    from platformctl.verify import Environment, Exporter, Report

__all__ = ["app", "check"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


class ReportFormat(StrEnum):
    TABLE = "table"
    JSON = "json"
    JUNIT = "junit"


def check(environment: Environment, exporter: Exporter, *, test: str | None = None, skip: str | None = None) -> Report:
    """Run the checks, with a line of progress on a terminal's stderr."""
    from rich.console import Console

    from platformctl import verify as checks
    from platformctl.verify.report import LiveProgress

    # However it ends, what was exported for the checks is withdrawn first.
    with ends_like_ctrl_c(), LiveProgress(Console(stderr=True)) as progress:
        return asyncio.run(checks.run(environment, exporter, test=test, skip=skip, progress=progress))


def _environment(connection: Connection, target: Target) -> tuple[Environment, Exporter]:
    from platformctl.cli.exporter import LocalExporter, NoExporter
    from platformctl.verify import Environment

    if target.state:
        return Environment.load(target.state / "env.json"), LocalExporter(target.state)
    with connection.client() as client:
        satellites = client.items("satellites")
    document = {
        "hub_url": target.hub,
        "ca_file": str(target.ca_file or ""),
        "admin_token_file": str(target.token_file or ""),
        "satellites": {each["name"]: {"labels": each.get("labels", {})} for each in satellites},
    }
    return Environment.from_dict(document), NoExporter()


@app.command()
@connected
def verify(
    connection: Connection,
    test: Annotated[str | None, typer.Option(metavar="REGEX", help="Run only the checks that match.")] = None,
    skip: Annotated[str | None, typer.Option(metavar="REGEX", help="Leave out the checks that match.")] = None,
    output: Annotated[ReportFormat, typer.Option("--output", "-o", help="How to print.")] = ReportFormat.TABLE,
    output_file: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write there instead of standard output.")
    ] = None,
) -> None:
    """Check the platform end to end: replicas, certificates, tunnels, and real traffic through every path.

    It brings its own backend and removes it afterwards. A failed check says what to do. Exit code 1 when one failed.
    """
    environment, exporter = _environment(connection, connection.target())
    with _opened(output_file) as file:
        report = check(environment, exporter, test=test, skip=skip)
        _write(report, output, file)
    raise typer.Exit(0 if report.ok else 1)


def _opened(path: Path | None) -> AbstractContextManager[TextIO]:
    """Opened before the checks run: that it cannot be written is told at once."""
    if path is None:
        return contextlib.nullcontext(sys.stdout)
    try:
        return path.open("w", encoding="utf-8")
    except OSError as e:
        raise UsageError(f"--output-file {path} cannot be written: {e.strerror}") from e


def _write(report: Report, form: ReportFormat, file: TextIO) -> None:
    from platformctl.verify.report import render_json, render_junit, render_table

    if form is ReportFormat.TABLE:
        console(file).print(render_table(report))
    else:
        file.write(render_json(report) if form is ReportFormat.JSON else render_junit(report))
