"""Rows of a scored archive for a synthetic registry: scores, lesions and series without scans.

No scan exists behind these rows. Lesions add up to the score of their study. Scores are as certain
as a well calibrated network would say: beside its score, each study has a noisy view of the expert
score, and its chances and interval are the posterior of the expert score in the paper's cohort
(`patients`), so that a chance of 80 % is right in 80 % of studies. Everything about lesions and
acquisition is an assumption of this module.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cac_core.categories import cac_category
from cac_core.keys import Keyring
from cac_core.phantom.registry.patients import PAPER_N, Floats, Ints, draw_cohort
from cac_core.phantom.registry.records import Registry, Visit, registry_scores
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.confidence import COVERAGE, Confidence
from cac_core.scoring.quality import QualityLimits
from cac_core.scoring.review import certainty_reasons
from cac_core.version import __version__
from schemas.codes import CAC_CATEGORIES, QualityFlag, ReviewReason
from schemas.instance import INSTANCES
from schemas.lesion import LESIONS
from schemas.score import SCORES
from schemas.series import SERIES

#: Model id of these scores; no network has this name.
SYNTHETIC_MODEL = "synthetic"
#: Column `detail` of every scored row.
SYNTHETIC_DETAIL = "synthetic row: no scan was made or scored"
#: Standard deviations, on the scale log(1 + score), of the view of the expert score, and of the
#: scores of the reference cohort that count as equal to that of a study.
_VIEW_SD, _EQUAL_SD = 0.5, 0.4
#: Cohort that stands for the distribution of both readings; other people than those of any seed
#: that a user names.
_REFERENCE_SEED = 2**32
#: Tube voltage, current and slice thickness of two imagined scanners.
_SCANNERS = (("SPECT/CT A", 120.0, 30.0, 5.0), ("SPECT/CT B", 130.0, 17.0, 3.75))
#: Shares of studies with reasons for review that lie in the image.
_IMAGE_REASONS = (
    (ReviewReason.HEART_MASK_ODD, 0.03),
    (ReviewReason.HEARTS_DISAGREE, 0.02),
    (ReviewReason.DEVICE, 0.02),
)
#: Columns that scan, series and instance share.
_SHARED = ("KVP", "XRayTubeCurrent", "row_spacing_mm", "column_spacing_mm")
_COVERED_MM, _PIXEL_MM, _MATRIX = 250.0, 0.9766, 512
#: Smallest peak HU of each density weight.
_WEIGHT_HU = (ScoringProtocol().threshold_hu, *ScoringProtocol().weight_edges_hu)
_SCORED_AT = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class ScoredArchive:
    """Tables of the archive; one file and series per study."""

    scores: pa.Table
    lesions: pa.Table
    series: pa.Table
    instances: pa.Table


def scored_archive(registry: Registry, keyring: Keyring, seed: int) -> ScoredArchive:
    """Rows of an archive that was never scanned, for the generated visits of a registry.

    Parameters
    ----------
    registry : from `make_registry` without an archive.
    keyring : keyring of the warehouse.
    """
    rng = np.random.default_rng([seed, len(registry.visits), 53])
    known, accessions = registry_scores(registry, keyring)
    acquired = [_acquisition(rng) for _ in registry.visits]
    scored = [visit for visit in registry.visits if visit.scored]
    certain = iter(_certain(registry, scored, rng))
    scores, lesions, series, instances = [], [], [], []
    rows, numbers = known.to_pylist(), accessions["accession_key"].to_pylist()
    for visit, row, number, scan in zip(registry.visits, rows, numbers, acquired, strict=True):
        common = {name: row[name] for name in ("study_key", "patient_key", "study_date")}
        header = common | {
            "SeriesInstanceUID": keyring.pseudonym_uid(f"{visit.study_instance_uid}.1"),
            "Modality": "CT",
            "Rows": _MATRIX,
            "Columns": _MATRIX,
        }
        header |= {name: scan[name] for name in _SHARED}
        found = row | scan | _origin(visit) | {"quality_flags": ""}
        if visit.scored:
            found |= _scored(row["agatston"], scan, next(certain), rng)
            marks = _lesions(found, rng)
            found |= _summed(marks)
            lesions += marks
        scores.append(found)
        series.append(_series(visit, header, scan))
        instances.append(_instance(visit, header, scan, number, keyring))
    tables = ((SCORES, scores), (LESIONS, lesions), (SERIES, series), (INSTANCES, instances))
    return ScoredArchive(*(table.from_rows(rows) for table, rows in tables))


def _acquisition(rng: np.random.Generator) -> dict[str, Any]:
    """Header and geometry of one scan."""
    name, kvp, current, thickness = _SCANNERS[rng.integers(len(_SCANNERS))]
    return {
        "Manufacturer": "Synthetic",
        "ManufacturerModelName": name,
        "KVP": kvp,
        "XRayTubeCurrent": float(np.round(current * rng.lognormal(0, 0.1), 1)),
        "slice_thickness_mm": thickness,
        "slice_increment_mm": thickness,
        "row_spacing_mm": _PIXEL_MM,
        "column_spacing_mm": _PIXEL_MM,
        "n_slices": round(_COVERED_MM / thickness),
    }


def _scored(
    score: float, scan: dict[str, Any], confidence: Confidence, rng: np.random.Generator
) -> dict[str, Any]:
    """Columns of a scored study; seconds and pixels, which only a scan can give, stay null."""
    noise = float(np.round(rng.lognormal(np.log(22.0), 0.25), 1))
    flags = [QualityFlag.KVP_NOT_120] if scan["KVP"] != 120.0 else []
    flags += [QualityFlag.HIGH_NOISE] if noise > QualityLimits().max_noise_hu else []
    images = {reason for reason, share in _IMAGE_REASONS if rng.random() < share}
    other = float(np.round(rng.lognormal(3.5, 1.5), 1)) if rng.random() < 0.2 else 0.0
    reasons = images | certainty_reasons(confidence, score, other, np.zeros(0, np.bool_))
    return confidence.columns() | {
        "detail": SYNTHETIC_DETAIL,
        "needs_review": bool(reasons),
        "review_reasons": ";".join(sorted(reason.value for reason in reasons)),
        "quality_flags": ";".join(sorted(flag.value for flag in flags)),
        "agatston_noncoronary": other,
        "heart_volume_ml": float(np.round(rng.lognormal(np.log(640.0), 0.2), 1)),
        "noise_hu": noise,
        "threshold_hu": ScoringProtocol().threshold_hu,
    }  # fmt: skip


def _lesions(row: dict[str, Any], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows of `lesions` of a study, which add up to its two scores."""
    scale = row["slice_increment_mm"] / ScoringProtocol().reference_increment_mm
    lesions = []
    for kind, total in (
        ("coronary", row["agatston"]),
        ("noncoronary", row["agatston_noncoronary"]),
    ):
        count = 1 + rng.poisson(np.log1p(total)) if total else 0
        for part in total * rng.dirichlet(np.ones(count)) if count else ():
            weight = int(rng.integers(1, 5))
            area, low = part / (weight * scale), _WEIGHT_HU[weight - 1]
            peak = low + rng.integers(5, 95)
            lesions.append(
                {name: row[name] for name in ("study_key", "protocol_digest")}
                | {
                    "calcium_class": kind,
                    "slice_index": int(row["n_slices"] * rng.uniform(0.3, 0.7)),
                    "centroid_row": float(rng.uniform(170, 300)),
                    "centroid_column": float(rng.uniform(200, 330)),
                    "n_pixels": max(1, round(area / _PIXEL_MM**2)),
                    "area_mm2": float(area),
                    "peak_hu": int(peak),
                    "mean_hu": float((peak + ScoringProtocol().threshold_hu) / 2),
                    "density_weight": weight,
                    "agatston": float(part),
                    "volume_mm3": float(area * row["slice_increment_mm"]),
                }
            )
    return lesions


