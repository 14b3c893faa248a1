"""What the fuzz targets share: the libFuzzer loop. The targets need no fuzzer themselves, so tests replay a corpus."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path


def run(module: str) -> None:
    """Fuzz `module.one_input` with the libFuzzer options of the command line (`make fuzz`)."""
    import atheris

    os.environ["PLATFORMCTL_PURE"] = "1"  # coverage guides the fuzzer, and compiled modules have none
    root = str(Path(__file__).resolve().parents[2])
    sys.path[:0] = [root]
    with atheris.instrument_imports(include=["platformctl"]):
        target: Callable[[bytes], None] = __import__(module, fromlist=["one_input"]).one_input
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
