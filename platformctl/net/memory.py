"""How this process keeps memory: glibc must not hand every large buffer back to the kernel and fetch it again.

Messages and reads are a few hundred KiB. By default glibc maps such blocks, or trims the heap, each time one is freed,
and the page faults that follow cost as much as the encryption (measured: a 1 GiB upload took 1.55 s of hub CPU, with
this 0.83 s).
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

__all__ = ["keep_buffers"]

# malloc.h: the parameters of mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
MMAP_FROM: Final = 4 * 1024 * 1024
TRIM_FROM: Final = 32 * 1024 * 1024  # so much free memory at the heap's end is kept at most


def keep_buffers() -> None:
    """Set both thresholds for this process; where the C library is another one, nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, MMAP_FROM)
        mallopt(_M_TRIM_THRESHOLD, TRIM_FROM)