def _summed(lesions: list[dict[str, Any]]) -> dict[str, Any]:
    """Number and volume of the coronary lesions."""
    coronary = [lesion for lesion in lesions if lesion["calcium_class"] == "coronary"]
    return {
        "n_lesions": len(coronary),
        "calcium_volume_mm3": sum(lesion["volume_mm3"] for lesion in coronary),
    }


def _origin(visit: Visit) -> dict[str, Any]:
    """Digests and versions of a row; the digest of the model is that of its name."""
    return {
        "instances_digest": _sha256(visit.study_instance_uid),
        "model_digest": _sha256(SYNTHETIC_MODEL),
        "protocol_digest": ScoringProtocol().digest,
        "core_version": __version__,
        "run_id": SYNTHETIC_MODEL,
        "scored_at": _SCORED_AT,
    }


def _series(visit: Visit, header: dict[str, Any], scan: dict[str, Any]) -> dict[str, Any]:
    """The selected series of a study."""
    return header | {
        "SliceThickness": scan["slice_thickness_mm"],
        "slice_increment_mm": scan["slice_increment_mm"],
        "coverage_mm": scan["n_slices"] * scan["slice_increment_mm"],
        "axial_cosine": 1.0,
        "n_files": 1,
        "n_slices": scan["n_slices"],
        "n_truncated": 0,
        "n_unusable": 0,
        "has_contrast_agent": False,
        "has_gating": False,
        "instances_digest": _sha256(visit.study_instance_uid),
        "selected": True,
        "evidence": "",
    }


