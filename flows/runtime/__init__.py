"""Environment of a run: Prefect API, Dask cluster, progress, output folders, faults."""
