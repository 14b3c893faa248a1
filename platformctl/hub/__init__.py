"""The hub: tunnel server, registry, router and control API."""
