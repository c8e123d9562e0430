"""Synthetic CTAC scans, archives and registries with known truth.

The scans are phantoms, not patients. They serve to test the software and to train the networks;
results on them do not show how well a model performs on real scans.
"""
