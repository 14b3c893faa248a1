"""`platformctl up`."""

from __future__ import annotations

import secrets
import shlex
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import typer

from platformctl.cli.connection import default_state
from platformctl.cli.contexts import Context, Contexts, config_path
from platformctl.cli.output import Format, FormatOption, document
from platformctl.cli.signals import ends_like_ctrl_c
from platformctl.errors import ConfigError, PlatformError

if TYPE_CHECKING:
    from platformctl.deploy.topology import SatellitePlan, Topology

__all__ = ["StateOption", "app", "start"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

LOCAL = "local"

StateOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        file_okay=False,
        help="Folder of the local platform. [default: $PLATFORMCTL_STATE, or ~/.local/state/platformctl/local]",
    ),
]


def start(state: Path, topology: Any) -> dict[str, Any]:
    """Start `topology` in `state`, telling of each step on stderr; the environment. Interrupted, it leaves nothing."""
    from platformctl.cli.local_parts import LocalParts
    from platformctl.deploy import local

    def tell(text: str) -> None:
        typer.echo(f"  {text}", err=True)

    with ends_like_ctrl_c():
        return local.up(state, topology, LocalParts(), tell, random=Random(secrets.randbits(64)))


def remember(state: Path) -> str:
    """Make the context `local` mean this folder, and current. Returns why that was not done, "" when it was.

    A context of that name which is not a local platform is somebody's own, and a file that can't be read is left alone.
    """
    try:
        contexts = Contexts.load(config_path())
        former = contexts.known.get(LOCAL)
        if former and former.hub:
            return f"there is a context {LOCAL!r} for {former.hub} already"
        if former and former.state == str(state) and contexts.current == LOCAL:
            return ""
        contexts.known[LOCAL] = Context(state=str(state))
        contexts.current = LOCAL
        contexts.save()
    except PlatformError as e:
        return e.message
    return ""


@app.command()
def up(
    state: StateOption = None,
    satellites: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=2000, help="How many satellites, sat-1 … sat-N. [default: as before, or 2]"
        ),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(metavar="M", min=1, max=16, help="How many hub replicas. [default: as before, or 2]")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", metavar="FILE", help="Topology: satellites with names, labels and exports."),
    ] = None,
    context: Annotated[
        bool, typer.Option("--context/--no-context", help="Make the context `local` point here, and use it.")
    ] = True,
    output: FormatOption = Format.TABLE,
) -> None:
    """Start a local hub and satellites as processes of this machine; return when they are ready.

    Satellites join as anywhere else: with a one-use token and the CA's pin, and dial out over wss:// with mutual TLS.
    Run again, it starts what is missing, with the satellites and replicas of before unless told otherwise, and stops
    what is too much. Addresses, pids and files are written to DIR/env.json. The access policy is DIR/policy.yaml.

    The context `local` is written to the configuration file unless it is there for another hub; --no-context leaves the
    file alone.
    """
    from platformctl.deploy.layout import Layout
    from platformctl.deploy.topology import DEFAULT

    folder = (state or default_state()).expanduser().absolute()
    topology = _read(file) if file else Layout.load(folder).topology or DEFAULT
    environment = start(folder, topology.sized(replicas, satellites))
    refusal = remember(folder) if context else "--no-context"
    if output in (Format.JSON, Format.YAML):
        typer.echo(document(environment, output))
        return
    typer.echo(f"\nHub      {environment['hub_url']}  (plain HTTP: {environment['http_url']})")
    typer.echo(f"State    {folder}")
    if context and refusal:
        typer.echo(f"Context  unchanged: {refusal}")
    suffix = f" --state {shlex.quote(str(folder))}" if refusal else ""
    typer.echo(f"Next     platformctl status{suffix}")
    typer.echo(f"         platformctl verify{suffix}")
    typer.echo(f"         platformctl down{suffix}")


def _read(file: Path) -> Topology:
    """A topology file, with the labels and exports in it. ConfigError names the file."""
    from platformctl.deploy.topology import parse_topology

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"cannot be read: {getattr(e, 'strerror', None) or e}", source=str(file)) from e
    topology = parse_topology(text, str(file))
    for plan in topology.satellites:
        _check(plan, str(file))
    return topology


def _check(plan: SatellitePlan, source: str) -> None:
    """What the agent would refuse only when it runs is refused before anything is started."""
    from platformctl.access.identity import check_labels
    from platformctl.deploy import exports
    from platformctl.satellite.exports import parse_exports

    try:
        check_labels(plan.labels)
        parse_exports(exports.text(plan.exports), "")
    except PlatformError as e:
        what = e.message.replace("services[", "exports[", 1)
        raise ConfigError(f"satellite {plan.name}: {what}", source=source, hint=e.hint) from e
