"""`cac review`: the reading desk of a warehouse as a web application on this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from cac_core.cohort.scores import chosen_model
from cac_core.cohort.worklist import Identity
from cac_core.dicom.reading_masks import require_seg_writer
from cac_core.errors import UsageError
from cac_core.model.weights import verify_weights
from cac_core.reading.readings import ReadingLog
from cac_core.reading.work_list import WorkList
from flows.reading.app import Api
from flows.reading.desk import Desk
from flows.reading.guard import Sessions
from flows.reading.scans import ArchiveFiles, Scans
from flows.reading.training_export import TrainingExport, export_training
from flows.request import PreparedIndexing, prepare_indexing

if TYPE_CHECKING:
    from cac_core.model.cascade import Cascade

#: The only address that is listened on.
HOST = "127.0.0.1"


@dataclass(frozen=True)
class ReviewRequest:
    """Arguments of `cac review`; None takes the value of the settings file."""

    archive: tuple[str, ...] = ()
    warehouse: str | None = None
    config: str | None = None
    model: str | None = None
    port: int = 0
    threads: int = 1


@dataclass(frozen=True)
class ReadingServer:
    """A prepared server: its socket is bound, and its link can be opened.

    `serve` returns when the server is stopped.
    """

    link: str
    studies: int
    desk: Desk
    serve: Callable[[], None]


def prepare_server(request: ReviewRequest) -> ReadingServer:
    """Open warehouse, archive and port of a request; the archive is listed in the background.

    Raises
    ------
    CacError
        If settings, archive, warehouse, secret or weights cannot be used, nothing is scored, or
        the port is taken.
    """
    require_seg_writer()
    indexing = prepare_indexing(request.archive, request.warehouse, request.config)
    desk = open_desk(indexing, request)
    listener = _bound(request.port)
    port = listener.getsockname()[1]
    sessions = Sessions()
    app = Api(desk, sessions, f"cac_reader_{port}").application()
    # No access log: an address can hold the key of a study.
    options = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off")
    server = uvicorn.Server(options)

    def serve() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            desk.scans.close()
            listener.close()

    desk.scans.wait_loaded()
    link = f"http://{HOST}:{port}/#token={sessions.token}"
    return ReadingServer(link, desk.work_list.table.num_rows, desk, serve)


def open_desk(indexing: PreparedIndexing, request: ReviewRequest) -> Desk:
    """The reading desk of a warehouse.

    Raises
    ------
    UsageError
        If the weights are not those of the scores.
    """
    store, settings = indexing.warehouse, indexing.settings
    weights = verify_weights(Path(request.model) if request.model else settings.model)
    model = chosen_model(store, weights.model_id if request.model else None)
    if model != weights.model_id:
        raise UsageError(
            f"The scores are of the model {model}, and the weights are {weights.model_id}.",
            "Name the folder of the weights that scored with --model.",
        )
    protocol = settings.protocol
    identity = Identity(weights.digest, protocol.digest, indexing.rules.digest)
    log = ReadingLog(store)
    work_list = WorkList.read(store, model, protocol.digest, log.readings)

    def cascade() -> Cascade:
        from cac_core.model import cascade as networks  # imports torch, in the background

        return networks.Cascade.load(weights.folder, threads=request.threads)

    scans = Scans(ArchiveFiles(indexing, identity), cascade, protocol)
    return Desk(store, indexing.keyring, log, work_list, scans, protocol, model)


def run_export(request: ReviewRequest, out: Path) -> TrainingExport:
    """Write what was read as a training set, see `flows.reading.training_export`.

    Raises
    ------
    CacError
        As `prepare_server` and `export_training`.
    """
    indexing = prepare_indexing(request.archive, request.warehouse, request.config)
    desk = open_desk(indexing, request)
    try:
        return export_training(desk, desk.log.readings, out, desk.scans.archive.work)
    finally:
        desk.scans.close()


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # before the link is shown: who opens it at once waits
    except OSError as error:
        listener.close()
        raise UsageError(
            f"The port {port} cannot be used ({error.strerror}).",
            "Leave --port out for a free one.",
        ) from None
    return listener
