"""Changing a satellite's exports file: read, change, check, replace; one writer at a time, and never half a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from platformctl.deploy.files import exclusive, write_text
from platformctl.errors import ConfigError

__all__ = ["add", "edit", "listed", "remove", "text"]

Services = list[dict[str, Any]]

HEAD = """\
# What this satellite exports; the agent watches this file. `platformctl export` rewrites it, without its comments.
# - {name: api, to: "http://127.0.0.1:8080", health: {type: http, path: /healthz}}
"""
LOCK_SECONDS = 5.0


def listed(path: Path) -> Services:
    """The entries of an exports file; none when it does not exist."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        services = document.get("services") or []
        return [dict(each) for each in services]
    except FileNotFoundError:
        return []
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        raise ConfigError("is not YAML", source=str(path), line=mark.line + 1 if mark else 0) from e
    except (AttributeError, TypeError, ValueError) as e:
        raise ConfigError("is no exports file", source=str(path), hint="It has one list, `services`.") from e
    except OSError as e:
        raise ConfigError(f"cannot be read: {e.strerror}", source=str(path)) from e


def text(services: Sequence[Mapping[str, Any]]) -> str:
    """An exports file with these entries."""
    return HEAD + str(yaml.safe_dump({"services": [dict(each) for each in services]}, sort_keys=False))


def add(services: Services, entries: Sequence[Mapping[str, Any]]) -> Services:
    """With `entries` added, each in place of one with the same name."""
    fresh = {str(entry["name"]): dict(entry) for entry in entries}
    kept = [fresh.pop(str(each.get("name")), each) for each in services]
    return [*kept, *fresh.values()]


def remove(services: Services, names: Sequence[str]) -> Services:
    return [each for each in services if each.get("name") not in names]


def edit(path: Path, change: Callable[[Services], Services], check: Callable[[str, str], object]) -> None:
    """Replace the file by what `change` makes of its entries, if `check(text, source)` does not raise. Nothing is
    written when nothing changed, so that the agent has nothing to read again."""
    busy = f"the exports in {path} are being changed by another command"
    with exclusive(path.parent / ".exports.lock", busy, patience=LOCK_SECONDS):
        before = listed(path)
        after = change([dict(each) for each in before])
        if after == before:
            return
        written = text(after)
        check(written, str(path))
        write_text(path, written)
