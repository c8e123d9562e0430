"""Agreement of two sources of scores, and of the model with the truth of synthetic scans."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cac_core.categories import VISUAL_LEVELS, cac_category, visual_level
from cac_core.errors import UsageError
from cac_core.evaluation.lesion_errors import compare
from cac_core.evaluation.sources import Pairs
from cac_core.model.cascade import Cascade
from cac_core.model.weights import WeightsManifest, verify_weights
from cac_core.phantom.analytic.scan import synthesise_scan
from cac_core.phantom.annotated import CAUSE_OF_SITE, CLASS_OF_SITE, AnnotatedScan
from cac_core.phantom.heldout.frozen_sets import (
    TEST_SETS,
    case_digest,
    frozen_digest,
    host_of_case,
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
from cac_core.stats.agreement import (
    bland_altman,
    concordance,
    intraclass_correlation,
    proportion,
    squared_correlation,
    weighted_kappa,
)
from schemas.codes import CAC_CATEGORIES
from schemas.results import ESTIMATES
from schemas.score import SCORES


def agreement(compared: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Category and score agreement of paired Agatston scores, ready for print or JSON."""
    matrix = concordance(
        [str(cac_category(value)) for value in reference],
        [str(cac_category(value)) for value in compared],
        CAC_CATEGORIES,
    )
    logs = np.log1p(np.asarray(compared, float)), np.log1p(np.asarray(reference, float))
    r2 = squared_correlation(*logs)
    icc = intraclass_correlation(np.stack(logs, axis=1))
    limits = bland_altman(np.asarray(compared, float), np.asarray(reference, float))
    return _category_agreement(matrix, CAC_CATEGORIES) | {
        "r2_log": _number(r2.value),
        "r2_log_ci": [_number(r2.ci_low), _number(r2.ci_high)],
        "icc_log": _number(icc.value),
        "icc_log_ci": [_number(icc.ci_low), _number(icc.ci_high)],
        "bland_altman": [_number(v) for v in (limits.bias, limits.limit_low, limits.limit_high)],
        "reference_zero": int(matrix[0].sum()),
        "reference_zero_scored_zero": int(matrix[0, 0]),
        "reference_above_100": int(matrix[2:].sum()),
        "reference_above_100_scored_above_0": int(matrix[2:, 1:].sum()),
    }


def visual_agreement(
    compared: Sequence[float | str], reference: Sequence[float | str]
) -> dict[str, Any]:
    """Agreement where one side is a visual grade: three levels, as in Supplemental Table 3.

    Equivocal counts as present; of Agatston scores, below 1 is absent and above 400 extensive.
    """
    matrix = concordance(
        [_visual_level(value) for value in reference],
        [_visual_level(value) for value in compared],
        VISUAL_LEVELS,
    )
    return _category_agreement(matrix, VISUAL_LEVELS)


def _visual_level(value: float | str) -> str:
    return str(visual_level(value if isinstance(value, str) else cac_category(value)))


def _category_agreement(matrix: NDArray[np.int64], levels: Sequence[str]) -> dict[str, Any]:
    kappa = weighted_kappa(matrix)
    n = int(matrix.sum())
    return {
        "n": n,
        "categories": list(levels),
        "concordance_reference_by_compared": matrix.tolist(),
        "kappa_linear": _number(kappa.value),
        "kappa_linear_ci": [_number(kappa.ci_low), _number(kappa.ci_high)],
        "same_category": float(np.trace(matrix) / max(1, n)),
    }


def compare_sources(pairs: Pairs, by: Sequence[str] = ()) -> dict[str, Any]:
    """Compare two sources of scores over the studies that both have.

    Parameters
    ----------
    by : columns of the table `scores` to repeat the agreement by.

    Raises
    ------
    UsageError
        If a column to group by does not exist.
    """
    columns = [column.name for column in SCORES.columns]
    rows = pairs.rows
    seconds = (r["seconds_read"] + r["seconds_model"] + r["seconds_score"] for r in rows)
    result = _pair_agreement(rows) | {
        "compared": str(pairs.first),
        "reference": str(pairs.second),
        "only_compared": pairs.only_first,
        "only_reference": pairs.only_second,
        "seconds_per_study_median": statistics.median(seconds),
        "groups": _grouped(rows, by, columns, _pair_agreement),
        "studies": [
            {name: row[name] for name in ("study_key", "first", "second", *by)} for row in rows
        ],
    }
    if pairs.planted:
        found = sum(pairs.reasons.get(key) == defect for key, defect in pairs.planted.items())
        result |= {"defects_planted": len(pairs.planted), "defects_found": found}
    return result


