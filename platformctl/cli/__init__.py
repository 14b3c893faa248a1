"""The `platformctl` command: one module a verb, loaded when the verb is used. `verbs.py` is the table."""
