"""Where the pinned peers are: what tools/build-peers.sh built, and which versions those are."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from tests.bench.processes import BenchError

_SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "build-peers.sh"


@functools.cache
def tool_folders() -> dict[str, Path]:
    """Tool name -> folder named `<tool>-<version>`, built or not."""
    listing = subprocess.run([_SCRIPT, "--list"], check=True, capture_output=True, text=True, timeout=30).stdout
    return {tool: Path(folder) for tool, _, folder in (line.partition(" ") for line in listing.splitlines())}


def is_built(name: str) -> bool:
    return tool_folders()[name].is_dir()


def build(*names: str) -> None:
    """Build what is missing, minutes of work each; BenchError when one cannot be built."""
    missing = [name for name in names if not is_built(name)]
    if missing and subprocess.run([_SCRIPT, *missing], stdout=subprocess.DEVNULL, check=False).returncode:
        raise BenchError(f"tools/build-peers.sh {' '.join(missing)} failed; see above")


def tool(name: str, program: str) -> str:
    """Path of one program of a pinned tool."""
    path = tool_folders()[name] / program
    if not path.exists():
        raise BenchError(f"{name} is not built yet; run tools/build-peers.sh {name}")
    return str(path)


def tool_versions() -> dict[str, str]:
    return {name: folder.name.removeprefix(f"{name}-") for name, folder in tool_folders().items()}
