"""Readings of scored studies by people: corrections, signed readings, and the work list."""