def _instance(
    visit: Visit, header: dict[str, Any], scan: dict[str, Any], accession: str, keyring: Keyring
) -> dict[str, Any]:
    """The one file of a study, with all slices."""
    return header | {
        "path_key": keyring.path_key(f"{SYNTHETIC_MODEL}/{visit.study_instance_uid}"),
        "size_bytes": 2 * _MATRIX**2 * scan["n_slices"],
        "mtime_ns": int(_SCORED_AT.timestamp()) * 10**9,
        "accession_key": accession,
        "SOPInstanceUID": keyring.pseudonym_uid(f"{visit.study_instance_uid}.1.1"),
        "NumberOfFrames": scan["n_slices"],
        "SliceThickness": scan["slice_thickness_mm"],
    }


def _certain(
    registry: Registry, visits: Sequence[Visit], rng: np.random.Generator
) -> list[Confidence]:
    """How sure each score is, in the order of the visits."""
    uids = [visit.study_instance_uid for visit in visits]
    scores = np.array([registry.agatston[uid] for uid in uids], float)
    experts = np.log1p([registry.expert_agatston[uid] for uid in uids])
    views = experts + _VIEW_SD * rng.standard_normal(len(uids))
    reference = draw_cohort(PAPER_N, _REFERENCE_SEED)
    order = np.argsort(reference.expert_agatston, kind="stable")
    truth, readings = reference.expert_agatston[order], np.log1p(reference.dl_agatston[order])
    levels = np.array([CAC_CATEGORIES.index(str(cac_category(score))) for score in truth.tolist()])
    return [
        _posterior(score, view, readings, truth, levels)
        for score, view in zip(scores, views, strict=True)
    ]


def _posterior(
    score: float, view: float, readings: Floats, truth: Floats, levels: Ints
) -> Confidence:
    """Chances and interval of the expert score, given a score and a noisy view of it.

    Parameters
    ----------
    score : Agatston score of the study.
    view : expert score of the study with noise, as log(1 + score).
    readings : (n,), scores of the reference cohort, as log(1 + score).
    truth : (n,), expert scores of the same people, ascending.
    levels : (n,), their categories, as indices into `CAC_CATEGORIES`.
    """
    distance = ((np.log1p(score) - readings) / _EQUAL_SD) ** 2
    distance += ((view - np.log1p(truth)) / _VIEW_SD) ** 2
    weight = np.exp(-0.5 * (distance - distance.min()))
    weight /= weight.sum()
    chances = np.bincount(levels, weight, len(CAC_CATEGORIES))
    tail = (1.0 - COVERAGE) / 2.0
    low, high = truth[np.searchsorted(np.cumsum(weight), (tail, 1.0 - tail))]
    first, second, third, fourth = (float(chance) for chance in chances)
    return Confidence(
        (first, second, third, fourth), min(score, float(low)), max(score, float(high))
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
