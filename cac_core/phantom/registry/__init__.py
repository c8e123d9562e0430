"""A synthetic registry: the cohort, its records, and the dialects of three sites."""
