"""`cac export`: tables for other programs, DICOM objects for a PACS, FHIR, de-identified copies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from flows.cli.options import (
    INCOMPLETE,
    ConfigOption,
    DryRunOption,
    JsonOption,
    ModelOption,
    QuietOption,
    WarehouseOption,
    as_text,
    console,
    print_json,
    show,
    show_planned,
)

app = typer.Typer(rich_markup_mode="markdown")

OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the files.", show_default="none, with --send only"),
]
ArchiveOption = Annotated[
    list[str] | None,
    typer.Option(
        "--archive",
        metavar="FOLDER|URL",
        help="Archive of the studies, for --dicom and --deidentify; repeatable.",
        show_default="that of the settings",
    ),
]
StudyOption = Annotated[
    list[str] | None,
    typer.Option("--study", metavar="KEY", help="Only this study; repeatable.", show_default="all"),
]

ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape", help="linked, events, adtte or omop; repeatable.", show_default="linked"
    ),
]
FormatOption = Annotated[
    str, typer.Option("--format", help="parquet, csv, stata, xport or xport5 (SAS transport).")
]
DicomOption = Annotated[
    bool, typer.Option("--dicom", help="Scores as DICOM objects instead: SEG, SR, page.")
]
SendOption = Annotated[
    bool, typer.Option("--send", help="With --dicom: send them to the PACS of [results].")
]
DeidentifyOption = Annotated[
    bool, typer.Option("--deidentify", help="De-identified copies of the images instead.")
]
FhirOption = Annotated[
    bool, typer.Option("--fhir", help="Scores as FHIR R4 bundles instead, one file per study.")
]
MostOption = Annotated[
    int | None, typer.Option("--limit", help="Largest number of studies.", show_default="all")
]


@app.command(epilog="Example: `cac export -w /data/cac --shape adtte --format xport --out adtte`")
def export(
    out: OutOption = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    shape: ShapeOption = None,
    file_format: FormatOption = "parquet",
    dicom: DicomOption = False,
    send: SendOption = False,
    deidentify: DeidentifyOption = False,
    fhir: FhirOption = False,
    archive: ArchiveOption = None,
    study: StudyOption = None,
    model: ModelOption = None,
    limit: MostOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Export the linked tables to other programs: CDISC ADTTE and ADSL, OMOP, Stata, SAS, R.

    Beside `linked` as Parquet or CSV lies `analysis.R`, which repeats the Cox models in R; beside
    each SAS transport file a program that labels its values.

    With `--dicom`, the scores of an archive as objects for a PACS: segmentation, structured report
    and page of each study. Exit code 3 means that a study has none, or that it was not sent.
    With `--deidentify`, copies of its images without identifiers; with `--fhir`, the scores as
    FHIR R4 bundles.
    """
    if sum((dicom, deidentify, fhir, bool(shape))) > 1:
        raise typer.BadParameter("give one of --dicom, --deidentify, --fhir and --shape")
    studies, archives = tuple(study or ()), tuple(archive or ())
    if dicom:
        names = archives, warehouse, as_text(config), as_text(model), studies, limit, out, send
        return _export_results(names, quiet, as_json)
    if out is None:
        raise typer.BadParameter("name a folder with --out")
    if deidentify:
        return _copy((archives, warehouse, as_text(config), studies, out), quiet, as_json)
    if fhir:
        return _export_fhir((warehouse, as_text(config), as_text(model), studies, out), as_json)
    if send or archive or study:
        raise typer.BadParameter("--send, --archive and --study belong to --dicom")
    shapes = shape or ["linked"]
    _export_tables(out, warehouse, config, shapes, file_format, dry_run, as_json)


def _export_tables(
    out: Path,
    warehouse: str | None,
    config: Path | None,
    shapes: list[str],
    file_format: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    from flows.export import export_linked, preview_export

    if dry_run:
        planned = preview_export(warehouse, as_text(config), shapes, file_format, out)
        return show_planned(planned, as_json)
    result = export_linked(warehouse, as_text(config), shapes, file_format, out)
    if as_json:
        print_json(result)
        return
    for item in result.files:
        show(f"{item.file}: {item.rows} rows")
    for script in result.scripts:
        show(script)


def _export_results(names: tuple[Any, ...], quiet: bool, as_json: bool) -> None:
    from flows.results import ResultsRequest, export_results
    from flows.runtime.environment import site_reporting
    from flows.runtime.progress import RunProgress, showing

    progress = RunProgress(console, quiet=quiet)
    with site_reporting(), showing(progress):
        result = export_results(ResultsRequest(*names), progress)
    if as_json:
        print_json(result)
    else:
        for name, count in sorted(result.counts.items()):
            show(f"{name}: {count} studies")
        for row in result.studies:
            if row["reason"]:
                show(f"{row['study_key']}: {row['outcome']}: {row['reason']}")
    if not result.complete:
        _incomplete()


def _export_fhir(names: tuple[Any, ...], as_json: bool) -> None:
    from flows.fhir import export_fhir

    result = export_fhir(*names)
    if as_json:
        return print_json(result)
    show(f"{len(result.files)} bundles")


def _copy(names: tuple[Any, ...], quiet: bool, as_json: bool) -> None:
    from flows.deidentify import CopyRequest, copy_deidentified
    from flows.runtime.environment import site_reporting
    from flows.runtime.progress import RunProgress, showing

    progress = RunProgress(console, quiet=quiet)
    with site_reporting(), showing(progress):
        result = copy_deidentified(CopyRequest(*names), progress)
    if as_json:
        return print_json(result)
    show(f"{result.copied} images of {result.studies} studies in {result.folder}")
    for reason, count in sorted(result.reasons.items()):
        show(f"{count} files not copied: {reason}")


def _incomplete() -> NoReturn:
    raise typer.Exit(INCOMPLETE)
