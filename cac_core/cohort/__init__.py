"""The warehouse of tables, and the queries that plan work and summarise it."""
