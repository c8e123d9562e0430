"""Synthetic scans as a DICOM archive of three vendors."""
