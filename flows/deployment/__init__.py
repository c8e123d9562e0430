"""A site with a Prefect server of its own: its services, and what is registered on the server."""
