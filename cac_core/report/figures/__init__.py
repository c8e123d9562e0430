"""Figures. They draw given values and compute nothing that a table would show."""

from matplotlib.figure import Figure

from cac_core.report.figures.agreement import agreement_figure, detection_figure
from cac_core.report.figures.archive import (
    drift_figure,
    nights_figure,
    reasons_figure,
    scanners_figure,
    speed_figure,
)
from cac_core.report.figures.certainty import certainty_figure
from cac_core.report.figures.comparison import ratios_figure, scores_figure
from cac_core.report.figures.style import as_bytes

__all__ = [
    "Figure",
    "agreement_figure",
    "as_bytes",
    "certainty_figure",
    "detection_figure",
    "drift_figure",
    "nights_figure",
    "ratios_figure",
    "reasons_figure",
    "scanners_figure",
    "scores_figure",
    "speed_figure",
]
