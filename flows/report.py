"""The cohort report: the estimates of a warehouse become one page, a PDF, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from cac_core.analysis.headline import headline
from cac_core.analysis.run import estimates_table
from cac_core.analysis.supplement import ANALYSES as SUPPLEMENTS
from cac_core.analysis.supplement import acquisition, discrepancy_causes, training
from cac_core.cohort.scores import scores_of
from cac_core.errors import UsageError
from cac_core.model.weights import verify_weights
from cac_core.report.cohort.assemble import Assembled, assemble
from cac_core.report.cohort.blocks import Report
from cac_core.report.cohort.cases import case_section, example_studies
from cac_core.report.cohort.numbers import Numbers
from cac_core.report.cohort.small_cells import hide_small
from flows.analysis import (
    AnalysisRequest,
    PreparedAnalysis,
    analyse_if_changed,
    interval,
    prepare_analysis,
    told,
)
from flows.pages.studies import write_pages
from flows.runtime.progress import RunProgress, current_progress
from flows.runtime.results_folder import require_replaceable, results_folder, write_files
from schemas.preview import PREVIEWS
from schemas.results import ANALYSES, DISCREPANCIES, ESTIMATES
from schemas.run import RUNS
from schemas.table import KEY_PATTERN
from tasks.step import step

#: Studies that get a page of their own beside the report: examples first, then discrepant cases.
MOST_PAGES = 100
#: What the folder of a report is said to hold.
_HOLDS = "cohort report"

_assemble = step("assemble-report")(assemble)


@dataclass(frozen=True)
class ReportRequest:
    """Arguments of one report; what is None comes from the settings file."""

    warehouse: str | None = None
    config: str | None = None
    plan: str | None = None
    out: str | None = None
    reviews: str | None = None
    suppress: bool | None = None


@dataclass(frozen=True)
class PreparedReport:
    """A checked request: there is a linked cohort, and a folder to write into."""

    analysis: PreparedAnalysis
    out: Path
    reviews: pa.Table | None
    suppress: bool


def prepare_report(request: ReportRequest) -> PreparedReport:
    """Check a request and read what it names; writes nothing.

    Raises
    ------
    CacError
        For the first thing that is wrong: settings, plan, warehouse, nothing linked yet, reviews
        that cannot be read, or a folder that holds something else.
    """
    analysis = prepare_analysis(AnalysisRequest(request.warehouse, request.config, request.plan))
    settings, store = analysis.settings.report, analysis.warehouse
    out = Path(request.out) if request.out else settings.out
    if out is None:
        if not store.is_local:
            raise UsageError(
                f"The warehouse {store.url} is no folder of this machine.",
                "Name a folder for the report with --out.",
            )
        out = store.folder / "reports" / "cohort"
    require_replaceable(out, _HOLDS)
    reviews = Path(request.reviews) if request.reviews else settings.reviews
    suppress = settings.suppress_small_cells if request.suppress is None else request.suppress
    return PreparedReport(analysis, out, None if reviews is None else _reviews(reviews), suppress)


@flow(name="cohort-report", persist_result=False, validate_parameters=False)
def cohort_report(
    warehouse: str | None = None,
    config: str | None = None,
    plan: str | None = None,
    out: str | None = None,
    reviews: str | None = None,
    suppress: bool | None = None,
) -> dict[str, Any]:
    """Analyse the linked cohort where something has changed, and write its report.

    Parameters
    ----------
    warehouse, config, plan, out, reviews, suppress : as the options of `cac report`.

    Returns
    -------
    The summary that `cac report --json` prints.
    """
    prepared = prepare_report(ReportRequest(warehouse, config, plan, out, reviews, suppress))
    summary = write_report(prepared, current_progress())
    create_markdown_artifact(key="cohort-report", markdown=_markdown(summary))
    return summary


def write_report(prepared: PreparedReport, progress: RunProgress) -> dict[str, Any]:
    """Bring the estimates up to date, and write the report in place of the last one.

    Raises
    ------
    CacError
        If a table cannot be read or the folder cannot be written.
    """
    analysis, store, clock = prepared.analysis, prepared.analysis.warehouse, monotonic()
    with store.lock():
        analysed = analyse_if_changed(analysis, progress)
        begun = monotonic()
        estimates = _supplemented(prepared)
    progress.say(f"writing the report into {prepared.out}")
    report = _report(prepared, estimates)
    studies = () if prepared.suppress else _studies(prepared, report)
    with results_folder(prepared.out, _HOLDS) as aside:
        if studies:
            pages = write_pages(store, studies, aside / "studies", analysis.cohort.run["model_id"])
            report.facts["pages"] = {key: f"studies/{path.name}" for key, path in pages.items()}
        done = _assemble(report, (case_section,))
        write_files(done.files, aside)
    return _summary(prepared, done, analysed, estimates) | {
        "study_pages": len(studies),
        "seconds_report": round(monotonic() - begun, 3),
        "seconds": round(monotonic() - clock, 3),
    }


def _supplemented(prepared: PreparedReport) -> pa.Table:
    """Estimates with the rows that come from the archive, published where they are new."""
    analysis, store = prepared.analysis, prepared.analysis.warehouse
    scores = scores_of(store, analysis.cohort.run["model_id"], analysis.settings.protocol.digest)
    rows = [
        *acquisition(scores, analysis.cohort.linked["study_key"].to_pylist()),
        *training(verify_weights(analysis.settings.model).training),
        *discrepancy_causes(store.read(DISCREPANCIES), scores, prepared.reviews),
    ]
    published = store.read(ESTIMATES)
    others = pc.invert(pc.is_in(published["analysis"], pa.array(SUPPLEMENTS)))
    estimates = ESTIMATES.validate(
        pa.concat_tables([published.filter(others), estimates_table(rows)]).combine_chunks()
    )
    if not estimates.equals(published.combine_chunks()):
        store.replace(ESTIMATES, estimates)
    return estimates


def _report(prepared: PreparedReport, estimates: pa.Table) -> Report:
    analysis = prepared.analysis
    run, store = analysis.cohort.run, analysis.warehouse
    labels = {name: one.description for name, one in analysis.cohort.outcomes.outcome.items()}
    return Report(
        Numbers(hide_small(estimates) if prepared.suppress else estimates),
        analysis.plan,
        analysis.cohort.linked,
        labels,
        store.read(DISCREPANCIES),
        prepared.suppress,
        {
            "subtitle": f"Site {run['site']}, scores of model {run['model_id']}, "
            f"linkage {run['run_id']}",
            "model": run["model_id"],
            **_behind(prepared),
            "pages": {},
            "previews": {},
        },
    )


def _behind(prepared: PreparedReport) -> dict[str, Any]:
    """What stands behind the numbers: runs, and the networks if they are those that scored."""
    analysis, store = prepared.analysis, prepared.analysis.warehouse
    model, manifest = analysis.cohort.run["model_id"], verify_weights(analysis.settings.model)
    runs = store.read(RUNS).sort_by("started_at").to_pylist()
    return {
        "networks": manifest.networks if manifest.model_id == model else {},
        "rescoring_runs": [row for row in runs if row["model_id"] == model],
        "linkage_run": analysis.cohort.run,
        "analysis_run": store.read(ANALYSES).sort_by("started_at").to_pylist()[-1],
    }


def _studies(prepared: PreparedReport, report: Report) -> Sequence[str]:
    """Studies that get a page of their own; the pictures of the examples are put to the facts."""
    analysis = prepared.analysis
    examples = example_studies(report)
    model = analysis.cohort.run["model_id"]
    previews = analysis.warehouse.read(PREVIEWS, model, studies=examples).to_pylist()
    report.facts["previews"] = {
        key: [row for row in previews if row["study_key"] == key] for key in examples
    }
    cases = [] if report.discrepancies is None else report.discrepancies["study_key"].to_pylist()
    return list(dict.fromkeys([*examples, *cases]))[:MOST_PAGES]


def _reviews(path: Path) -> pa.Table:
    """Causes of discrepant cases, as people found them."""
    hint = "It is a CSV with the columns study_key and cause, a line per cause."
    try:
        text = pacsv.ConvertOptions(column_types={"study_key": pa.string(), "cause": pa.string()})
        table = pacsv.read_csv(path, convert_options=text).select(["study_key", "cause"])
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise UsageError(
            f"The reviews {path} cannot be read ({type(error).__name__}).", hint
        ) from None
    wrong = pc.invert(pc.match_substring_regex(table["study_key"], KEY_PATTERN))
    bad = (pc.sum(wrong).as_py() or 0) + table["study_key"].null_count + table["cause"].null_count
    if bad:
        raise UsageError(f"{bad} lines of the reviews {path} lack a study key or a cause.", hint)
    return table


def _summary(
    prepared: PreparedReport, done: Assembled, analysed: dict[str, Any], estimates: pa.Table
) -> dict[str, Any]:
    return {
        "outcome": "incomplete" if done.gaps else "complete",
        "warehouse": prepared.analysis.warehouse.url,
        "out": str(prepared.out),
        "page": str(prepared.out / "index.html"),
        "analysis": analysed["outcome"],
        "patients": analysed["patients"],
        "estimates": estimates.num_rows,
        "tables": done.tables,
        "figures": done.figures,
        "page_bytes": len(done.files["index.html"]),
        "gaps": {title: list(reasons) for title, reasons in done.gaps.items()},
        "headline": headline(
            hide_small(estimates) if prepared.suppress else estimates, prepared.analysis.plan
        ),
    }


def _markdown(summary: dict[str, Any]) -> str:
    lines = ["# Cohort report", "", f"{summary['page']}: {summary['outcome']}.", ""]
    lines += ["| | value | interval |", "|---|---|---|"]
    for row in summary["headline"]:
        lines.append(f"| {row['name']} | {told(row['value'])} | {interval(row)} |")
    for title, reasons in summary["gaps"].items():
        lines += ["", f"**{title}**", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join(lines)