def _pair_agreement(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first, second = [row["first"] for row in rows], [row["second"] for row in rows]
    graded = isinstance(first[0], str) or isinstance(second[0], str)
    return visual_agreement(first, second) if graded else agreement(first, second)


def evaluate_unseen(
    studies: int, seed: int, model: Path | None, by: Sequence[str], progress: Progress
) -> dict[str, Any]:
    """Score `studies` synthetic scans that no training saw, in memory, and compare."""
    weights = verify_weights(model)
    cases = [_Case("", number, None, None, weights) for number in range(seed, seed + studies)]
    result = _evaluate_cases(cases, progress, by)
    return result | {"seeds": [seed, seed + studies - 1]}


def evaluate_set(
    name: str,
    data: Path | None,
    limit: int | None,
    models: Sequence[Path | None],
    by: Sequence[str],
    progress: Progress,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Score a frozen test set, in memory, and compare with its truth; see docs/evaluation.md.

    Parameters
    ----------
    models : folders of weights. A study in a real chest is scored with the first of them that did
        not learn from that chest; where all did, the study is left out.
    keep : folder where the scans are kept, and found the next time.

    Raises
    ------
    UsageError
        If there is no such set or column, the real chests are not there, or no study is left.
    """
    if name not in TEST_SETS:
        raise UsageError(f"There is no test set {name!r}.", f"There are: {', '.join(TEST_SETS)}.")
    count, description = TEST_SETS[name]
    weights = [verify_weights(model) for model in models]
    cases: list[_Case] = []
    left_out: set[str] = set()
    for number in range(min(count, limit or count)):
        host = host_of_case(number) if name == "semi-synthetic" else None
        fit = [each for each in weights if host not in each.hosts]
        if fit:
            cases.append(_Case(name, number, data, keep, fit[0]))
        else:
            left_out.add(str(host))
    if not cases:
        raise UsageError(
            "These weights learnt from every real chest.",
            "Name others with --model; docs/training.md says how to make them.",
        )
    result = _evaluate_cases(cases, progress, by)
    digest = set_digest([row["digest"] for row in result["studies"]])
    whole = len(cases) == count
    return result | {
        "test_set": name,
        "description": description,
        "left_out": sorted(left_out),
        "digest": digest,
        "frozen": digest == frozen_digest(name) if whole else None,
    }


@dataclass(frozen=True, slots=True)
class _Case:
    """A scan to evaluate: of a test set, or by its seed where the set has no name."""

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
) -> dict[str, Any]:
    """Make and score scans in worker processes, and put the comparison together."""
    rows: dict[int, dict[str, Any]] = {}
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
    return {"model_id": ", ".join(models)} | summarise(studies, by)


def summarise(studies: Sequence[dict[str, Any]], by: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that the comparison of many studies gives; `by` names columns to group by.

    Raises
    ------
    UsageError
        If a column to group by does not exist.
    """
    result = _model_agreement(studies)
    truth = [row["second"] for row in studies]
    threshold = agreement([row["threshold_only"] for row in studies], truth)
    ceiling = agreement([row["perfect_classes"] for row in studies], truth)
    lesions = [lesion for row in studies for lesion in row["true_lesions"]]
    false = [lesion for row in studies for lesion in row["false_lesions"]]
    dice = [row["heart_dice"] for row in studies]
    found = [row["sensitivity"] for row in studies if row["sensitivity"] is not None]
    return result | {
        "compared": "model",
        "reference": "truth",
        "threshold_only_kappa": threshold["kappa_linear"],
        "perfect_classes_kappa": ceiling["kappa_linear"],
        "heart_dice_mean": statistics.fmean(dice),
        "heart_dice_minimum": min(dice),
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
        "groups": _grouped(studies, by, GROUP_COLUMNS, _model_agreement),
        "studies": list(studies),
    }


#: Columns that `--by` takes.
GROUP_COLUMNS = ("slice_increment_mm", "noise_hu", "origin", "true_category")


def estimate_rows(result: dict[str, Any]) -> pa.Table:
    """The numbers of a comparison as rows of the table `estimates`."""
    rows = []
    name = _pair_name(result["compared"], result["reference"])
    pairs = {name: result}
    for compared, reference, key in (
        ("reader", "truth", "reader"),
        ("model", "reader", "model_against_reader"),
    ):
        if key in result:
            pairs[_pair_name(compared, reference)] = result[key]
    groups = [(None, None, pairs)] + [
        (column, level, {name: found})
        for column, levels in result.get("groups", {}).items()
        for level, found in levels.items()
    ]
    for term, level, sources in groups:
        for source, found in sources.items():
            for statistic, method in (
                ("kappa_linear", "Fleiss, Cohen and Everitt 1969"),
                ("r2_log", "Pearson, Fisher z"),
                ("icc_log", "ICC(2,1), McGraw and Wong 1996"),
            ):
                if statistic not in found:  # visual grades have categories only
                    continue
                low, high = found[f"{statistic}_ci"]
                rows.append(
                    {
                        "analysis": "agreement",
                        "population": result.get("test_set"),
                        "model": source,
                        "term": term,
                        "level": level,
                        "statistic": statistic,
                        "value": found[statistic],
                        "ci_low": low,
                        "ci_high": high,
                        "n": found["n"],
                        "method": method,
                    }
                )
    return ESTIMATES.from_rows(rows)


def _pair_name(compared: str, reference: str) -> str:
    return f"{compared} against {reference}"


def _model_agreement(studies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return agreement([row["first"] for row in studies], [row["second"] for row in studies])


def _grouped(
    rows: Sequence[dict[str, Any]],
    by: Sequence[str],
    columns: Sequence[str],
    agree: Callable[[Sequence[dict[str, Any]]], dict[str, Any]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """The agreement within each level of each column."""
    unknown = sorted(set(by) - set(columns))
    if unknown:
        raise UsageError(
            f"No column {', '.join(unknown)} to group by.", f"There are: {', '.join(columns)}."
        )
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for column in by:
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            groups["not stated" if row[column] is None else str(row[column])].append(row)
        found[column] = {name: agree(members) for name, members in sorted(groups.items())}
    return found


def _detection(
    lesions: Sequence[dict[str, Any]], measure: str, edges: Sequence[float]
) -> list[dict[str, Any]]:
    """Share of true lesions found, by size or density."""
    rows = []
    for low, high in pairwise(edges):
        inside = [lesion for lesion in lesions if low <= lesion[measure] < high]
        share = proportion(sum(lesion["found"] for lesion in inside), len(inside))
        rows.append(
            {
                "from": low,
                "to": high if high < 1e9 else None,
                "lesions": len(inside),
                "found": _number(share.value),
                "ci": [_number(share.ci_low), _number(share.ci_high)],
            }
        )
    return rows


_CASCADES: dict[Path, Cascade] = {}


def _evaluate_case(case: _Case) -> dict[str, Any]:
    """Make, score and compare one scan; the cascades are loaded once per process."""
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
    comparison = compare(
        scan.hu,
        scan.heart_mask,
        scan.calcium_class,
        CAUSE_OF_SITE[scan.calcium_site],
        found.heart_mask,
        found.calcium_class,
        scan.spacing_mm,
        protocol,
    )
    all_coronary = scan.calcium_class == 1
    coronary = all_coronary & scan.heart_mask
    marked = CLASS_OF_SITE[annotate(scan, case.number)] == 1
    truth = true_agatston(scan.hu, coronary, scan.spacing_mm)
    reader = true_agatston(scan.hu, marked & scan.heart_mask, scan.spacing_mm)
    noise = (scan.hu - scan.hu_noise_free.astype(np.float32))[scan.heart_mask].std()
    return {
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
        "noise_hu": f"{10 * int(noise // 10)}-{10 * int(noise // 10) + 10}",
        "seconds": seconds,
        "digest": case_digest(scan),
        **dataclasses.asdict(comparison),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
