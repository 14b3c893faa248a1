"""The hub: tunnel server, registry, router and control API."""

from platformctl.speedups import overlay

__path__ = overlay("hub", __path__)
