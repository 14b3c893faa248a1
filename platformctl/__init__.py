"""One front door for services in clusters that nobody can dial into: a hub, satellites and the tunnels between them."""

__version__ = "0.1.0"
