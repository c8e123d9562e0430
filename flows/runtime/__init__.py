"""What a run stands on: a Prefect API, a Dask cluster, progress, and the folder of its results."""
