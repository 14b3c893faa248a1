"""`platformctl join`: swap a one-use token for a satellite's identity."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from platformctl import __version__
from platformctl.cli.output import plain
from platformctl.cli.token import labels
from platformctl.errors import ConfigError, UsageError

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)

TOKEN_VARIABLE = "PLATFORMCTL_JOIN_TOKEN"


@app.callback()
def join() -> None:
    """Join a satellite to a hub."""


def _token(file: Path | None) -> str:
    """From a file, standard input (`-`) or the environment; never from the command line, which others can read."""
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
    elif str(file) == "-":
        token = sys.stdin.readline(256)
    else:
        try:
            token = file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError("the token cannot be read", source=str(file)) from e
    if not token.strip():
        raise UsageError(
            "there is no join token", hint=f"Give --token-file FILE (- reads it), or set {TOKEN_VARIABLE}."
        )
    return token.strip()


@app.command("satellite", short_help="Swap a one-use token for a satellite's identity.")
def satellite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The satellite's name, as in its token.")],
    hub: Annotated[str, typer.Option(metavar="URL", help="Tunnel address of the hub.")],
    ca_pin: Annotated[
        str, typer.Option(metavar="sha256:HEX", help="Pin of the hub's CA; checked before the token is sent.")
    ],
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"File with the join token, - for standard input. [default: ${TOKEN_VARIABLE}]"
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Ask for a label; it must be among the token's.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="Where the identity is kept. [default: ./NAME]")
    ] = None,
) -> None:
    """Join: make a key that never leaves this machine, prove the token, and keep the certificate that the hub signs.

    `platformctl token create --satellite NAME` prints this command, ready to run. Where the hub wants approval, the
    fingerprint is shown here and there, and the command waits until somebody accepts it.
    """
    from platformctl.satellite import joiner

    folder = (state or Path(name)).expanduser().absolute()
    token = _token(token_file)

    def pending(fingerprint: str) -> None:
        typer.echo(f"Waiting until the hub accepts {name}. Its key's fingerprint: {plain(fingerprint)}", err=True)

    joined = asyncio.run(
        joiner.join(
            hub,
            token,
            ca_pin,
            name,
            labels(label),
            folder,
            entropy=secrets.token_bytes,
            agent_version=__version__,
            on_pending=pending,
        )
    )
    until = datetime.fromtimestamp(joined.not_after, UTC)
    config = folder / "satellite.yaml"
    _first_config(config, name, joined.labels, folder, joined.tunnel_urls)
    typer.echo(f"{name} joined as {joined.fingerprint}; its certificate is good until {until:%Y-%m-%d %H:%M} UTC.")
    typer.echo(f"Run it:  platformctl satellite run --config {config}")


def _first_config(path: Path, name: str, granted: object, state: Path, hubs: tuple[str, ...]) -> None:
    """A configuration to start with; one that is there is the user's own."""
    import yaml

    from platformctl.deploy import exports
    from platformctl.deploy.files import write_text

    if not path.exists():
        rows = {
            "name": name,
            "state": str(state),
            "labels": dict(granted) if isinstance(granted, dict) else {},
            "hubs": list(hubs),
            "exports": str(state / "exports.yaml"),
        }
        write_text(path, yaml.safe_dump(rows, sort_keys=False))
    if not (state / "exports.yaml").exists():
        write_text(state / "exports.yaml", exports.text([]))
