"""Pages out of a warehouse, written without a Prefect run."""
