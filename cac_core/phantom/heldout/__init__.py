"""Test scans: a second generator, calcium implanted in real chests, frozen sets."""
