"""Contexts, as with kubectl: named hubs in one file, one of them current.

The file is `$PLATFORMCTL_CONFIG`, or `platformctl/config.yaml` in `$XDG_CONFIG_HOME` (`~/.config`):

    current-context: prod
    contexts:
      prod:  {hub: "https://hub.example.com", token_file: /home/me/prod.token, ca_file: /etc/ssl/hub-ca.pem}
      local: {state: /home/me/.local/state/platformctl/local}     # a local platform: addresses come from its env.json

It names token files and never holds a token.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from platformctl.deploy.files import write_text
from platformctl.errors import ConfigError, NotFound

__all__ = ["Context", "Contexts", "config_path"]

_KEYS = ("hub", "token_file", "ca_file", "state")


@dataclass(frozen=True)
class Context:
    """Either `hub` (with the files that go with it) or `state`; the empty string means "not given"."""

    hub: str = ""
    token_file: str = ""
    ca_file: str = ""
    state: str = ""


@dataclass
class Contexts:
    """The file's content. `load` of a missing file is empty; `save` is atomic and private (0600)."""

    path: Path
    current: str = ""
    known: dict[str, Context] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Contexts:
        import yaml

        hint = "Put it right by hand, or point PLATFORMCTL_CONFIG at another file."
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            return cls(path)
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(
                f"cannot be read: {getattr(e, 'strerror', None) or e}", source=str(path), hint=hint
            ) from e
        except yaml.YAMLError as e:
            mark = getattr(e, "problem_mark", None)
            line = mark.line + 1 if mark else 0
            raise ConfigError("is not YAML", source=str(path), line=line, hint=hint) from e
        try:
            known = {str(name): _context(row) for name, row in (document.get("contexts") or {}).items()}
            return cls(path, str(document.get("current-context") or ""), known)
        except (AttributeError, TypeError) as e:
            raise ConfigError(f"is not a list of contexts: {e}", source=str(path), hint=hint) from e

    def save(self) -> None:
        import yaml

        rows = {name: {k: v for k, v in asdict(row).items() if v} for name, row in sorted(self.known.items())}
        text = yaml.safe_dump({"current-context": self.current, "contexts": rows}, sort_keys=False)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise ConfigError(f"cannot be written: {e.strerror}", source=str(self.path)) from e
        write_text(self.path, text)

    def get(self, name: str) -> Context:
        if name not in self.known:
            listed = ", ".join(sorted(self.known)) or "none yet"
            raise NotFound(f"there is no context {name!r}", hint=f"Contexts in {self.path}: {listed}.")
        return self.known[name]


def _context(row: Mapping[str, Any]) -> Context:
    unknown = set(row) - set(_KEYS)
    if unknown:
        raise TypeError(f"unknown key {sorted(unknown)[0]!r}; known are {', '.join(_KEYS)}")
    return Context(**{key: str(value) for key, value in row.items()})


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    environ = os.environ if environ is None else environ
    if named := environ.get("PLATFORMCTL_CONFIG"):
        return Path(named).expanduser()
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    return Path(base) / "platformctl" / "config.yaml"
