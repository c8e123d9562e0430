"""Lesions, Agatston score, categories and image quality of a segmented volume."""
