"""Evaluation of the model on generated scans with known truth, made and scored in memory."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np

from cac_core.certainty import certainty_columns
from cac_core.errors import UsageError
from cac_core.evaluation.agreement import agreement, grouped, number
from cac_core.evaluation.certainty import certainty
from cac_core.evaluation.lesion_errors import Comparison, compare
from cac_core.evaluation.results import (
    DetectionRow,
    HeartCoverage,
    LesionFields,
    ModelEvaluation,
    ModelSummary,
    ScoreAgreement,
    StudyEvaluation,
)
from cac_core.model.cascade import Cascade, Segmentation
from cac_core.model.weights import WeightsManifest, verify_weights
from cac_core.phantom.analytic.scan import synthesise_scan
from cac_core.phantom.annotated import CAUSE_OF_SITE, CLASS_OF_SITE, AnnotatedScan
from cac_core.phantom.heldout.frozen_sets import (
    TEST_SETS,
    anatomy_of_case,
    case_digest,
    frozen_digest,
    kept_case,
    make_case,
    set_digest,
)
from cac_core.phantom.reader import annotate, visual_grade
from cac_core.phantom.truth import true_agatston, true_category
from cac_core.processes import worker_pool
from cac_core.progress import Progress
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import score_calcium
from cac_core.scoring.lesions import label_lesions
from cac_core.scoring.orientation import orientation_flags
from cac_core.scoring.quality import noise_hu, quality_flags
from cac_core.stats.agreement import proportion

#: Columns that `--by` accepts.
GROUP_COLUMNS = ("slice_increment_mm", "noise_hu", "origin", "true_category")


def evaluate_unseen(
    progress: Progress,
    *,
    studies: int,
    seed: int,
    model: Path | None = None,
    by: Sequence[str] = (),
) -> ModelEvaluation:
    """Evaluate the model on new scans of the training generator.

    Parameters
    ----------
    studies, seed : number of scans and seed of the first; choose seeds outside the training data.
    model : folder of weights; default: the shipped ones.
    by : columns to group by, from `GROUP_COLUMNS`.
    """
    weights = verify_weights(model)
    cases = [_Case("", each, None, None, weights) for each in range(seed, seed + studies)]
    result = _evaluate_cases(cases, progress, by)
    result["seeds"] = [seed, seed + studies - 1]
    return result


def evaluate_set(
    name: str,
    progress: Progress,
    *,
    data: Path | None = None,
    limit: int | None = None,
    models: Sequence[Path | None] = (None,),
    by: Sequence[str] = (),
    keep: Path | None = None,
) -> ModelEvaluation:
    """Evaluate the model on a frozen test set; see docs/evaluation.md.

    Parameters
    ----------
    data : folder of the real chests, for `semi-synthetic`.
    limit : evaluate the first studies of the set only.
    models : folders of weights, None for the shipped ones. A study in a real chest is scored with
        the first of them that was not trained on that chest, and left out if all were.
    by : columns to group by, from `GROUP_COLUMNS`.
    keep : folder to cache the scans in.

    Raises
    ------
    UsageError
        If the set or a column is unknown, the real chests are missing, or no study is left.
    """
    if name not in TEST_SETS:
        raise UsageError(f"Unknown test set {name!r}.", f"Choose from {', '.join(TEST_SETS)}.")
    count, description = TEST_SETS[name]
    weights = [verify_weights(model) for model in models]
    cases: list[_Case] = []
    left_out: set[str] = set()
    for case in range(min(count, limit or count)):
        anatomy = anatomy_of_case(name, case)
        fit = [each for each in weights if not anatomy & set(each.hosts)]
        if fit:
            cases.append(_Case(name, case, data, keep, fit[0]))
        else:
            left_out |= anatomy
    if not cases:
        raise UsageError(
            "These weights were trained on a real chest or mesh of every study of the set.",
            "Name others with --model; docs/training.md describes how to make them.",
        )
    result = _evaluate_cases(cases, progress, by)
    digest = set_digest([row["digest"] for row in result["studies"]])
    result["test_set"] = name
    result["description"] = description
    result["left_out"] = sorted(left_out)
    result["digest"] = digest
    frozen = frozen_digest(name)
    result["frozen"] = digest == frozen if frozen and len(cases) == count else None
    return result


@dataclass(frozen=True, slots=True)
class _Case:
    """A scan to evaluate: a study of a test set, or a seed if the name of the set is empty."""

    test_set: str
    number: int
    data: Path | None
    keep: Path | None
    weights: WeightsManifest

    def make(self) -> AnnotatedScan:
        if self.test_set and self.keep:
            return kept_case(self.test_set, self.number, self.data, self.keep)
        if self.test_set:
            return make_case(self.test_set, self.number, self.data)
        return synthesise_scan(self.number)


def _evaluate_cases(
    cases: Sequence[_Case], progress: Progress, by: Sequence[str]
) -> ModelEvaluation:
    """Generate and score scans in worker processes, and summarise."""
    rows: dict[int, StudyEvaluation] = {}
    with (
        progress.counting("scans evaluated") as report,
        worker_pool(len(cases)) as pool,
    ):
        futures = {pool.submit(_evaluate_case, case): number for number, case in enumerate(cases)}
        for future in as_completed(futures):
            rows[futures[future]] = future.result()
            if report:
                report(len(rows), len(cases))
    studies = [rows[number] for number in sorted(rows)]
    models = dict.fromkeys(case.weights.model_id for case in cases)
    fields = {"model_id": ", ".join(models), **summarise(studies, by)}
    return cast(ModelEvaluation, fields)


def summarise(studies: Sequence[StudyEvaluation], by: Sequence[str] = ()) -> ModelSummary:
    """Summarise the evaluations of many scans.

    Raises
    ------
    UsageError
        If a column to group by is unknown.
    """
    truth = [row["second"] for row in studies]
    threshold = agreement([row["threshold_only"] for row in studies], truth)
    ceiling = agreement([row["perfect_classes"] for row in studies], truth)
    lesions = [lesion for row in studies for lesion in row["true_lesions"]]
    false = [lesion for row in studies for lesion in row["false_lesions"]]
    dice = [row["heart_dice"] for row in studies]
    found = [row["sensitivity"] for row in studies if row["sensitivity"] is not None]
    return {
        **_model_agreement(studies),
        "compared": "model",
        "reference": "truth",
        "threshold_only_kappa": threshold["kappa_linear"],
        "perfect_classes_kappa": ceiling["kappa_linear"],
        "heart_dice_mean": statistics.fmean(dice),
        "heart_dice_minimum": min(dice),
        **_calcium_in_hearts(studies),
        "volume_sensitivity_mean": statistics.fmean(found) if found else None,
        "false_positive_mm3_mean": statistics.fmean(r["false_positive_mm3"] for r in studies),
        "lesions_by_volume_mm3": _detection(lesions, "volume_mm3", (0, 10, 30, 100, 1e9)),
        "lesions_by_peak_hu": _detection(lesions, "peak_hu", (130, 200, 300, 400, 1e9)),
        "misses_by_cause": dict(Counter(le["cause"] for le in lesions if not le["found"])),
        "false_alarms_by_cause": dict(Counter(le["cause"] for le in false)),
        "reader": agreement([row["reader"] for row in studies], truth),
        "model_against_reader": agreement(
            [row["first"] for row in studies], [row["reader"] for row in studies]
        ),
        "seconds_per_study_median": statistics.median(row["seconds"] for row in studies),
        "groups": grouped(studies, by, GROUP_COLUMNS, _model_agreement),
        "certainty": certainty(studies),
        "studies": list(studies),
    }


def _calcium_in_hearts(studies: Sequence[StudyEvaluation]) -> HeartCoverage:
    pairs = [
        (row["coronary_in_heart_mm3"], row["coronary_mm3"])
        for row in studies
        if row["coronary_mm3"] > 0
    ]
    total = sum(volume for _, volume in pairs)
    whole = sum(inside >= 0.9 * volume for inside, volume in pairs)
    return {
        "coronary_in_heart": sum(inside for inside, _ in pairs) / total if pairs else None,
        "coronary_in_heart_90": whole / len(pairs) if pairs else None,
        "hearts_in_pieces": sum(row["slices_in_pieces"] > 0 for row in studies),
    }


def _model_agreement(studies: Sequence[Mapping[str, Any]]) -> ScoreAgreement:
    return agreement([row["first"] for row in studies], [row["second"] for row in studies])


def _detection(
    lesions: Sequence[Mapping[str, Any]], measure: str, edges: Sequence[float]
) -> list[DetectionRow]:
    """Share of true lesions found, by size or density."""
    rows: list[DetectionRow] = []
    for low, high in pairwise(edges):
        inside = [lesion for lesion in lesions if low <= lesion[measure] < high]
        share = proportion(sum(lesion["found"] for lesion in inside), len(inside))
        rows.append(
            {
                "from": low,
                "to": high if high < 1e9 else None,
                "lesions": len(inside),
                "found": number(share.value),
                "ci": [number(share.ci_low), number(share.ci_high)],
            }
        )
    return rows


_CASCADES: dict[Path, Cascade] = {}


def _evaluate_case(case: _Case) -> StudyEvaluation:
    """Generate, score and compare one scan; the cascades are loaded once per process."""
    folder = case.weights.folder
    if folder not in _CASCADES:
        _CASCADES[folder] = Cascade.load(folder, threads=1)
    scan, protocol = case.make(), ScoringProtocol()
    start = perf_counter()
    found = _CASCADES[folder].segment(scan.hu, scan.spacing_mm)
    lesions = label_lesions(
        scan.hu, found.calcium_class, found.heart_mask, scan.spacing_mm, protocol
    )
    agatston = score_calcium(lesions, protocol).agatston
    seconds = perf_counter() - start
    all_coronary = scan.calcium_class == 1
    marked = CLASS_OF_SITE[annotate(scan, case.number)] == 1
    truth = true_agatston(scan.hu, all_coronary & scan.heart_mask, scan.spacing_mm)
    reader = true_agatston(scan.hu, marked & scan.heart_mask, scan.spacing_mm)
    fields = {
        "name": scan.name,
        "model_id": case.weights.model_id,
        "origin": scan.name.rsplit("-", 1)[0],
        "first": agatston,
        "second": truth,
        "threshold_only": true_agatston(scan.hu, scan.heart_mask, scan.spacing_mm),
        "perfect_classes": true_agatston(scan.hu, all_coronary & found.heart_mask, scan.spacing_mm),
        "reader": reader,
        "visual_grade": visual_grade(true_category(reader), case.number),
        "true_category": true_category(truth),
        "slice_increment_mm": scan.spacing_mm[0],
        "noise_hu": _noise_range(scan),
        "seconds": seconds,
        "digest": case_digest(scan),
        **_certainty_fields(scan, found, agatston, _CASCADES[folder].confidence, protocol),
        **_lesion_fields(_compare(scan, found, protocol)),
    }
    return cast(StudyEvaluation, fields)


def _certainty_fields(
    scan: AnnotatedScan,
    found: Segmentation,
    agatston: float,
    parameters: Mapping[str, float] | None,
    protocol: ScoringProtocol,
) -> dict[str, object]:
    """How sure the score is, as `cac score` computes it."""
    heart, spacing = found.heart_mask, scan.spacing_mm
    flags = quality_flags(heart, spacing, noise_hu(scan.hu, heart, spacing))
    turned = orientation_flags(scan.hu, heart, spacing)
    return certainty_columns(
        scan.hu, found, spacing, agatston, {*flags, *turned}, parameters, protocol
    )


def _noise_range(scan: AnnotatedScan) -> str:
    """Standard deviation of the noise in the heart, as a range of 10 HU."""
    noise = (scan.hu - scan.hu_noise_free.astype(np.float32))[scan.heart_mask].std()
    return f"{10 * int(noise // 10)}-{10 * int(noise // 10) + 10}"


def _compare(scan: AnnotatedScan, found: Segmentation, protocol: ScoringProtocol) -> Comparison:
    return compare(
        scan.hu,
        true_heart=scan.heart_mask,
        true_class=scan.calcium_class,
        cause_of_voxel=CAUSE_OF_SITE[scan.calcium_site],
        found_heart=found.heart_mask,
        found_class=found.calcium_class,
        spacing_mm=scan.spacing_mm,
        protocol=protocol,
    )


def _lesion_fields(comparison: Comparison) -> LesionFields:
    """The comparison lesion by lesion as JSON values."""
    return cast(LesionFields, dataclasses.asdict(comparison))
