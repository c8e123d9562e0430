"""Silences libraries whose log messages can quote what identifies a patient."""

from __future__ import annotations

import logging

#: Above `logging.CRITICAL`, at which libraries still log.
NOTHING = logging.CRITICAL + 1


def silence(*names: str) -> None:
    """Let the loggers `names`, and those below them, log nothing at any level.

    The only place that sets their levels: of two that set different ones, the last imported wins.
    """
    for name in names:
        logging.getLogger(name).setLevel(NOTHING)
