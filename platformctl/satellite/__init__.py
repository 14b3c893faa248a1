"""The agent of a satellite: it dials out to every hub replica and relays to the backends that it exports."""
