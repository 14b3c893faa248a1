"""A place to send load to, and the contender it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """`url` has no slash at its end. Headers live in a file of mode 0600: one of them may be a token,
    and a command line can be read by everybody."""

    url: str
    header_file: Path

    @classmethod
    def with_headers(cls, url: str, header_file: Path, headers: Mapping[str, str]) -> Target:
        header_file.touch(mode=0o600)
        header_file.write_text("".join(f"{name}: {value}\n" for name, value in headers.items()))
        return cls(url, header_file)

    def headers(self) -> dict[str, str]:
        pairs = (line.split(": ", 1) for line in self.header_file.read_text().splitlines())
        return {pair[0]: pair[1] for pair in pairs}


@dataclass(frozen=True)
class Contender:
    """A running relay. `hub_pids` is what a client connects to, `agent_pids` what dials out beside the backend;
    `note` says how it really runs, for the report."""

    name: str
    web: Target
    sink: Target
    hub_pids: tuple[int, ...]
    agent_pids: tuple[int, ...]
    note: str = ""
