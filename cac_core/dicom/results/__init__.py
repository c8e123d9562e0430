"""Scores as DICOM objects for a PACS: segmentation, structured report, page of the study."""
