"""`cac status`, `forget`: what a warehouse holds and why, and who must no longer be in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import (
    INCOMPLETE,
    ConfigOption,
    DryRunOption,
    JsonOption,
    QuietOption,
    WarehouseOption,
    as_text,
    complain,
    console,
    print_json,
    show,
)

PageOption = Annotated[
    Path | None,
    typer.Option(
        "--page",
        help="Also write the archive page (HTML) to this file; with --review, a folder for the "
        "pages of the studies.",
        show_default="not written",
    ),
]
ExplainOption = Annotated[
    str | None,
    typer.Option(
        "--explain",
        metavar="STUDY_KEY",
        help="Say why this study has a score or none, and what to do.",
        show_default="show all",
    ),
]
ComparedModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        metavar="ID|FOLDER",
        help="Model that --explain compares with, or whose scores --review lists.",
        show_default="that of the settings",
    ),
]
ReviewOption = Annotated[
    bool, typer.Option("--review", help="List the studies that a person should look at.")
]
CheckOption = Annotated[
    bool,
    typer.Option("--check", help="Only check the last night; exit code 3 if it was not good."),
]
HoursOption = Annotated[
    float, typer.Option("--hours", help="Longest age of the last good night, for --check.")
]
NotifyOption = Annotated[
    bool, typer.Option("--notify", help="With --check: tell those named under [notify].")
]
Patients = Annotated[
    list[str] | None,
    typer.Argument(
        help="Identifiers of patients. They stay in the history of the shell; --from does not.",
        show_default="none",
    ),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="File with one identifier per line; - for standard input.",
        show_default="none",
    ),
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", help="A patient_key; can be repeated.", show_default="none"),
]

app = typer.Typer()


@app.command(epilog="Example: `cac status -w /data/cac --explain 0f3a91c2`")
def status(
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    page: PageOption = None,
    explain: ExplainOption = None,
    review: ReviewOption = False,
    model: ComparedModelOption = None,
    check: CheckOption = False,
    hours: HoursOption = 26.0,
    notify: NotifyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what the warehouse holds: scores by category, reasons, and the last runs."""
    if explain is not None:
        return _explain(explain, warehouse, as_text(config), as_text(model), as_json)
    if review:
        return _review(warehouse, as_text(config), as_text(model), page, as_json)
    if check:
        return _check(warehouse, as_text(config), hours, notify, as_json)
    from flows.cli.tables import status_tables
    from flows.status import warehouse_status

    summary = warehouse_status(warehouse, as_text(config), page)
    if as_json:
        print_json(summary)
        return
    for part in status_tables(summary):
        show(part)


def _explain(
    study: str, warehouse: str | None, config: str | None, model: str | None, as_json: bool
) -> None:
    from flows.cli.operation_tables import explanation_tables
    from flows.explain import explain_study

    result = explain_study(study, warehouse, config, model)
    if as_json:
        print_json(result)
        return
    for part in explanation_tables(result):
        show(part)


def _review(
    warehouse: str | None, config: str | None, model: str | None, page: Path | None, as_json: bool
) -> None:
    from flows.cli.operation_tables import review_tables
    from flows.review import studies_to_review

    result = studies_to_review(warehouse, config, model, page)
    if as_json:
        print_json(result)
        return
    for part in review_tables(result):
        show(part)


def _check(
    warehouse: str | None, config: str | None, hours: float, notify: bool, as_json: bool
) -> None:
    from flows.cli.operation_tables import check_table
    from flows.night import check_night

    result = check_night(warehouse, config, hours, notify=notify, say=complain)
    if as_json:
        print_json(result)
    else:
        show(check_table(result))
    if not result.ok:
        raise typer.Exit(INCOMPLETE)


@app.command(epilog="Example: `cac forget --from withdrawn.txt -w /data/cac --dry-run`")
def forget(
    patient: Patients = None,
    source: FromOption = None,
    key: KeyOption = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove withdrawn patients from the warehouse and from everything made from it, for good.

    Removes their rows from every table, their pages, and reports and exports of a cohort that they
    are in; keeps them out of later runs; and searches every file for what may be left. Exit code 3
    means that something was found or could not be searched. Run it again if it was interrupted.
    """
    from flows.cli.operation_tables import forget_table
    from flows.forget import ForgetRequest
    from flows.forget import forget as forget_patients
    from flows.runtime.progress import RunProgress

    identifiers = (*(patient or ()), *_identifiers(source))
    request = ForgetRequest(identifiers, tuple(key or ()), warehouse, as_text(config))
    result = forget_patients(request, RunProgress(console, quiet=quiet), dry_run=dry_run)
    if as_json:
        print_json(result)
    else:
        show(forget_table(result))
    if result.left or result.not_searched:
        complain(
            "Something may be left of the patients: see the files above. Remove them by hand, and "
            "run the same command again."
        )
        raise typer.Exit(INCOMPLETE)


def _identifiers(source: Path | None) -> list[str]:
    """Identifiers, one a line; the name of the file is not repeated in messages."""
    if source is None:
        return []
    from cac_core.errors import UsageError

    try:
        text = sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The file of --from cannot be read ({type(error).__name__}).",
            "Give a text file in UTF-8 with one identifier per line.",
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]
