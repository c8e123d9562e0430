"""Pages, figures and tables from given numbers."""
