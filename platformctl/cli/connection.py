"""Which hub a command talks to: flags, then PLATFORMCTL_* variables, then the context.

In order: --hub · --state (its env.json) · --context · PLATFORMCTL_HUB · PLATFORMCTL_CONTEXT · PLATFORMCTL_STATE · the
current context. The token and CA files come from --token-file and --ca-file, PLATFORMCTL_TOKEN_FILE and
PLATFORMCTL_CA_FILE, or from where the hub's address came from. Tokens are read from files only: an argument is visible
to every user of the machine. `connected` adds the flags to a command.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints
from urllib.parse import urlsplit

import typer

from platformctl.cli.client import HubClient
from platformctl.cli.contexts import Context, Contexts, config_path
from platformctl.errors import ConfigError, HubUnreachable, UsageError

__all__ = ["Connection", "Target", "connected", "default_state", "read_env"]

Result = TypeVar("Result")

_OPTIONS: dict[str, Any] = {
    "context": typer.Option("--context", metavar="NAME", help="Context to use."),
    "hub": typer.Option("--hub", metavar="URL", help="Public https:// address of the hub."),
    "state": typer.Option("--state", metavar="DIR", help="Folder of a local platform (`platformctl up`)."),
    "token_file": typer.Option("--token-file", metavar="FILE", help="File with the client token."),
    "ca_file": typer.Option(
        "--ca-file", metavar="FILE", help="CA certificate that the hub's certificate is checked against."
    ),
}


@dataclass(frozen=True)
class Target:
    """A hub: its public URL, the files that go with it (None: no token, the system's CAs), and where it came from."""

    hub: str
    token_file: Path | None
    ca_file: Path | None
    state: Path | None
    origin: str

    def serves(self, url: str) -> bool:
        """Whether `url` is at this hub (or at one of a local platform's addresses), so that its token may go there."""
        known = [self.hub]
        if self.state:
            env = read_env(self.state)
            known += [env["http_url"], *(each[kind] for each in env["replicas"] for kind in ("public_url", "http_url"))]
        return _origin(url) in {_origin(each) for each in known}


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)


class Connection:
    """The flags of one command; `target()` resolves them, `client()` opens the API."""

    def __init__(self, flags: Mapping[str, str | None], environ: Mapping[str, str] | None = None) -> None:
        self._flags = {key: value for key, value in flags.items() if value}
        self._environ = os.environ if environ is None else environ

    @functools.cached_property
    def _resolved(self) -> Target:
        target = self._base()
        changes: dict[str, Any] = {}
        for key in ("token_file", "ca_file"):
            if value := self._flags.get(key) or self._environ.get(f"PLATFORMCTL_{key.upper()}"):
                changes[key] = Path(value).expanduser()
        return replace(target, **changes)

    def target(self) -> Target:
        return self._resolved

    def client(self, *, timeout: float = 10.0) -> HubClient:
        target = self.target()
        return HubClient(target.hub, token_file=target.token_file, ca_file=target.ca_file, timeout=timeout)

    def named(self) -> bool:
        """Whether a hub is named at all, by flag, variable or context."""
        try:
            self.target()
        except UsageError:
            return False
        return True

    def state(self) -> Path:
        """The local platform's folder; UsageError when the command points at a hub elsewhere."""
        if named := self._flags.get("state"):
            return Path(named).expanduser().resolve()
        if "hub" not in self._flags:
            try:
                state = self.target().state
            except UsageError:
                state = default_state(self._environ)
            if state:
                return state
        raise UsageError(
            "this command works on a local platform, and its folder is not known", hint="Give it with --state DIR."
        )

    def _base(self) -> Target:
        flags, environ = self._flags, self._environ
        if hub := flags.get("hub"):
            return _from_context(Context(hub=hub), "--hub")
        if state := flags.get("state"):
            return from_state(Path(state), "--state")
        contexts = Contexts.load(config_path(environ))
        if name := flags.get("context"):
            return _from_context(contexts.get(name), f"context {name}")
        if hub := environ.get("PLATFORMCTL_HUB"):
            return _from_context(Context(hub=hub), "PLATFORMCTL_HUB")
        if name := environ.get("PLATFORMCTL_CONTEXT"):
            return _from_context(contexts.get(name), f"context {name} (PLATFORMCTL_CONTEXT)")
        if state := environ.get("PLATFORMCTL_STATE"):
            return from_state(Path(state), "PLATFORMCTL_STATE")
        if contexts.current:
            return _from_context(contexts.get(contexts.current), f"context {contexts.current}")
        raise UsageError(
            "no hub is named, and no context is current",
            hint="Start a local one with `platformctl up`, or name one: `platformctl context add NAME --hub https://…`.",
        )


def default_state(environ: Mapping[str, str] | None = None) -> Path:
    """Where `up` keeps its state: PLATFORMCTL_STATE, or platformctl/local in XDG_STATE_HOME (~/.local/state)."""
    environ = os.environ if environ is None else environ
    if named := environ.get("PLATFORMCTL_STATE"):
        return Path(named).expanduser().resolve()
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".local/state")
    return Path(base) / "platformctl" / "local"


def read_env(state: Path) -> dict[str, Any]:
    """The state folder's env.json, there while the platform is up. HubUnreachable with what to do when it is not."""
    path = state / "env.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        hint = f"Start it: platformctl up --state {state}"
        raise HubUnreachable(f"no local platform runs in {state}", hint=hint) from e
    except (OSError, ValueError) as e:
        raise ConfigError(f"cannot be read: {e}", source=str(path), hint="Run `platformctl up` again.") from e
    if not isinstance(document, dict):
        raise ConfigError("is not a JSON object", source=str(path), hint="Run `platformctl up` again.")
    return document


def from_state(state: Path, origin: str) -> Target:
    state = state.expanduser().resolve()
    env = read_env(state)
    return Target(str(env["hub_url"]), Path(env["admin_token_file"]), Path(env["ca_file"]), state, origin)


def _from_context(context: Context, origin: str) -> Target:
    if not context.hub:
        return from_state(Path(context.state), origin)
    return Target(
        context.hub.rstrip("/"),
        Path(context.token_file).expanduser() if context.token_file else None,
        Path(context.ca_file).expanduser() if context.ca_file else None,
        None,
        origin,
    )


def connected(command: Callable[..., Result]) -> Callable[..., Result]:
    """Replace a command's first parameter, `connection: Connection`, by the flags that make one."""
    hints = get_type_hints(command, include_extras=True)
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def called(ctx: typer.Context, **values: Any) -> Result:
        flags = {key: values.pop(key) for key in _OPTIONS}
        before = ctx.find_root().obj or {}
        return command(Connection({**flags, **{k: flags[k] or before.get(k) for k in ("context", "hub")}}), **values)

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    parameters += [each.replace(kind=kind, annotation=hints[each.name]) for each in own]
    for key, option in _OPTIONS.items():
        parameters.append(inspect.Parameter(key, kind, default=None, annotation=Annotated[str | None, option]))
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called
