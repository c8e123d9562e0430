"""Selects the CTAC series of each study by the rules, with a reason for every other series.

An attribute with a wrong value rejects a series; a missing attribute lowers its rank. The series
that pass are ranked by their evidence for CTAC. Ties are broken independently of the order of rows.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from cac_core.dicom.descriptions import plain_words
from cac_core.dicom.header import CT_IMAGE_CLASSES
from cac_core.dicom.selection_rules import SelectionRules
from schemas.codes import SeriesReason
from schemas.series import SERIES

Row = dict[str, Any]
#: Evidence of a series without a mark of CTAC.
NO_MARK = "no_ctac_evidence"
#: Evidence of a selected series that has the same tie-breakers as another series.
TIE = "indistinguishable_rival"
#: Prefix of the evidence of missing attributes.
MISSING_PREFIX = "missing_"


@dataclass(slots=True)
class _Verdict:
    """Result of the rules for one series: a reason to reject it, or its rank."""

    reason: SeriesReason | None
    rank: float
    evidence: list[str]
    role: str | None


def select_series(series: pa.Table, rules: SelectionRules) -> pa.Table:
    """Fill `selected`, `reason`, `rank_score`, `evidence` and `ctac_role`.

    At most one series per study is selected; every other series has exactly one reason. At equal
    rank the preferred role (rest) decides, then more slices, lower SeriesNumber, earlier time,
    geometry, and layout of the files. Between series that agree in all of these the choice is
    arbitrary, and the study gets a flag.

    Parameters
    ----------
    series : table `schemas.series.SERIES`, rows in any order.
    rules : rules of the selection.

    Returns
    -------
    The same rows in the same order.
    """
    rows: list[Row] = series.select([*_READ]).to_pylist()
    frames = _nuclear_frames(rows)
    candidates: dict[str, list[tuple[tuple[Any, ...], int]]] = defaultdict(list)
    for number, row in enumerate(rows):
        shares_frame = row["FrameOfReferenceUID"] in frames[row["study_key"]]
        verdict = _judge(row, rules, shares_frame)
        row.update(
            selected=False,
            reason=None if verdict.reason is None else verdict.reason.value,
            rank_score=verdict.rank,
            evidence=";".join(verdict.evidence),
            ctac_role=verdict.role,
        )
        if verdict.reason is None:
            candidates[row["study_key"]].append((_order(row, rules), number))
    for ranked in candidates.values():
        _select_best(rows, sorted(ranked))
    for name in _WRITTEN:
        place, kind = series.schema.get_field_index(name), series.schema.field(name).type
        series = series.set_column(place, name, pa.array([row[name] for row in rows], kind))
    return SERIES.validate(series)


def _select_best(rows: list[Row], ranked: list[tuple[tuple[Any, ...], int]]) -> None:
    """Select the first of the candidates (sort key, row number) of a study; reject the others."""
    (best, winner), *others = ranked
    rows[winner]["selected"] = True
    if others and others[0][0][:-1] == best[:-1]:
        rows[winner]["evidence"] += f";{TIE}"
    for _, number in others:
        rows[number]["reason"] = SeriesReason.OUTRANKED.value


def _nuclear_frames(rows: Iterable[Row]) -> defaultdict[str, set[str]]:
    """Frames of reference of the NM series of each study."""
    frames: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["Modality"] == "NM" and row["FrameOfReferenceUID"]:
            frames[row["study_key"]].add(row["FrameOfReferenceUID"])
    return frames


#: Columns that break ties; none depends on the secret or on the location of the files.
_TIE_NUMBERS = (
    *("acquisition_time_s", "slice_increment_mm", "coverage_mm", "row_spacing_mm"),
    *("reconstruction_diameter_mm", "KVP", "XRayTubeCurrent", "Exposure", "SliceThickness"),
)
_TIE_TEXTS = (
    *("SeriesDescription", "ProtocolName", "ConvolutionKernel", "ImageType"),
    *("TransferSyntaxUID", "layout_digest"),
)


#: Columns that the selection fills, and those that it reads: a dictionary of all columns takes
#: longer than the rules.
_WRITTEN = ("selected", "reason", "rank_score", "evidence", "ctac_role")
_READ = (
    *("study_key", "SeriesInstanceUID", "Modality", "SOPClassUID", "FrameOfReferenceUID"),
    *("n_files", "n_slices", "n_unusable", "n_truncated", "has_contrast_agent", "has_gating"),
    *("SeriesNumber", "Columns", "column_spacing_mm", "axial_cosine", "ManufacturerModelName"),
    *_TIE_NUMBERS,
    *_TIE_TEXTS,
)


def _order(row: Row, rules: SelectionRules) -> tuple[Any, ...]:
    """Sort key of a candidate; the best one comes first."""
    role = row["ctac_role"]
    number = row["SeriesNumber"]
    return (
        -row["rank_score"],
        0 if role == rules.roles.preferred else 1 if role is None else 2,
        -row["n_slices"],
        math.inf if number is None else number,
        *(math.inf if row[name] is None else row[name] for name in _TIE_NUMBERS),
        *(row[name] or "" for name in _TIE_TEXTS),
        row["SeriesInstanceUID"] or "",
    )


def _judge(row: Row, rules: SelectionRules, shares_frame: bool) -> _Verdict:
    evidence: list[str] = []
    role = _role(row, rules)
    for check in _CHECKS:
        reason = check(row, rules, evidence)
        if reason is not None:
            return _Verdict(reason, 0.0, evidence, role)
    rank, marked = _weigh(row, rules, shares_frame, evidence)
    if not marked:
        evidence.append(NO_MARK)
        if not rules.required.allow_without_mark:
            return _Verdict(SeriesReason.NO_CTAC_EVIDENCE, rank, evidence, role)
    return _Verdict(None, rank, evidence, role)


def _check_kind(row: Row, rules: SelectionRules, evidence: list[str]) -> SeriesReason | None:
    if row["Modality"] is not None and row["Modality"] != "CT":
        return SeriesReason.NOT_CT
    if row["n_unusable"] or not row["n_files"]:
        return SeriesReason.UNUSABLE_FILES
    if row["Modality"] is None:
        return SeriesReason.NOT_CT
    # A header truncated before the SOP class leaves the decision to the other checks.
    known = row["SOPClassUID"] is not None or not row["n_truncated"]
    if known and row["SOPClassUID"] not in CT_IMAGE_CLASSES:
        return SeriesReason.NOT_CT_IMAGE
    return None


def _check_image_type(row: Row, rules: SelectionRules, evidence: list[str]) -> SeriesReason | None:
    kinds = {part.strip().upper() for part in (row["ImageType"] or "").split("\\")} - {""}
    listed = rules.image_type
    if kinds & set(listed.localizer):
        return SeriesReason.LOCALIZER
    secondary = listed.reject_derived_secondary and {"DERIVED", "SECONDARY"} <= kinds
    if secondary or kinds & set(listed.derived):
        return SeriesReason.DERIVED
    cosine = row["axial_cosine"]
    tilted = cosine is not None and cosine < rules.required.min_axial_cosine
    if tilted or kinds & set(listed.not_axial):
        return SeriesReason.NOT_AXIAL
    if not kinds & set(listed.axial):
        evidence.append("missing_axial")
    return None


def _check_contrast(row: Row, rules: SelectionRules, evidence: list[str]) -> SeriesReason | None:
    return SeriesReason.CONTRAST_AGENT if row["has_contrast_agent"] else None


def _check_texts(row: Row, rules: SelectionRules, evidence: list[str]) -> SeriesReason | None:
    description = plain_words(row["SeriesDescription"] or row["ProtocolName"] or "")
    for rule in rules.exclude:
        if _search(rule.pattern, description):
            evidence.append(rule.name)
            return rule.reason
    if row["has_gating"]:
        evidence.append("gating_attribute")
        return SeriesReason.GATED_CARDIAC
    for kernel in rules.exclude_kernel:
        if _search(kernel.pattern, (row["ConvolutionKernel"] or "").strip()):
            evidence.append(kernel.name)
            return SeriesReason.EXCLUDED_KERNEL
    if not row["ConvolutionKernel"]:
        evidence.append("missing_kernel")
    return None


def _check_numbers(row: Row, rules: SelectionRules, evidence: list[str]) -> SeriesReason | None:
    required = rules.required
    kvp, coverage = row["KVP"], row["coverage_mm"]
    if kvp is None or kvp <= 0:
        evidence.append("missing_kvp")
    elif not required.kvp_min <= kvp <= required.kvp_max:
        return SeriesReason.KVP_OUT_OF_RANGE
    if row["n_slices"] < required.min_slices:
        return SeriesReason.TOO_FEW_SLICES
    if coverage is None:
        evidence.append("missing_coverage")
    elif round(coverage, 3) < required.min_coverage_mm:
        return SeriesReason.COVERAGE_TOO_SHORT
    diameter = _field_of_view(row)
    if diameter is None:
        evidence.append("missing_diameter")
    elif diameter < required.min_reconstruction_diameter_mm:
        return SeriesReason.FIELD_OF_VIEW_TOO_SMALL
    return None


#: In order: the first check that rejects gives the reason.
_CHECKS: tuple[Callable[[Row, SelectionRules, list[str]], SeriesReason | None], ...] = (
    _check_kind,
    _check_image_type,
    _check_contrast,
    _check_texts,
    _check_numbers,
)


def _field_of_view(row: Row) -> float | None:
    """ReconstructionDiameter, or the width of the matrix where it is missing, in mm."""
    diameter = row["reconstruction_diameter_mm"]
    if diameter is not None and diameter > 0:
        return float(diameter)
    if row["Columns"] is None or row["column_spacing_mm"] is None:
        return None
    return float(row["Columns"] * row["column_spacing_mm"])


def _weigh(
    row: Row, rules: SelectionRules, shares_frame: bool, evidence: list[str]
) -> tuple[float, bool]:
    """Sum the weights of the evidence for CTAC; return the rank, and whether a mark was found."""
    rank = rules.missing.weight * sum(name.startswith(MISSING_PREFIX) for name in evidence)
    marked = False
    for rule in rules.prefer:
        if any(_search(rule.pattern, _text(row, name)) for name in rule.fields):
            evidence.append(rule.name)
            rank += rule.weight
            marked |= rule.mark
    if shares_frame:
        evidence.append("nm_frame_of_reference")
        rank += rules.frame_of_reference.weight
        marked |= rules.frame_of_reference.mark
    low = rules.low_current
    current, exposure = row["XRayTubeCurrent"], row["Exposure"]
    if (current is not None and 0 < current <= low.max_tube_current_ma) or (
        exposure is not None and 0 < exposure <= low.max_exposure_mas
    ):
        evidence.append("low_current")
        rank += low.weight
    if row["n_truncated"]:
        evidence.append("truncated_files")
        rank += rules.missing.truncated_weight
    # Rounded, so that the order of summation cannot break a tie.
    return round(rank, 6), marked


def _role(row: Row, rules: SelectionRules) -> str | None:
    """Return `rest` or `stress` where a text of the series names exactly one of them."""
    for name in ("SeriesDescription", "ProtocolName"):
        words = _text(row, name)
        rest = _search(rules.roles.rest, words)
        if rest != _search(rules.roles.stress, words):
            return "rest" if rest else "stress"
        if rest:
            return None
    return None


def _text(row: Row, name: str) -> str:
    value: str = row[name] or ""
    described = name in ("SeriesDescription", "ProtocolName")
    return plain_words(value) if described else value.strip()


@lru_cache(maxsize=65536)
def _search(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None
