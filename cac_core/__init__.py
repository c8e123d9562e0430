"""Everything about scoring that a notebook can call: no Prefect, no Dask, no command line."""
