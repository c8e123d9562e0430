"""The methods section, written from the settings and counts of this run.

Settings are those recorded by the runs of rescoring and linkage; counts are estimates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from cac_core.analysis.key_estimates import FOLLOW_UP
from cac_core.analysis.plan import Plan, Term
from cac_core.cohort.outcomes import UNSTATED
from cac_core.report.cohort.plain_words import listed, word
from cac_core.report.cohort.population import step_in_words
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, ReportSection
from schemas.codes import FlowStep

_MISSING = {
    "complete_case": "Patients with a missing covariate of a model are excluded from that model.",
    "multiple_imputation": "Missing covariates were imputed {imputations} times, and estimates "
    "pooled by Rubin's rules.",
}
_ENTERED = {"death": "the date of death", "diagnosis": "diagnosis codes beginning with",
            "procedure": "procedure codes beginning with"}  # fmt: skip


#: What becomes of patients with an early event, by the rule of the outcome.
_EARLY = {
    "exclude": "not in patients with",
    "blank": "not counting",
    "censor": "follow-up ends at a",
}


def methods_section(report: Report) -> ReportSection:
    """Methods of this run, in sentences for a paper."""
    section = ReportSection("methods", "Methods of this run", aside=True)
    for title, write in (
        ("Scoring", _scoring),
        ("Cohort", _cohort),
        ("Outcomes", _outcomes),
        ("Statistical analysis", _analysis),
        ("Software", _software),
    ):
        block = Block(title)
        write(report, block)
        section.blocks.append(block)
    return section


def _scoring(report: Report, block: Block) -> None:
    runs = report.facts.rescoring_runs
    if not runs:
        block.missing(["no scoring run with this model is recorded"])
        return
    run = runs[-1]
    protocol = json.loads(run["settings"]).get("protocol", {})
    block.say(
        "CT attenuation scans were scored without human intervention by {} (weights {}), a "
        "cascade of convolutional LSTM networks that segments the heart and separates coronary "
        "from other calcium.",
        run["model_id"],
        run["model_digest"][:12],
    )
    if not protocol:
        block.missing(["the last rescoring did not record its protocol"])
        return
    edges = ", ".join(f"{edge:g}" for edge in protocol["weight_edges_hu"])
    block.say(
        "Agatston scores counted lesions of at least {} mm\N{SUPERSCRIPT TWO} at or above {} HU, "
        "joined through {} neighbours within a slice, weighted by peak attenuation with steps at "
        "{} HU, and scaled by the slice increment over {} mm. {}",
        f"{protocol['min_area_mm2']:g}",
        f"{protocol['threshold_hu']:g}",
        f"{protocol['connectivity']:g}",
        edges,
        f"{protocol['reference_increment_mm']:g}",
        "The threshold was taken from a table by tube voltage; scans at other voltages kept this "
        "threshold and were flagged."
        if protocol["kvp_rule"] == "table"
        else "Scans at other than 120 kV kept the threshold and were flagged.",
    )


def _cohort(report: Report, block: Block) -> None:
    run, numbers = report.facts.linkage_run, report.numbers
    if run:
        mapping = json.loads(run["mapping"])
        coverage, rules = mapping["coverage"], mapping["rules"]
        begin = f"from {coverage['begin']} to" if coverage.get("begin") else "until"
        block.say(
            "Scores were linked to the records of site {} by keyed pseudonym and study date, "
            "which could differ by {} days; the registry has coverage {} {}. Patients without {} "
            "were excluded.",
            run["site"],
            rules["window_days"],
            begin,
            coverage["end"],
            listed((word(name) for name in rules["required"]), "or") or "a clinical record",
        )
    else:
        block.missing(["the linkage of this cohort is not recorded"])
    end = numbers.one("cohort_flow", "count", term=FlowStep.INCLUDED.value)
    if end is None or not end.n:
        block.missing(["no patients are linked: run `cac link`"])
        return
    left = [
        Markup("{} ({})").format(step_in_words(report, step), numbers.text(row, "count"))
        for step in FlowStep
        if step is not FlowStep.INCLUDED
        and (row := numbers.one("cohort_flow", "count", term=step.value)) is not None
        and (row.value or row.reason)
    ]
    block.say(
        "Of {} patients in the archive or the clinical table, {} are in the analysis{}{}.",
        numbers.text(end, "count", "n"),
        numbers.text(end, "count"),
        "; exclusions: " if left else "",
        Markup("; ").join(left),
    )
    if not end.value:
        block.missing(["no patients are in the analysis"])


def _outcomes(report: Report, block: Block) -> None:
    run = report.facts.linkage_run
    if not run:
        block.missing(["the definitions are unknown without the run of the linkage"])
        return
    definition = json.loads(run["definition"])
    for name in report.plan.outcomes:
        outcome = definition["outcome"].get(name)
        if outcome is None:
            block.missing([f"the linkage did not define {report.outcome(name)}"])
            continue
        early = outcome.get("early")
        if outcome["first_of"] == [name] and not early:
            continue  # its component says what it is
        block.say(
            "{}: {}{}{}.",
            _capital(report.outcome(name)),
            "the first of " if len(outcome["first_of"]) > 1 else "",
            listed(word(part) for part in outcome["first_of"]),
            "" if not early else f"; {_EARLY[early['rule']]} {word(early['component'])} within "
            f"{early['days']} days",
        )  # fmt: skip
    used = {
        part
        for name in report.plan.outcomes
        for part in definition["outcome"].get(name, {}).get("first_of", ())
    }
    known = definition["known_cad"]["components"]
    used |= set(known)
    systems = _systems(json.loads(run["mapping"]))
    for name, component in definition["component"].items():
        if name in used:
            block.say("{}: {}.", word(name).capitalize(), _component(component, systems))
    if known:
        block.say(
            "Known coronary disease at or before the scan: {}.",
            listed(word(part) for part in known),
        )


def _systems(mapping: Mapping[str, Any]) -> set[str]:
    """Coding systems that the records of a mapping can have."""
    found: set[str] = set()
    for source in mapping.get("source", ()):
        if source["table"] != "encounters":
            continue
        columns = [source["columns"], *(group["columns"] for group in source["repeated"])]
        given = {name: item for group in columns for name, item in group.items()}
        for kind in ("diagnosis", "procedure"):
            item = given.get(f"{kind}_system")
            named = {item["constant"]} if item and item["constant"] else None
            found |= named or {*UNSTATED, *(item["codes"].values() if item else ())}
    return found or set(UNSTATED)


def _component(component: Mapping[str, Any], systems: set[str]) -> str:
    text = _ENTERED[component["kind"]]
    if component["codes"]:
        text += " " + ", ".join(component["codes"])
    given = [
        f"{system} {', '.join(item['codes'])}"
        for system, item in component.get("systems", {}).items()
        if system in systems
    ]
    text += " " + "; ".join(given) if given else ""
    if component["types"]:
        text += f" (types {', '.join(component['types'])})"
    if component["record_types"]:
        text += f", {listed(component['record_types'], 'or')} records"
    sources = [component["source"]] + [
        item["source"] for name, item in component.get("systems", {}).items() if name in systems
    ]
    named = "; ".join(filter(None, sources))
    return text + (f"; source: {named}" if named else "")


def _analysis(report: Report, block: Block) -> None:
    plan, numbers = report.plan, report.numbers
    follow_up = numbers.one("follow_up", "median", population=report.populations[0],
                            outcome=plan.primary)  # fmt: skip
    if follow_up is not None and follow_up.value is not None:
        block.say(
            "Median follow-up was {} years by {}, with {} events of the primary outcome ({}).",
            numbers.text(follow_up, "two"),
            FOLLOW_UP,
            numbers.text(follow_up, "count", "n_events"),
            report.outcome(plan.primary),
        )
    else:
        block.missing(["follow-up is not estimable"])
    block.say(
        "Calcium was read by {}. Kaplan-Meier curves have {} limits; hazard ratios come from "
        "Cox models, each reading entered by category and adjusted for: {}.",
        listed(source.label for source in plan.sources.values()),
        plan.interval,
        "; ".join(_covariate(term) for term in plan.covariates) or "nothing else",
    )
    block.say("{}", _readings(report))
    block.say(
        "Absolute risk, calibration and net reclassification are at {} years. {} {} Intervals "
        "cover {} %.",
        f"{plan.horizon_years:g}",
        _gains(plan),
        _MISSING[plan.missing].format(imputations=plan.imputations),
        f"{100 * plan.confidence:g}",
    )
    if plan.components:
        block.say(
            "Cumulative incidence of {} by Aalen and Johansen, with {} competing, compared by "
            "Gray's test. Cause-specific hazard ratios, with {} as censoring, are given with those "
            "of the subdistribution by the model of Fine and Gray with robust standard errors.",
            listed(word(name) for name in plan.components),
            word(plan.competing),
            word(plan.competing),
        )


def _gains(plan: Plan) -> str:
    """Interval or test of each gain."""
    intervals = (
        f"have bootstrap intervals, percentiles of {plan.resamples:,} resamples of patients with "
        f"models refitted in each (seed {plan.seed})"
        if plan.resamples
        else "have no intervals, since the plan has no resamples"
    )
    optimism = (
        " Discrimination and net reclassification are also given corrected for optimism "
        "(bootstrap, Harrell), by the same resamples."
        if plan.optimism
        else ""
    )
    return (
        "The gain in fit is tested by the likelihood ratio and has no interval. Gains in AUC over "
        f"all follow-up have DeLong's intervals; gains in AUC at {plan.horizon_years:g} years, in "
        "Harrell's and Uno's c, net reclassification in all its forms and integrated "
        f"discrimination improvement {intervals}.{optimism}"
    )


def _readings(report: Report) -> str:
    pairs = [
        f"{report.label(first)} with {report.label(second)}"
        for first, second in report.plan.compare
    ]
    found = report.numbers.rows("agreement", "kappa_linear", population=report.populations[0])
    if not pairs:
        return "Readings were not compared with each other."
    text = (
        f"Agreement of {listed(pairs)} is measured by Cohen's kappa with linear weights; quadratic "
        "weights and no weights are given beside it."
    )
    if any(row.value is not None for row in found):
        return text
    return f"{text} It is not estimable in this cohort: one reading of each pair is missing."


def _covariate(term: Term) -> str:
    return term.label[:1].lower() + term.label[1:] if term.label[1:2].islower() else term.label


def _software(report: Report, block: Block) -> None:
    runs = {
        "scoring": runs[-1] if (runs := report.facts.rescoring_runs) else None,
        "linkage": report.facts.linkage_run,
        "analysis": report.facts.analysis_run,
    }
    for name, run in runs.items():
        if run is None:
            block.missing([f"versions of the {name} are unknown"])
            continue
        versions = json.loads(run["versions"])
        block.say(
            "{}: cac-cohort {}; {}.",
            name.capitalize(),
            run["core_version"],
            ", ".join(f"{library} {versions[library]}" for library in sorted(versions)) or "none",
        )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
