from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
if sys.argv[1] == "keep":
    from platformctl.net.memory import keep_buffers
    keep_buffers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(500):
    bytearray(300_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    environment = {"PYTHONMALLOC": "malloc", "MALLOC_MMAP_THRESHOLD_": "131072"} if mode == "default" else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True, env=environment
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_large_buffers_are_used_again_instead_of_being_mapped_anew() -> None:
    assert faults("keep") < 500 < faults("default")
