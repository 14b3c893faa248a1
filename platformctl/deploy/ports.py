"""Free loopback ports that are chosen once and kept, so that addresses survive a restart."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from random import Random

from platformctl.errors import PlatformError

__all__ = ["HOST", "free", "is_free"]

HOST = "127.0.0.1"

# Below Linux's range for outgoing connections (32768 and up, ip-sysctl.rst), so that no client takes them later.
_LOWEST, _HIGHEST = 20000, 32000


def is_free(port: int) -> bool:
    """Whether nobody listens there. What lingers in TIME_WAIT does not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free(taken: Iterable[int], random: Random, *, usable: Callable[[int], bool] = is_free) -> Iterator[int]:
    """Ports that are free, each once, none of `taken`. PlatformError when there are no more."""
    used = set(taken)
    for port in random.sample(range(_LOWEST, _HIGHEST), _HIGHEST - _LOWEST):
        if port not in used and usable(port):
            yield port
    raise PlatformError(f"no port between {_LOWEST} and {_HIGHEST} is free", hint="See what listens there: ss -ltn")
