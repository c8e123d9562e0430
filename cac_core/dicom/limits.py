"""Limits on the cost of one header, frame and series, so that hostile files are refused early."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """Largest cost of reading one header; above it the file gets the reason `header_limits`.

    Parameters
    ----------
    header_bytes : bytes read from one file, or inflated from it.
    elements : data elements and sequence items.
    depth : nested sequences.
    seconds : time per file, after which the reader process is killed.
    memory_bytes : address space of one reader process.
    """

    header_bytes: int = 4 * 1024 * 1024
    elements: int = 200_000
    depth: int = 32
    seconds: float = 10.0
    memory_bytes: int = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Largest cost of decoding one frame; above it the study gets the reason `decoder_died`.

    Parameters
    ----------
    seconds : time per frame, after which the decoder process is killed.
    memory_bytes : address space of the decoder process.
    """

    seconds: float = 20.0
    memory_bytes: int = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Largest sizes that `read_volume` accepts; above them a study is rejected as `too_large`.

    Parameters
    ----------
    max_rows, max_columns : matrix of one slice.
    max_slices : slices of the volume, files or frames.
    max_pixels : pixels of the volume; the default is 1024 slices of 512 x 512, 512 MiB of HU.
    max_bytes : total size of the files of the series.
    max_inflated_bytes : total size of the inflated data sets of a series in the deflated transfer
        syntax; the default admits every series that `max_pixels` admits.
    min_slices : fewest distinct slices of a volume (`too_few_slices`); with fewer than three a
        missing slice cannot be detected.
    """

    max_rows: int = 2048
    max_columns: int = 2048
    max_slices: int = 2000
    max_pixels: int = 2**28
    max_bytes: int = 2**30
    max_inflated_bytes: int = 2**29 + 2**27
    min_slices: int = 3
