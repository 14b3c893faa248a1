"""The verbs that list one kind of thing differ in their columns alone; this is the rest of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from platformctl.cli.connection import Connection
from platformctl.cli.output import Column, Format, coloured, rows
from platformctl.cli.repeat import wait_until, watch
from platformctl.errors import NotFound

__all__ = ["Item", "Kind", "show"]

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """`path` is under /api/v1; `name` is what people type; `good` decides when --wait ends."""

    singular: str
    path: str
    columns: Sequence[Column]
    name: Callable[[Item], str]
    good: Callable[[Item], bool] = lambda _item: True


def show(
    connection: Connection,
    kind: Kind,
    wanted: Sequence[str],
    form: Format,
    *,
    watching: bool = False,
    waiting: bool = False,
    timeout: float = 60.0,
    keep: Callable[[Item], bool] = lambda _item: True,
) -> None:
    """Print the items that are `wanted` (all, when empty). NotFound for a name that is not there."""
    with connection.client() as client:

        def ask() -> list[dict[str, Any]]:
            items = [item for item in client.items(kind.path) if keep(item)]
            return [item for item in items if kind.name(item) in wanted] if wanted else items

        def missing(items: Sequence[Item]) -> str:
            found = {kind.name(item): kind.good(item) for item in items}
            lacking = [name for name in wanted or found if not found.get(name)]
            if not found and not wanted:
                return f"there is no {kind.singular} yet"
            return f"not ready: {', '.join(lacking)}" if lacking else ""

        def render() -> str:
            return text(ask())

        def text(items: Sequence[Item]) -> str:
            return rows(items, kind.columns, form, kind=kind.singular, name=kind.name, colour=coloured())

        if watching:
            watch(render)
        items = wait_until(ask, missing, timeout=timeout) if waiting else ask()
        absent = set(wanted) - {kind.name(item) for item in items}
        if absent:
            raise NotFound(
                f"the hub knows no {kind.singular} {', '.join(sorted(absent))}",
                hint=f"`platformctl {kind.path}` lists those that it knows.",
            )
        if printed := text(items):
            typer.echo(printed)
