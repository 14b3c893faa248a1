"""The one table of verbs. A verb's module is imported when the verb runs, so that `platformctl --help` stays fast."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["GROUPS", "VERBS", "Verb"]


class Verb(NamedTuple):
    """`module` has `app`, a `typer.Typer`; `group` is the heading in `platformctl --help`."""

    module: str
    group: str
    help: str


_LOCAL = "Local platform"
_LOOK = "Look and check"
_USE = "Use and change"
_RUN = "Run"
_SELF = "This command"

VERBS: dict[str, Verb] = {
    "demo": Verb(
        "platformctl.cli.demo", _LOCAL, "Start a local platform with sample services, verify it, show what to try."
    ),
    "up": Verb("platformctl.cli.up", _LOCAL, "Start a local hub and satellites; return when they are ready."),
    "down": Verb("platformctl.cli.down", _LOCAL, "Stop what `up` started."),
    "status": Verb("platformctl.cli.status", _LOOK, "Show the hub's replicas and how each satellite is connected."),
    "satellites": Verb("platformctl.cli.satellites", _LOOK, "List satellites."),
    "services": Verb("platformctl.cli.services", _LOOK, "List the services that satellites export."),
    "tunnels": Verb("platformctl.cli.tunnels", _LOOK, "List the tunnels between satellites and hub replicas."),
    "verify": Verb("platformctl.cli.verify", _LOOK, "Check the whole platform end to end."),
    "bench": Verb("platformctl.cli.bench", _LOOK, "Send load to a URL and print rate and latencies."),
    "token": Verb("platformctl.cli.token", _USE, "Create, list and revoke join tokens."),
    "join": Verb("platformctl.cli.join", _USE, "Join a satellite to a hub."),
    "export": Verb("platformctl.cli.export", _USE, "Add, remove and list the services that a satellite exports."),
    "forward": Verb("platformctl.cli.forward", _USE, "Forward a local TCP port to a service, through the hub."),
    "hub": Verb("platformctl.cli.hub", _RUN, "Run a hub replica."),
    "satellite": Verb("platformctl.cli.satellite", _RUN, "Run a satellite's agent."),
    "context": Verb("platformctl.cli.context", _SELF, "Choose which hub the other commands talk to."),
    "completion": Verb("platformctl.cli.completion", _SELF, "Print a completion script for bash, zsh or fish."),
    "version": Verb("platformctl.cli.version", _SELF, "Show the version of this command, and of the hub."),
}

GROUPS = (_LOCAL, _LOOK, _USE, _RUN, _SELF)
