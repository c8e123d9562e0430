"""`cac phantom`, `registry`, `demo`: a synthetic archive and registry to try the system on."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.archive import run_score
from flows.cli.cohort import run_link, run_report
from flows.cli.options import JsonOption, QuietOption, console, print_json, show

app = typer.Typer()


@app.command(epilog="Example: `cac phantom ./archive --studies 24 --seed 1`")
def phantom(
    out: Annotated[Path, typer.Argument(help="New or empty folder for the archive.")],
    studies: Annotated[int, typer.Option("--studies", help="Number of studies.", min=1)] = 24,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same archive.", min=0)] = 1,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a synthetic SPECT/CT archive with known truth (OUT, and truth.parquet beside it)."""
    from flows.runtime.progress import RunProgress
    from flows.synthetic import make_phantom

    result = make_phantom(out, studies, seed, RunProgress(console, quiet=quiet))
    if as_json:
        print_json(result)
    else:
        show(f"{result['studies']} studies in {result['archive']}, truth in {result['truth']}")


@app.command(epilog="Example: `cac registry ./extracts --patients 2271 --dialect flat`")
def registry(
    out: Annotated[Path, typer.Argument(help="New or empty folder for the extracts.")],
    patients: Annotated[int, typer.Option("--patients", help="Patients to make up.", min=1)] = 2271,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="truth.parquet of a synthetic archive: its patients instead."),
    ] = None,
    dialect: Annotated[
        str, typer.Option("--dialect", help="abstracts, flat or columnar: how a site writes.")
    ] = "abstracts",
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same extracts.", min=0)] = 1,
    as_json: JsonOption = False,
) -> None:
    """Write the extracts of a synthetic registry, with mapping and truth, to try `cac link` on."""
    from flows.synthetic import make_extracts

    result = make_extracts(out, patients, truth, dialect, seed)
    if as_json:
        print_json(result)
    else:
        show(
            f"{result['patients']} patients; link them with: cac link --mapping "
            f"{result['mapping']}; truth in {result['truth']}",
        )


@app.command(epilog="Example: `cac demo --out demo`")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for archive and results.")] = Path(
        "demo"
    ),
    studies: Annotated[int, typer.Option("--studies", help="Number of studies.", min=1)] = 24,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same archive.", min=0)] = 1,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a synthetic archive and registry, and do all three jobs: score, link, report.

    So few patients leave much of the report without an estimate; it says what and why.
    """
    from cac_core.evaluation.evaluate import compare_sources
    from cac_core.evaluation.sources import Source, pair_sources
    from flows.cli.tables import demo_tables
    from flows.runtime.environment import prefect_api, prepare_environment
    from flows.runtime.progress import RunProgress
    from flows.synthetic import DEMO_SECRET, make_extracts, make_phantom

    # The demo alone brings a secret of its own: its patients do not exist.
    os.environ.setdefault("CAC_LINKAGE_KEY", DEMO_SECRET)
    warehouse = str(out / "warehouse")
    # One API for all flows: Prefect keeps the address of the first it meets.
    progress = RunProgress(console, quiet=quiet)
    with prefect_api(prepare_environment(progress.say), progress.say) as ready:
        made = make_phantom(out / "archive", studies, seed, progress)
        ready()
        summary = run_score(quiet, archive=[made["archive"]], warehouse=warehouse)
        truth = Path(made["truth"])
        extracts = make_extracts(out / "registry", studies, truth, "abstracts", seed)
        linked = run_link(quiet, False, {"warehouse": warehouse, "mapping": extracts["mapping"]})
        report = run_report(quiet, {"warehouse": warehouse})
    pairs = pair_sources(warehouse, Source("model", summary["model"]), Source("truth"), truth=truth)
    agreement = compare_sources(pairs)
    if as_json:
        places = {"archive": made["archive"], "truth": made["truth"], "registry": extracts}
        done = {"agreement": agreement, "linkage": linked, "report": asdict(report)}
        print_json(summary | places | done)
        return
    for part in demo_tables(summary, agreement, made, linked, extracts, report):
        show(part)
