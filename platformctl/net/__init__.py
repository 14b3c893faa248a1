"""The only sockets, TLS and WebSockets of the project."""
