"""`--watch` and `--wait`: the same question again, until it is interrupted or its answer is the one hoped for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from platformctl.errors import HubUnreachable, TimedOut

__all__ = ["TimeoutOption", "WaitOption", "WatchOption", "wait_until", "watch"]

WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Print again whenever it changes, until Ctrl-C.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Return only when everything is as it should be.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long --wait waits.")]

Answer = TypeVar("Answer")


def watch(render: Callable[[], str], *, interval: float = 1.0, sleep: Callable[[float], None] = time.sleep) -> None:
    """Print what `render` gives, and again when it changed; a terminal is redrawn, a pipe gets one text after another.

    A hub that cannot be reached for a while is said once and asked again: a rolling restart must not end a watch.
    """
    shown: str | None = None
    while True:
        try:
            text = render()
        except HubUnreachable as e:
            text = e.message
        if text != shown:
            typer.echo("\x1b[H\x1b[2J" + text if sys.stdout.isatty() else text)
            shown = text
        sleep(interval)


def wait_until(
    ask: Callable[[], Answer],
    missing: Callable[[Answer], str],
    *,
    timeout: float,
    interval: float = 0.2,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Ask until `missing(answer)` is empty, and return the answer. TimedOut names what was missing at the end."""
    deadline = clock() + timeout
    while True:
        try:
            answer = ask()
            lacking = missing(answer)
        except HubUnreachable as e:
            lacking = e.message
        else:
            if not lacking:
                return answer
        if clock() >= deadline:
            raise TimedOut(
                f"after {timeout:g} s: {lacking}", hint="Wait longer with --timeout, or see `platformctl status`."
            )
        sleep(interval)
