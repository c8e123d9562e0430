"""Prefect tasks and what runs in a Dask worker; thin, a verb each."""
