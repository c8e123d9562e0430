"""`cac review`: people read, correct and sign what the model scored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import (
    Archive,
    ConfigOption,
    JsonOption,
    ModelOption,
    WarehouseOption,
    as_text,
    complain,
    print_json,
    show,
)

ArchiveOption = Annotated[
    list[str] | None,
    typer.Option(
        "--archive",
        help="Folder, file or URL (s3://) of DICOM studies; can be repeated.",
        show_default="that of the settings",
    ),
]
PortOption = Annotated[
    int, typer.Option("--port", help="Port of this machine.", show_default="a free one", min=0)
]
ExportOption = Annotated[
    Path | None,
    typer.Option(
        "--export-training",
        metavar="DIR",
        help="Only write what was read as a training set for `cac train`.",
        show_default="serve the page",
    ),
]

app = typer.Typer()


@app.command(epilog="Example: `cac review -w /data/cac --archive /data/archive`")
def review(
    more: Archive = None,
    archive: ArchiveOption = None,
    warehouse: WarehouseOption = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    port: PortOption = 0,
    export_training: ExportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open the scored studies to readers: a page on this machine to check, correct and sign.

    Prints a link with a token; open it in a browser of this machine. Signed readings are kept in
    the table `signed_readings`. Ctrl-C ends it; nothing that was signed is lost.
    """
    from flows.reading.server import ReviewRequest, prepare_server, run_export

    places = tuple([*(more or []), *(archive or [])])
    request = ReviewRequest(places, warehouse, as_text(config), as_text(model), port)
    if export_training is not None:
        result = run_export(request, export_training)
        if as_json:
            print_json(result)
            return
        for line in result.lines():
            show(line)
        return
    server = prepare_server(request)
    complain(f"{server.studies} scored studies; Ctrl-C ends the review.")
    if as_json:
        print_json({"link": server.link, "studies": server.studies})
        sys.stdout.flush()
    else:
        show(server.link)
    server.serve()
