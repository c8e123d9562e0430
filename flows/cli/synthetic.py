"""`cac phantom`, `registry`, `demo`: a synthetic archive and registry to try the system on."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.archive import run_score
from flows.cli.cohort import run_link, run_report
from flows.cli.options import (
    DryRunOption,
    JsonOption,
    QuietOption,
    console,
    print_json,
    show,
    show_planned,
)

app = typer.Typer()

DemoOutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for archive and results.", show_default="demo, or demo-full"
    ),
]


@app.command(epilog="Example: `cac phantom ./archive --studies 24 --seed 1`")
def phantom(
    out: Annotated[Path, typer.Argument(help="New or empty folder for the archive.")],
    studies: Annotated[int, typer.Option("--studies", help="Number of studies.", min=1)] = 24,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same archive.", min=0)] = 1,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a synthetic SPECT/CT archive, and its truth as truth.parquet next to it."""
    from flows.runtime.progress import RunProgress
    from flows.synthetic import make_phantom

    made = make_phantom(out, studies, seed, RunProgress(console, quiet=quiet), dry_run=dry_run)
    if dry_run:
        from flows.summaries import PlannedWrites

        planned = PlannedWrites([made.archive, made.truth], {"studies": studies, "seed": seed})
        return show_planned(planned, as_json)
    if as_json:
        print_json(made)
    else:
        show(f"{made.studies} studies in {made.archive}, truth in {made.truth}")


@app.command(epilog="Example: `cac registry ./extracts --patients 2271 --dialect flat`")
def registry(
    out: Annotated[Path, typer.Argument(help="New or empty folder for the extracts.")],
    patients: Annotated[int, typer.Option("--patients", help="Number of patients.", min=1)] = 2271,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            help="Use the patients of this truth.parquet of an archive.",
            show_default="patients without scans",
        ),
    ] = None,
    dialect: Annotated[
        str, typer.Option("--dialect", help="Layout of the extracts: abstracts, flat or columnar.")
    ] = "abstracts",
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same extracts.", min=0)] = 1,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write extracts of a synthetic registry with mapping and truth, to try `cac link`."""
    from flows.synthetic import make_extracts

    made = make_extracts(out, patients, truth, dialect, seed, dry_run=dry_run)
    if dry_run:
        from flows.summaries import PlannedWrites

        planned = PlannedWrites([made.extracts, made.truth], {"patients": made.patients})
        return show_planned(planned, as_json)
    if as_json:
        print_json(made)
    else:
        show(
            f"{made.patients} patients; link them with: cac link --mapping "
            f"{made.mapping}; truth in {made.truth}",
        )


@app.command(epilog="Example: `cac demo --out demo` or `cac demo --full --out study`")
def demo(
    out: DemoOutOption = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="A full-size study with synthetic scores; no scan is made."),
    ] = False,
    studies: Annotated[
        int | None,
        typer.Option(
            "--studies",
            help="Number of studies, or of patients with --full.",
            min=1,
            show_default="24, or 2271 with --full",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same archive.", min=0)] = 1,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a synthetic archive and registry, and run all three jobs: score, link, report.

    With 24 studies, much of the report has no estimate; the report lists what and why. With --full
    the scores are drawn and not computed, so that the whole report of a cohort of the paper's size
    takes about a minute. Its model is called `synthetic`: these scores are nobody's results.
    """
    from flows.synthetic import DEMO_SECRET

    # A public secret is safe here: the patients do not exist. An empty variable is none.
    os.environ["CAC_LINKAGE_KEY"] = os.environ.get("CAC_LINKAGE_KEY") or DEMO_SECRET
    if full:
        _full_demo(out or Path("demo-full"), studies, seed, as_json, quiet)
    else:
        _scanned_demo(out or Path("demo"), studies or 24, seed, as_json, quiet)


def _full_demo(out: Path, patients: int | None, seed: int, as_json: bool, quiet: bool) -> None:
    """Patients with drawn scores: registry, linkage, report."""
    from flows.cli.linkage_tables import linkage_tables
    from flows.cli.tables import full_demo_tables
    from flows.request import LinkageRequest
    from flows.runtime.progress import RunProgress
    from flows.synthetic import FULL_PATIENTS, make_scored_registry

    progress = RunProgress(console, quiet=quiet)
    made = make_scored_registry(out, patients or FULL_PATIENTS, seed, progress)
    request = LinkageRequest(made.warehouse, mapping=made.registry.mapping)
    linked = run_link(request, quiet=quiet)
    report = run_report(quiet, {"warehouse": made.warehouse})
    if as_json:
        return print_json(asdict(made) | {"linkage": asdict(linked), "report": asdict(report)})
    for part in full_demo_tables(made, linkage_tables(linked), report):
        show(part)


def _scanned_demo(out: Path, studies: int, seed: int, as_json: bool, quiet: bool) -> None:
    """Synthetic scans: archive, scores, registry, linkage, report."""
    from cac_core.evaluation.agreement import compare_sources
    from cac_core.evaluation.sources import Source, pair_sources
    from flows.cli.evaluation_tables import agreement_tables
    from flows.cli.linkage_tables import linkage_tables
    from flows.cli.tables import demo_tables
    from flows.request import LinkageRequest, ScoringRequest
    from flows.runtime.environment import prefect_api, prepare_environment
    from flows.runtime.progress import RunProgress
    from flows.synthetic import make_extracts, make_phantom

    warehouse = str(out / "warehouse")
    progress = RunProgress(console, quiet=quiet)
    # One API for all flows: Prefect caches the address of the first one.
    with prefect_api(prepare_environment(progress.say), progress.say) as ready:
        made = make_phantom(out / "archive", studies, seed, progress)
        ready()
        summary = run_score(ScoringRequest((made.archive,), warehouse), quiet=quiet)
        truth = Path(made.truth)
        extracts = make_extracts(out / "registry", studies, truth, "abstracts", seed)
        linked = run_link(LinkageRequest(warehouse, mapping=extracts.mapping), quiet=quiet)
        report = run_report(quiet, {"warehouse": warehouse})
    pairs = pair_sources(warehouse, Source("model", summary.model), Source("truth"), truth=truth)
    agreement = compare_sources(pairs)
    if as_json:
        parts = {"archive": made.archive, "truth": made.truth, "registry": asdict(extracts)}
        parts |= {"agreement": agreement, "linkage": asdict(linked), "report": asdict(report)}
        return print_json(asdict(summary) | parts)
    evaluation = agreement_tables(dict(agreement))
    linkage = linkage_tables(linked)
    for part in demo_tables(summary, evaluation, made, linkage, extracts, report):
        show(part)
