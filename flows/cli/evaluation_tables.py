"""Terminal tables of `cac evaluate`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from flows.cli.tables import pairs_table

_FROZEN = {
    True: "as frozen",
    False: "differs from the frozen set",
    None: "in part, or not frozen",
}


def agreement_tables(result: dict[str, Any]) -> list[Table]:
    """Concordance matrix and agreement of two sources of scores."""
    compared, reference = result["compared"], result["reference"]
    table = pairs_table(f"Agreement of {compared} with {reference}")
    table.add_row("studies", str(result["n"]))
    for key, name in (("only_compared", compared), ("only_reference", reference)):
        if result.get(key):
            table.add_row(f"studies that only {name} has", str(result[key]))
    if result.get("left_out"):
        table.add_row("left out: training data of the weights", ", ".join(result["left_out"]))
    table.add_row("linear-weighted kappa (95 % CI)", _with_interval(result, "kappa_linear"))
    table.add_row("same category", f"{100 * result['same_category']:.1f} %")
    if result.get("r2_log") is not None:
        table.add_row("r2 of log(1 + Agatston)", f"{result['r2_log']:.3f}")
        table.add_row("ICC(2,1) of log(1 + Agatston)", _with_interval(result, "icc_log"))
        bias, low, high = result["bland_altman"]
        table.add_row("difference, limits of agreement", f"{bias:.1f} ({low:.1f} to {high:.1f})")
    if "reference_zero" in result:
        _add_extremes(table, result, reference)
    if "heart_dice_mean" in result:
        _detail_rows(table, result)
    if result.get("certainty"):
        _add_certainty(table, result["certainty"])
    if "defects_planted" in result:
        table.add_row(
            "planted defects found", f"{result['defects_found']} of {result['defects_planted']}"
        )
    table.add_row("seconds per study, median", f"{result['seconds_per_study_median']:.2f}")
    groups = [_group_table(column, levels) for column, levels in result.get("groups", {}).items()]
    return [_concordance_table(result), table, *groups]


def _concordance_table(result: dict[str, Any]) -> Table:
    compared, reference = result["compared"], result["reference"]
    table = Table(
        title=f"Categories: {reference} (rows) by {compared} (columns)", title_justify="left"
    )
    table.add_column("CAC")
    for name in result["categories"]:
        table.add_column(name, justify="right")
    for name, row in zip(
        result["categories"], result["concordance_reference_by_compared"], strict=True
    ):
        table.add_row(name, *(str(count) for count in row))
    return table


def _add_extremes(table: Table, result: dict[str, Any], reference: str) -> None:
    """How studies without calcium, and with much, are scored."""
    for key, title in (
        ("reference_zero", f"{reference} 0, scored below 1"),
        ("reference_above_100", f"{reference} above 100, scored above 0"),
    ):
        correct = next(name for name in result if name.startswith(f"{key}_scored"))
        table.add_row(title, f"{result[correct]} of {result[key]}")


def _add_certainty(table: Table, found: dict[str, Any]) -> None:
    """Whether the scores are as sure as they say."""
    table.add_row("Brier score of the categories", f"{found['brier']:.3f}")
    table.add_row(
        f"reference in the {100 * found['interval']:.0f} % interval (95 % CI)",
        _with_interval(found, "coverage"),
    )
    table.add_row(
        "scores that need review",
        f"{found['needs_review']} of {found['n']}; of {found['wrong_category']} in a wrong "
        f"category {found['wrong_category_needs_review']}",
    )
    if found["kappa_after_needed_reviews"] is not None:
        table.add_row("kappa once these are read", f"{found['kappa_after_needed_reviews']:.3f}")


def _with_interval(result: dict[str, Any], statistic: str) -> str:
    if result[statistic] is None:
        return "not defined"
    low, high = result[f"{statistic}_ci"]
    return f"{result[statistic]:.3f} ({low:.3f} to {high:.3f})"


def _detail_rows(table: Table, result: dict[str, Any]) -> None:
    """Lines that need the truth voxel by voxel."""
    if "test_set" in result:
        table.add_row("test set", f"{result['test_set']}, {_FROZEN[result['frozen']]}")
    table.add_row(
        "heart Dice, mean (minimum)",
        f"{result['heart_dice_mean']:.3f} ({result['heart_dice_minimum']:.3f})",
    )
    if result["coronary_in_heart"] is not None:
        table.add_row(
            "coronary calcium inside the heart",
            f"{100 * result['coronary_in_heart']:.1f} % of the volume; at least 90 % in "
            f"{100 * result['coronary_in_heart_90']:.0f} % of the studies with calcium",
        )
    table.add_row("hearts with a slice in pieces", f"{result['hearts_in_pieces']}")
    table.add_row("false-positive coronary calcium", f"{result['false_positive_mm3_mean']:.1f} mm3")
    for name, title in (
        ("misses_by_cause", "lesions missed, by cause"),
        ("false_alarms_by_cause", "false alarms, by cause"),
    ):
        causes = sorted(result[name].items(), key=lambda item: -item[1])
        table.add_row(title, ", ".join(f"{cause} {n}" for cause, n in causes) or "none")
    for bin_ in result["lesions_by_volume_mm3"]:
        if bin_["lesions"]:
            upto = "and more" if bin_["to"] is None else f"to {bin_['to']:g}"
            table.add_row(
                f"lesions of {bin_['from']:g} {upto} mm3 found",
                f"{100 * bin_['found']:.0f} % of {bin_['lesions']}",
            )
    for name, title in (
        ("threshold_only_kappa", "kappa of threshold alone in the true heart"),
        ("perfect_classes_kappa", "kappa of a perfect calcium network in the found heart"),
        ("reader", "kappa of the simulated reader with the truth"),
        ("model_against_reader", "kappa of the model with the simulated reader"),
    ):
        value = result[name] if name.endswith("_kappa") else result[name]["kappa_linear"]
        table.add_row(title, "not defined" if value is None else f"{value:.3f}")


def _group_table(column: str, levels: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=f"By {column}", title_justify="left")
    for name in (column, "n", "kappa", "same category"):
        table.add_column(name, justify="right")
    for level, found in levels.items():
        kappa = "not defined" if found["kappa_linear"] is None else f"{found['kappa_linear']:.3f}"
        table.add_row(level, str(found["n"]), kappa, f"{100 * found['same_category']:.1f} %")
    return table
