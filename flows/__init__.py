"""Composition: Prefect flows, clusters, progress and the `cac` command line."""
