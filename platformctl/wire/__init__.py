"""The tunnel protocol `platformctl.tunnel.v1`, pure: bytes and time in, bytes and calls out. See SPEC.md."""

from platformctl.speedups import overlay

__path__ = overlay("wire", __path__)
