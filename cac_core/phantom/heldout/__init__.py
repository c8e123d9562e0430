"""Scans to test on: a second generator, calcium implanted in real chests, frozen sets."""
