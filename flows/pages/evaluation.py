"""The folder of an evaluation: JSON, tables and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cac_core.evaluation.agreement import estimate_rows
from cac_core.report.figures import (
    Figure,
    agreement_figure,
    as_bytes,
    certainty_figure,
    detection_figure,
)
from flows.runtime.results_folder import require_replaceable, results_folder

#: Name of the contents of the folder, in messages.
_CONTENTS = "evaluation"


def require_evaluation_folder(out: Path) -> None:
    """Refuse a folder that an evaluation cannot be written to, before the evaluation runs.

    Raises
    ------
    UsageError
        If it has anything but an earlier evaluation.
    """
    require_replaceable(out, _CONTENTS)


def write_evaluation(out: Path, result: dict[str, Any]) -> None:
    """Write a comparison: JSON, studies, estimate rows, and figures as PNG and SVG.

    Raises
    ------
    UsageError
        If the folder has anything but an earlier evaluation.
    CacError
        If the folder cannot be written.
    """
    plain = [
        {k: v for k, v in row.items() if not isinstance(v, list | tuple)}
        for row in result["studies"]
    ]
    with results_folder(out, _CONTENTS) as folder:
        text = json.dumps(result, indent=2) + "\n"
        (folder / "evaluation.json").write_text(text, encoding="utf-8")
        pq.write_table(estimate_rows(result), folder / "estimates.parquet")
        pq.write_table(pa.Table.from_pylist(plain), folder / "studies.parquet")
        for name, figure in _figures(result).items():
            for kind in ("png", "svg"):
                (folder / f"{name}.{kind}").write_bytes(as_bytes(figure, kind))


def _figures(result: dict[str, Any]) -> dict[str, Figure]:
    figures = {"agreement": agreement_figure(result)}
    if result.get("certainty"):
        figures["certainty"] = certainty_figure(result["certainty"])
    if "lesions_by_volume_mm3" in result:
        figures["detection"] = detection_figure(
            {
                "volume of the lesion, mm3": result["lesions_by_volume_mm3"],
                "peak of the lesion, HU": result["lesions_by_peak_hu"],
            }
        )
    return figures
