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
from cac_core.report.figures.paper import ONE_COLUMN, PAPERS, TWO_COLUMNS, Paper
from cac_core.report.figures.style import as_bytes, lay_out, on_paper, papers_of

__all__ = [
    "ONE_COLUMN",
    "PAPERS",
    "TWO_COLUMNS",
    "Figure",
    "Paper",
    "agreement_figure",
    "as_bytes",
    "certainty_figure",
    "detection_figure",
    "drift_figure",
    "lay_out",
    "nights_figure",
    "on_paper",
    "papers_of",
    "ratios_figure",
    "reasons_figure",
    "scanners_figure",
    "scores_figure",
    "speed_figure",
]
