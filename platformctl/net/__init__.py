"""The only sockets, TLS and WebSockets of the project."""

from platformctl.speedups import overlay

__path__ = overlay("net", __path__)
