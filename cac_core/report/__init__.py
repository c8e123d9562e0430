"""The cohort report."""
