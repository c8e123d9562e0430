"""The cohort report: one page, a PDF, tables and figures from the estimates of a warehouse."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from prefect import State, flow

from cac_core.analysis.archive_estimates import (
    ARCHIVE_ANALYSES,
    acquisition,
    certainty_of_scores,
    discrepancy_causes,
    training,
)
from cac_core.analysis.key_estimates import KeyEstimate, key_estimates, key_estimates_markdown
from cac_core.analysis.reading_estimates import reading_estimates
from cac_core.analysis.run import estimates_table
from cac_core.cohort.scores import scores_of
from cac_core.errors import UsageError
from cac_core.model.weights import verify_weights
from cac_core.reading.readings import Readings, read_readings
from cac_core.report.cohort.assemble import assemble
from cac_core.report.cohort.example_cases import case_section, example_studies
from cac_core.report.cohort.readings import has_readings, reading_section
from cac_core.report.cohort.report import Report, ReportFacts
from cac_core.report.cohort.shown_estimates import ShownEstimates
from cac_core.report.cohort.small_cells import hide_small
from flows.analysis import (
    AnalysisRequest,
    PreparedAnalysis,
    analyse_if_changed,
    is_current,
    prepare_analysis,
)
from flows.pages.studies import write_pages
from flows.request import schedule_of
from flows.runtime.attempts import attempted
from flows.runtime.known_folders import remember_folder
from flows.runtime.progress import RunProgress, current_progress
from flows.runtime.results_folder import require_replaceable, results_folder, write_files
from flows.runtime.results_in_store import require_replaceable_in_store, results_in_store
from flows.runtime.states import concluded
from flows.summaries import PlannedWrites, RunRecord, empty_cohort
from schemas.preview import PREVIEWS
from schemas.results import ANALYSES, DISCREPANCIES, ESTIMATES
from schemas.run import RUNS
from schemas.table import KEY_PATTERN
from tasks.step import step

#: Studies that get their own page beside the report: examples first, then discrepant cases.
MOST_PAGES = 100
#: Name of the contents of the folder, in messages.
_CONTENTS = "cohort report"
#: Its folder below `reports` of the warehouse.
_NAME = "cohort"
#: Folder of the study pages within the report.
_STUDIES = "studies"

_assemble = step("assemble-report")(assemble)


@dataclass(frozen=True)
class ReportRequest:
    """Arguments of one report; None takes the value of the settings file."""

    warehouse: str | None = None
    config: str | None = None
    plan: str | None = None
    out: str | None = None
    reviews: str | None = None
    suppress: bool | None = None
    journal: bool | None = None
    scheduled: bool = False
    scores: str | None = None


@dataclass(frozen=True)
class ReportSummary:
    """One cohort report (`cac report`); `docs/report.md` lists the fields."""

    outcome: str
    warehouse: str
    out: str
    page: str
    analysis: str
    patients: int
    estimates: int
    tables: int
    figures: int
    page_bytes: int
    gaps: dict[str, list[str]]
    headline: list[KeyEstimate]
    study_pages: int
    empty_because: list[str]
    seconds_report: float
    seconds: float

    def as_markdown(self) -> str:
        """The artifact on the Prefect page of the run."""
        lines = ["# Cohort report", "", f"{self.page}: {self.outcome}.", ""]
        lines += key_estimates_markdown(self.headline)
        for title, reasons in self.gaps.items():
            lines += ["", f"**{title}**", "", *(f"- {reason}" for reason in reasons)]
        return "\n".join(lines)

    def record(self) -> RunRecord:
        """The log of the flow run, and its state."""
        info = [
            f"{self.outcome}: {self.patients} patients, {self.estimates} estimates, "
            f"{self.tables} tables, {self.figures} figures; analysis {self.analysis}"
        ]
        missing = [f"{title}: {'; '.join(reasons)}" for title, reasons in self.gaps.items()]
        if self.empty_because:
            message = empty_cohort(self.empty_because)
            return RunRecord(info, [*missing, message], "EmptyCohort", message)
        if self.gaps:
            message = (
                f"The report is written but lacks {len(missing)} sections: {', '.join(self.gaps)}."
            )
            return RunRecord(info, missing, "IncompleteReport", message)
        return RunRecord(info)


@dataclass(frozen=True)
class PreparedReport:
    """A checked request: there is a linked cohort and a folder that can be written.

    `out` is None for the place in the store of a warehouse at a URL.
    """

    analysis: PreparedAnalysis
    out: Path | None
    reviews: pa.Table | None
    suppress: bool
    journal: bool
    readings: Readings

    @property
    def place(self) -> str:
        """Where the report goes."""
        url = self.analysis.warehouse.url.rstrip("/")
        return str(self.out) if self.out else f"{url}/reports/{_NAME}"

    def folder(self) -> AbstractContextManager[Path]:
        """A folder whose files replace the report at the end."""
        if self.out is not None:
            return results_folder(self.out, _CONTENTS)
        return results_in_store(self.analysis.warehouse, _NAME, _CONTENTS)


def prepare_report(request: ReportRequest) -> PreparedReport:
    """Check a request and read its cohort and reviews; writes nothing.

    Raises
    ------
    CacError
        If settings, plan or warehouse are invalid, nothing is linked yet, reviews cannot be read,
        or the folder holds something else.
    """
    analysis = prepare_analysis(
        AnalysisRequest(request.warehouse, request.config, request.plan, request.scores)
    )
    settings, store = analysis.settings.report, analysis.warehouse
    out = Path(request.out) if request.out else settings.out
    if out is None and store.is_local:
        out = store.folder / "reports" / _NAME
    if out is None:
        require_replaceable_in_store(store, _NAME, _CONTENTS)
    else:
        require_replaceable(out, _CONTENTS)
    reviews = Path(request.reviews) if request.reviews else settings.reviews
    suppress = settings.suppress_small_cells if request.suppress is None else request.suppress
    journal = settings.journal if request.journal is None else request.journal
    readings = read_readings(store)
    read = _with_signed(None if reviews is None else _reviews(reviews), readings)
    return PreparedReport(analysis, out, read, suppress, journal, readings)


@flow(name="cohort-report", persist_result=False, validate_parameters=False)
def cohort_report(
    warehouse: str | None = None,
    config: str | None = None,
    plan: str | None = None,
    out: str | None = None,
    reviews: str | None = None,
    suppress: bool | None = None,
    journal: bool | None = None,
    scheduled: bool = False,
    scores: str | None = None,
) -> ReportSummary | State[ReportSummary]:
    """Analyse the linked cohort if something has changed, and write its report.

    Parameters
    ----------
    warehouse, config, plan, out, reviews, suppress, journal, scores : as the options of
        `cac report`.
    scheduled : wait for the warehouse and try again, as the settings say.

    Returns
    -------
    The summary that `cac report --json` prints; for an incomplete report or an empty cohort, a
    state that holds it.
    """
    request = ReportRequest(
        warehouse, config, plan, out, reviews, suppress, journal, scheduled, scores
    )
    return concluded("cohort-report", lambda: report_cohort(**vars(request)))


def report_cohort(**parameters: Any) -> ReportSummary:
    """Write the report, in a flow or without Prefect; takes the fields of `ReportRequest`."""
    request = ReportRequest(**parameters)
    schedule = schedule_of(request.config, request.scheduled)
    return attempted(lambda: write_report(prepare_report(request), current_progress()), schedule)


def write_report(prepared: PreparedReport, progress: RunProgress) -> ReportSummary:
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
        estimates = _with_archive_rows(prepared)
        if prepared.out is not None:
            remember_folder(store, prepared.out, _CONTENTS)
    shown = hide_small(estimates) if prepared.suppress else estimates
    progress.say(f"writing the report into {prepared.place}")
    facts = _facts(prepared)
    numbers = ShownEstimates(shown)
    report = Report(numbers, analysis.plan, facts, prepared.suppress, prepared.journal)
    with prepared.folder() as folder:
        if facts.pages:
            model = analysis.cohort.run["model_id"]
            write_pages(store, [*facts.pages], folder / _STUDIES, model, "../index.html")
        more = (reading_section,) if has_readings(report) else ()
        done = _assemble(report, (*more, case_section))
        write_files(done.files, folder)
    for warning in done.warnings:
        progress.say(warning)
    return ReportSummary(
        outcome="incomplete" if done.gaps else "complete",
        warehouse=store.url,
        out=prepared.place,
        page=f"{prepared.place}/index.html",
        analysis=analysed.outcome,
        patients=analysed.patients,
        estimates=estimates.num_rows,
        tables=done.tables,
        figures=done.figures,
        page_bytes=len(done.files["index.html"]),
        gaps={title: list(reasons) for title, reasons in done.gaps.items()},
        headline=key_estimates(shown, analysis.plan),
        study_pages=len(facts.pages),
        empty_because=analysed.empty_because,
        seconds_report=round(monotonic() - begun, 3),
        seconds=round(monotonic() - clock, 3),
    )


def preview_report(prepared: PreparedReport) -> PlannedWrites:
    """What `cac report` would do; writes nothing."""
    analysis = prepared.analysis
    current = is_current(analysis)
    facts = {
        "patients": analysis.cohort.linked.num_rows,
        "model": analysis.cohort.run["model_id"],
        "analysis": "up to date" if current else "would run first",
        "small counts hidden": prepared.suppress,
    }
    tables = [] if current else [f"{analysis.warehouse.url}/{ESTIMATES.name}"]
    return PlannedWrites([*tables, prepared.place], facts)


def _with_archive_rows(prepared: PreparedReport) -> pa.Table:
    """Estimates with the rows that come from the archive, published if they are new."""
    analysis, store = prepared.analysis, prepared.analysis.warehouse
    model, manifest = analysis.cohort.run["model_id"], verify_weights(analysis.settings.model)
    scores = scores_of(store, model, analysis.settings.protocol.digest)
    rows = [
        *acquisition(scores, analysis.cohort.linked["study_key"].to_pylist()),
        # Weights that did not make these scores say nothing about them.
        *training(manifest.training if manifest.model_id == model else {}),
        *discrepancy_causes(store.read(DISCREPANCIES), scores, prepared.reviews),
        *certainty_of_scores(scores, analysis.cohort.linked),
        *reading_estimates(prepared.readings),
    ]
    published = store.read(ESTIMATES)
    others = pc.invert(pc.is_in(published["analysis"], pa.array(ARCHIVE_ANALYSES)))
    estimates = ESTIMATES.validate(
        pa.concat_tables([published.filter(others), estimates_table(rows)]).combine_chunks()
    )
    if not estimates.equals(published.combine_chunks()):
        store.replace(ESTIMATES, estimates)
    return estimates


def _facts(prepared: PreparedReport) -> ReportFacts:
    """Everything that the report shows beside the estimates."""
    analysis, store = prepared.analysis, prepared.analysis.warehouse
    discrepancies = store.read(DISCREPANCIES)
    examples, cases = [], []
    if not prepared.suppress:
        examples = example_studies(analysis.plan, analysis.cohort.linked, discrepancies)
        cases = discrepancies["study_key"].to_pylist()
    studies = list(dict.fromkeys([*examples, *cases]))[:MOST_PAGES]
    run, manifest = analysis.cohort.run, verify_weights(analysis.settings.model)
    model = run["model_id"]
    runs = store.read(RUNS).sort_by("started_at").to_pylist()
    previews = store.read(PREVIEWS, model, studies=examples).to_pylist() if examples else []
    return ReportFacts(
        linked=analysis.cohort.linked,
        discrepancies=discrepancies,
        outcomes={name: one.description for name, one in analysis.cohort.outcomes.outcome.items()},
        subtitle=f"Site {run['site']}, scores of model {model}, linkage {run['run_id']}",
        networks=manifest.networks if manifest.model_id == model else {},
        rescoring_runs=[row for row in runs if row["model_id"] == model],
        linkage_run=run,
        analysis_run=store.read(ANALYSES).sort_by("started_at").to_pylist()[-1],
        previews={key: [row for row in previews if row["study_key"] == key] for key in examples},
        empty_because=analysis.cohort.empty_because,
        pages={key: f"{_STUDIES}/{key}.html" for key in studies},
    )


def _with_signed(reviews: pa.Table | None, readings: Readings) -> pa.Table | None:
    """Causes of a manual review with those of signed readings."""
    final = readings.final()
    signed = [(key, row["cause"]) for key, row in final.items() if row["cause"] is not None]
    if not signed:
        return reviews
    names = ("study_key", "cause")
    columns = zip(names, zip(*signed, strict=True), strict=True)
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns})
    return table if reviews is None else pa.concat_tables([reviews, table])


def _reviews(path: Path) -> pa.Table:
    """Causes of discrepant cases from a manual review."""
    hint = "Give a CSV file with the columns study_key and cause, one line per cause."
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
