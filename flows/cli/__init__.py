"""The `cac` command line: one module per group of commands, and shared options and tables."""
