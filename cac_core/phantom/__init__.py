"""Synthetic CTAC archives with known truth: anatomy, calcium, noise, DICOM files, truth table.

The scans are analytic phantoms, not patients. They prove the plumbing and teach the networks
where calcium can lie; they say nothing about how well a model reads real scans.
"""
