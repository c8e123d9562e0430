"""A PACS by DIMSE: C-FIND, and C-GET or C-MOVE."""

from __future__ import annotations

from cac_core.source_settings import SourceSettings
from cac_core.sources.pace import Pace
from cac_core.sources.source import Source


def open_dimse(place: str, settings: SourceSettings, pace: Pace) -> Source:
    """The application entity at a place."""
    raise NotImplementedError
