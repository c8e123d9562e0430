"""Prefect flows, the modules behind the other commands, and the `cac` command line."""
