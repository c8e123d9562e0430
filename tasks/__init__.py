"""What Prefect sees of a job (steps, shards) and what Dask runs (studies, resamples)."""
