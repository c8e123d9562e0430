"""Putting a comparison together: sums, groups, estimate rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cac_core.errors import CacError, UsageError
from cac_core.evaluation import evaluate as evaluation
from cac_core.evaluation.agreement import estimate_rows
from cac_core.evaluation.evaluate import evaluate_set, summarise
from cac_core.model.weights import WeightsManifest
from cac_core.phantom.heldout.real_chests import host_names
from cac_core.phantom.truth import true_category
from flows.cli.options import console
from flows.pages.evaluation import write_evaluation
from flows.runtime.progress import RunProgress
from schemas.codes import CAC_CATEGORIES
from schemas.results import ESTIMATES
from schemas.score import CATEGORY_CHANCES


def study(truth: float, model: float, **changes: object) -> dict[str, object]:
    own = true_category(model)
    found = {
        **{
            name: float(category == own)
            for name, category in zip(CATEGORY_CHANCES, CAC_CATEGORIES, strict=True)
        },
        "agatston_low": 0.8 * model,
        "agatston_high": 1.3 * model,
        "needs_review": model == 20,
        "review_reasons": "borderline_category" if model == 20 else "",
        "name": "n",
        "origin": "synthetic",
        "first": model,
        "second": truth,
        "threshold_only": 500.0,
        "perfect_classes": truth,
        "reader": truth,
        "true_category": "0",
        "slice_increment_mm": 5.0,
        "noise_hu": "20-30",
        "seconds": 1.0,
        "digest": "d",
        "true_lesions": [
            {"volume_mm3": 5.0, "peak_hu": 150.0, "found": model > 0, "cause": "noise"},
        ]
        if truth
        else [],
        "false_lesions": [{"volume_mm3": 8.0, "peak_hu": 140.0, "cause": "valve"}]
        if model and not truth
        else [],
        "false_positive_mm3": 8.0 if model and not truth else 0.0,
        "sensitivity": None if not truth else float(model > 0),
        "heart_dice": 0.9,
        "coronary_mm3": float(truth),
        "coronary_in_heart_mm3": 0.95 * truth,
        "slices_in_pieces": 0,
    }
    return found | changes


STUDIES = [
    study(0, 0),
    study(0, 20, slice_increment_mm=3.0),
    study(50, 0),
    study(50, 60, slice_increment_mm=3.0),
    study(300, 280),
    study(900, 1000, heart_dice=0.7, coronary_in_heart_mm3=600.0, slices_in_pieces=2),
]


def test_sums_by_hand() -> None:
    result = summarise(STUDIES, ["slice_increment_mm"])
    assert result["concordance_reference_by_compared"] == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]
    assert result["false_positive_mm3_mean"] == pytest.approx(8 / 6)
    assert result["volume_sensitivity_mean"] == pytest.approx(3 / 4)
    assert result["heart_dice_minimum"] == 0.7
    assert result["coronary_in_heart"] == pytest.approx((0.95 * 400 + 600) / 1300)
    assert result["coronary_in_heart_90"] == pytest.approx(3 / 4)
    assert result["hearts_in_pieces"] == 1
    assert result["misses_by_cause"] == {"noise": 1}
    assert result["false_alarms_by_cause"] == {"valve": 1}
    smallest = result["lesions_by_volume_mm3"][0]
    assert (smallest["lesions"], smallest["found"]) == (4, 0.75)
    assert result["reader"]["kappa_linear"] == pytest.approx(1)
    assert result["perfect_classes_kappa"] == pytest.approx(1)
    lost = summarise([study(0, 0), study(50, 0, perfect_classes=0.0)])
    assert lost["perfect_classes_kappa"] == pytest.approx(0)  # the heart mask missed it
    assert {k: v["n"] for k, v in result["groups"]["slice_increment_mm"].items()} == {
        "3.0": 2,
        "5.0": 4,
    }


def test_unknown_column_to_group_by() -> None:
    with pytest.raises(UsageError, match="Unknown columns to group by: colour"):
        summarise(STUDIES, ["colour"])


def test_what_is_written(tmp_path: Path) -> None:
    result = summarise(STUDIES, ["noise_hu"])
    write_evaluation(tmp_path / "e", result)
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["n"] == 6
    estimates = ESTIMATES.validate(pq.read_table(tmp_path / "e" / "estimates.parquet"))
    assert estimates.equals(estimate_rows(result))
    kappa = [
        r
        for r in estimates.to_pylist()
        if (r["analysis"], r["statistic"]) == ("agreement", "kappa_linear")
    ]
    assert {(r["model"], r["level"]) for r in kappa} == {
        ("model against truth", None),
        ("reader against truth", None),
        ("model against reader", None),
        ("model against truth", "20-30"),
    }
    assert pq.read_table(tmp_path / "e" / "studies.parquet").num_rows == 6
    assert (tmp_path / "e" / "certainty.svg").exists()
    (brier,) = [r for r in estimates.to_pylist() if r["statistic"] == "brier"]
    assert brier["value"] == pytest.approx(2 * 2 / 6)  # two of six are wrong and were sure


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacError, match="cannot be written"):
        write_evaluation(tmp_path / "file" / "below", summarise(STUDIES))


def test_weights_are_not_evaluated_on_their_own_chests(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = {
        "crop": ["crop"],
        "others": [name for name in host_names() if name != "crop"],
        "female": ["mesh-female", "labelled", "plain8"],
        "male": ["mesh-male", "mesh-rodero", "siemens", "crop", "plain3", "motion"],
        "all": list(host_names()),
        "synthetic": [],
    }

    def weights(folder: Path | None) -> WeightsManifest:
        name = str(folder)
        runs = {"heart": {"data": {"hosts": learnt[name][:1]}}, "calcium": {"data": {}}}
        runs["calcium"]["data"]["hosts"] = learnt[name][1:]
        return WeightsManifest(Path(name), name, "v", "0" * 64, {}, runs)

    def judged(cases: list[evaluation._Case], *_: object) -> dict[str, object]:
        return {"studies": [{"digest": f"{case.number} {case.weights.name}"} for case in cases]}

    monkeypatch.setattr(evaluation, "verify_weights", weights)
    monkeypatch.setattr(evaluation, "_evaluate_cases", judged)

    def of(name: str, *folders: str, limit: int = 6) -> tuple[list[str], list[str]]:
        progress = RunProgress(console, quiet=True)
        models = [Path(folder) for folder in folders]
        result = evaluate_set(name, progress, limit=limit, models=models)
        return [row["digest"] for row in result["studies"]], result["left_out"]

    # The chests come in turn: labelled, siemens, crop, ...
    assert of("semi-synthetic", "crop", "others") == (
        ["0 crop", "1 crop", "2 others", "3 crop", "4 crop", "5 crop"],
        [],
    )
    assert of("semi-synthetic", "crop") == (
        ["0 crop", "1 crop", "3 crop", "4 crop", "5 crop"],
        ["crop"],
    )
    # Male and rodero in the chests of the one training, female in those of the other.
    assert of("mesh-hearts", "female", "male")[0] == [f"{n} female" for n in range(6)]
    assert of("mesh-hearts", "female", "male", limit=12)[0][8:] == [
        f"{n} male" for n in range(8, 12)
    ]
    assert of("semi-synthetic", "synthetic") == ([f"{n} synthetic" for n in range(6)], [])
    assert of("external", "all") == ([f"{n} all" for n in range(6)], [])
    with pytest.raises(UsageError, match="every study"):
        of("semi-synthetic", "all")
