"""Limits on what one series may claim, so that a hostile header is refused before any work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Largest sizes `read_volume` accepts; anything above ends in `too_large`.

    Parameters
    ----------
    max_rows, max_columns : matrix of one slice.
    max_slices : slices of the volume, whether files or frames.
    max_pixels : pixels of the volume; the default is 1024 slices of 512 x 512, 512 MiB of HU.
    max_bytes : bytes of all files of the series together.
    max_inflated_bytes : bytes of all data sets of the series in the deflated transfer syntax
        together, once inflated; the default holds every series that `max_pixels` allows.
    min_slices : fewer distinct slices than this are no volume (`too_few_slices`); with less
        than three, a regular spacing cannot be told from a missing slice.
    """

    max_rows: int = 2048
    max_columns: int = 2048
    max_slices: int = 2000
    max_pixels: int = 2**28
    max_bytes: int = 2**30
    max_inflated_bytes: int = 2**29 + 2**27
    min_slices: int = 3
