"""The archive page: runs, reasons, score drift, scanners and speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cac_core.cohort.archive import (
    MAX_NOISE_Z,
    MAX_SHARE,
    MAX_SHARE_Z,
    MIN_COMPARED,
    MONTHS_BEFORE,
    ArchiveState,
)
from cac_core.cohort.archive_rows import (
    CATEGORY_COLUMNS,
    STAGE_COLUMNS,
    CategoryCounts,
    ModelRow,
    MonthRow,
    RunRow,
    ScannerRow,
)
from cac_core.report.figures import (
    drift_figure,
    nights_figure,
    reasons_figure,
    scanners_figure,
    speed_figure,
)
from cac_core.report.page import (
    Cell,
    DataTable,
    Part,
    columns,
    number,
    render_parts,
    share,
)
from cac_core.report.svg import drawn
from schemas.codes import CAC_CATEGORIES, DescribedCode, FileReason, ReviewReason, StudyReason

#: Scanners and models in a figure; the tables have all.
_DRAWN_SCANNERS, _DRAWN_MODELS = 20, 5
_RunColumn = Literal["studies", "scored", "rejected", "failed", "skipped", "queued"]
_RUN_COUNTS: dict[_RunColumn, str] = {
    "studies": "studies",
    "scored": "scored",
    "rejected": "rejected",
    "failed": "failed",
    "skipped": "done before",
    "queued": "left to do",
}


def archive_page(state: ArchiveState) -> str:
    """The page as HTML, one self-contained file; the same state gives the same bytes."""
    parts = (
        _nights(state.runs),
        _queue(state),
        _reasons(state),
        _reviews(state),
        _drift(state),
        _scanners(state.scanners),
        _speed(state),
    )
    as_of = f"{state.runs[-1]['started_at']:%Y-%m-%d %H:%M} UTC" if state.runs else "no run yet"
    return render_parts(
        "State of the archive",
        "Coronary calcium, nightly rescoring",
        f"as of the run of {as_of}" + (f", model {state.model}" if state.model else ""),
        parts,
        _tiles(state),
        "Counts from the tables runs and scores of this warehouse; studies, patients and files "
        "appear as keys only.",
    )


def _tiles(state: ArchiveState) -> list[tuple[str, str]]:
    scored = next((row["n"] for row in state.models if row["model"] == state.model), 0)
    rejected = sum(row["studies"] for row in state.reasons if row["status"] == "rejected")
    return [
        ("studies scored", f"{scored:,}"),
        ("need review", f"{state.reviews[0]['studies'] if state.reviews else 0:,}"),
        ("rejected", f"{rejected:,}"),
        ("failed", f"{state.failed:,}"),
        ("left to do", f"{state.queued:,}"),
        ("scanners that stand out", str(sum(bool(row["stands_out"]) for row in state.scanners))),
    ]


def _nights(runs: Sequence[RunRow]) -> Part:
    if not runs:
        return Part("nights", "Nights", missing="No run is recorded yet.")
    finished = [row["scored"] + row["rejected"] + row["failed"] for row in runs]
    rows: list[list[Cell | str]] = [
        [
            Cell(f"{row['started_at']:%Y-%m-%d %H:%M}"),
            row["job"],
            row["outcome"].replace("_", " "),
            row["model_id"],
            *(number(row[name]) for name in _RUN_COUNTS),
            number(row["seconds"] / 60, 1),
        ]
        for row in reversed(runs)
    ]
    heads = columns(
        ("started (UTC)", "job", "outcome", "model"), (*_RUN_COUNTS.values(), "minutes")
    )
    table = DataTable("runs", "Newest runs", heads, rows, filterable=True)
    figure = drawn(
        "nights",
        "Studies finished by each run, the newest on the right, and studies left to do.",
        f"One bar for each of the last runs, {len(runs)} in all; the newest finished "
        f"{finished[-1]} studies, the largest {max(finished)}, and the newest left "
        f"{runs[-1]['queued']} to do. The table has all numbers.",
        nights_figure(runs),
        table,
    )
    return Part("nights", "Nights", figure=figure)


def _queue(state: ArchiveState) -> Part:
    if not state.runs:
        return Part("queue", "Queue", missing="No run is recorded yet.")
    left = (
        f"{state.queued:,} studies are left for the next run."
        if state.queued
        else "The last run left nothing to do."
    )
    failed = (
        f"{state.failed:,} studies failed and wait for cac retry."
        if state.failed
        else "No failed study waits for a retry."
    )
    return Part("queue", "Queue", (left, failed))


def _reasons(state: ArchiveState) -> Part:
    files = DataTable(
        "file-reasons",
        "Unusable files of the archive in the newest run",
        columns(("reason", "meaning"), ("files",)),
        [[name, _meaning(FileReason, name), number(count)] for name, count in state.file_reasons],
    )
    if not state.reasons:
        nothing = "Every study that was tried has a score."
        return Part("reasons", "Failures by reason", (nothing,), tables=(files,))
    first = state.reasons[0]
    figure = drawn(
        "reasons",
        "Studies without a score, by reason: rejected studies cannot be scored reliably, failed "
        "studies are scored again by cac retry.",
        f"Bars for {len(state.reasons)} reasons; most often {first['reason']}, "
        f"{first['studies']} studies. The table has all numbers.",
        reasons_figure(state.reasons),
    )
    rows: list[list[Cell | str]] = [
        [
            row["reason"],
            row["status"],
            _meaning(StudyReason, row["reason"]),
            number(row["studies"]),
            number(row["last_run"]),
        ]
        for row in state.reasons
    ]
    heads = columns(("reason", "status", "meaning"), ("studies", "in the newest run"))
    table = DataTable("study-reasons", "Studies without a score", heads, rows)
    return Part("reasons", "Failures by reason", figure=figure, tables=(table, files))


def _meaning(codes: type[DescribedCode], name: str) -> str:
    """Meaning of a code; empty for a code of another version."""
    return codes(name).description if name in set(codes) else ""


def _reviews(state: ArchiveState) -> Part:
    """Scores that a person should look at; the first row counts those of any reason."""
    if not state.reviews:
        nothing = "No score of this model needs review."
        return Part("reviews", "Scores that need review", (nothing,))
    everything, *by_reason = state.reviews
    table = DataTable(
        "review-reasons",
        "Reasons for review; a score can have several",
        columns(("reason", "meaning"), ("studies", "in the newest run")),
        [
            [
                str(row["reason"]),
                _meaning(ReviewReason, str(row["reason"])),
                number(row["studies"]),
                number(row["last_run"]),
            ]
            for row in by_reason
        ],
    )
    sentence = (
        f"{everything['studies']:,} scores need review, {everything['last_run']:,} of them of the "
        "newest run: column needs_review of the table scores."
    )
    return Part("reviews", "Scores that need review", (sentence,), tables=(table,))


def _drift(state: ArchiveState) -> Part:
    if not state.months:
        return Part("drift", "Score drift", missing="No scored study has a date yet.")
    last = state.months[-1]
    months = DataTable(
        "months",
        f"Scores of {state.model} by month of the study",
        columns(("month",), ("n", *CAC_CATEGORIES, "median Agatston", "median noise, HU")),
        [
            [row["month"], *_category_cells(row), number(row["median_noise_hu"], 1)]
            for row in reversed(state.months)
        ],
        filterable=len(state.months) > 15,
    )
    paired = ("scored by both", "same category", "now higher", "now lower")
    models = DataTable(
        "models",
        f"Scores by model, and study by study against {state.model}",
        columns(("model",), ("n", *CAC_CATEGORIES, "median Agatston", *paired)),
        [[row["model"], *_category_cells(row), *_paired(row)] for row in reversed(state.models)],
    )
    figure = drawn(
        "drift",
        "Share of each category by month of the study and by model, and the median score by month. "
        "A step between months or models needs an explanation.",
        f"Stacked shares for {len(state.months)} months; in the last one, {last['month']}, "
        f"{_percent(last['n_zero'], last['n'])} of {last['n']} scores are zero and the median is "
        f"{last['median_agatston']:.1f}. The tables have all numbers.",
        drift_figure(state.months, state.models[-_DRAWN_MODELS:]),
        months,
    )
    sentences = (_month_sentence(last), *_model_sentences(state.models, state.model))
    return Part("drift", "Score drift", sentences, figure, (models,))


def _month_sentence(last: MonthRow) -> str:
    if not last["rest_n"]:
        return f"{last['month']} is the only month; there is nothing to compare it with."
    return (
        f"The newest month, {last['month']}, has {_percent(last['n_zero'], last['n'])} scores of "
        f"zero (n={last['n']:,}), the {MONTHS_BEFORE} months before it "
        f"{_percent(last['rest_zero'], last['rest_n'])} (n={last['rest_n']:,}). "
        + (f"It stands out: {', '.join(last['stands_out'])}." if last["stands_out"] else "")
    ).strip()


def _model_sentences(models: Sequence[ModelRow], current: str) -> tuple[str, ...]:
    """Changes of the scores from the model before the current one."""
    older = [row for row in models if row["model"] != current and row["n_both"]]
    if not older:
        return ()
    row = older[-1]
    return (
        f"Of {row['n_both']:,} studies that {row['model']} scored too, "
        f"{_percent(row['n_same'], row['n_both'])} are in the same category now.",
    )


def _category_cells(row: CategoryCounts) -> list[Cell]:
    shares = [share(row[name], row["n"]) for name in CATEGORY_COLUMNS]
    return [number(row["n"]), *shares, number(row["median_agatston"], 1)]


def _paired(row: ModelRow) -> list[Cell]:
    both, same, higher = row["n_both"], row["n_same"], row["n_higher_now"]
    if not both:
        return [Cell("", "")] * 4
    return [number(both), *(share(n, both) for n in (same, higher, both - same - higher))]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"


def _scanners(scanners: Sequence[ScannerRow]) -> Part:
    if not scanners:
        return Part("scanners", "Scanners", missing="No study is scored yet.")
    outliers = [
        f"{row['scanner'] or 'unknown'} ({', '.join(row['stands_out'])})"
        for row in scanners
        if row["stands_out"]
    ]
    sentence = (
        "Scanners that stand out: " + "; ".join(outliers) + "."
        if outliers
        else "No scanner stands out."
    )
    figure = drawn(
        "scanners",
        "Share of zeros with its 95 % interval (Wilson) and noise by scanner, most studies first. "
        "Diamonds stand out.",
        f"Points for {min(len(scanners), _DRAWN_SCANNERS)} scanners. {sentence}",
        scanners_figure(scanners[:_DRAWN_SCANNERS]),
    )
    return Part("scanners", "Scanners", (sentence,), figure, (_scanner_table(scanners),))


def _scanner_table(scanners: Sequence[ScannerRow]) -> DataTable:
    rows: list[list[Cell | str]] = [
        [
            row["scanner"] or "unknown",
            number(row["n"]),
            share(row["n_zero"], row["n"]),
            share(row["n_high"], row["n"]),
            number(row["median_agatston"], 1),
            number(row["noise_median"], 1),
            number(row["zero_z"], 1),
            number(row["high_z"], 1),
            number(row["noise_z"], 1),
            ", ".join(row["stands_out"]),
        ]
        for row in scanners
    ]
    numeric = (
        "n",
        "0",
        ">400",
        "median Agatston",
        "noise, HU",
        "z of 0",
        "z of >400",
        "z of noise",
    )
    return DataTable(
        "scanner-table",
        "Each scanner against all others",
        (*columns(("scanner",), numeric), *columns(("stands out by",))),
        rows,
        filterable=len(rows) > 15,
        note=(
            "z of a share: its distance from that of all other scanners in standard errors; z of "
            "noise: in spreads (interquartile range / 1.349). A scanner stands out beyond "
            f"{MAX_SHARE_Z:g} and {100 * MAX_SHARE:g} percentage points, or {MAX_NOISE_Z:g} for "
            f"noise, with at least {MIN_COMPARED} studies on both sides."
        ),
    )


def _speed(state: ArchiveState) -> Part:
    title = "Seconds per study"
    if not state.speed:
        return Part("speed", title, missing="No run shown here has current scores.")
    started = {row["run_id"]: f"{row['started_at']:%Y-%m-%d}" for row in state.runs}
    days = [started[row["run_id"]] for row in state.speed]
    totals = [sum(row[name] or 0.0 for name in STAGE_COLUMNS) for row in state.speed]
    heads = ("studies", "reading", "heart", "calcium", "lesions", "pictures", "together")
    rows: list[list[Cell | str]] = [
        [day, number(row["n"]), *(number(row[name], 3) for name in STAGE_COLUMNS), number(total, 3)]
        for day, row, total in zip(days, state.speed, totals, strict=True)
    ]
    table = DataTable(
        "speed-table",
        "Median seconds per study",
        columns(("run of",), heads),
        rows[::-1],
        filterable=len(rows) > 15,
    )
    figure = drawn(
        "speed",
        "Median seconds of a worker per study by stage, for runs whose scores are current.",
        f"Stacked bars for {len(totals)} runs; {totals[-1]:.2f} seconds in the newest, between "
        f"{min(totals):.2f} and {max(totals):.2f} in all. The table has all numbers.",
        speed_figure(state.speed, days),
        table,
    )
    return Part("speed", title, figure=figure)
