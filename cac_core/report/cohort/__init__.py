"""The cohort report: every table and figure of the paper from the table `estimates`."""
