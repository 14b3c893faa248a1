"""The agent of a satellite: it dials out to every hub replica and relays to the backends that it exports."""

from platformctl.speedups import overlay

__path__ = overlay("satellite", __path__)
