"""Requests to index, score or link, checked before anything starts or is written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cac_core.cohort.fingerprint import require_same_secret
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import UsageError
from cac_core.keys import Keyring, ignored_secret, load_keyring
from cac_core.settings import ScheduleSettings, Settings, load_settings
from cac_core.storage import is_url, require_answer
from flows.runtime.faults import hide_paths_below
from schemas.codes import Status
from schemas.score import SCORES

if TYPE_CHECKING:  # `cac status` needs none of these, and they take a second to import
    from cac_core.cohort.worklist import Identity
    from cac_core.dicom.descriptions import TextPolicy
    from cac_core.dicom.selection_rules import SelectionRules
    from cac_core.model.weights import WeightsManifest
    from cac_core.sources.listing import Listing


@dataclass(frozen=True)
class ScoringRequest:
    """Arguments of one rescoring run, as the command line or a deployment gives them.

    `archive` and `warehouse` override those of the settings file. A scheduled run waits, tries
    again and is followed by the linkage as the settings say.
    """

    archive: tuple[str, ...] = ()
    warehouse: str | None = None
    config: str | None = None
    model: str | None = None
    limit: int | None = None
    retry_failed: bool = False
    reasons: tuple[str, ...] = ()
    scheduled: bool = False
    workers: int | None = None
    job: str = "nightly-rescore"

    def portion(self, limit: int, workers: int | None) -> ScoringRequest:
        """The same request for at most this number of studies, by this number of workers."""
        return dataclasses.replace(self, limit=limit, workers=workers)


@dataclass(frozen=True)
class LinkageRequest:
    """Arguments of one linkage; None takes the value of the settings file."""

    warehouse: str | None = None
    config: str | None = None
    mapping: str | None = None
    outcomes: str | None = None
    model: str | None = None
    suppress: bool | None = None
    scheduled: bool = False


@dataclass(frozen=True)
class PreparedIndexing:
    """A checked request to index an archive, with everything opened or loaded."""

    roots: tuple[Path | str, ...]
    warehouse: Warehouse
    settings: Settings
    keyring: Keyring
    rules: SelectionRules

    @property
    def texts(self) -> TextPolicy:
        """Which words of the header descriptions are kept."""
        from cac_core.dicom.selection_rules import text_policy

        return text_policy(self.rules, keep=self.settings.privacy.keep_descriptions)

    @property
    def index_workers(self) -> int:
        """Number of processes that read headers."""
        return index_workers(self.settings)


@dataclass(frozen=True)
class PreparedScoring:
    """A checked request to score an archive: indexing, weights, and which studies to score."""

    indexing: PreparedIndexing
    weights: WeightsManifest
    limit: int | None
    retry_failed: bool
    reasons: tuple[str, ...] = ()
    job: str = "nightly-rescore"

    @property
    def warehouse(self) -> Warehouse:
        """Where the scores go."""
        return self.indexing.warehouse

    @property
    def settings(self) -> Settings:
        """The resolved settings."""
        return self.indexing.settings

    @property
    def identity(self) -> Identity:
        """The part of every score's identity that is the same for the whole run."""
        from cac_core.cohort.worklist import Identity

        protocol, rules = self.settings.protocol, self.indexing.rules
        return Identity(self.weights.digest, protocol.digest, rules.digest)


_ARCHIVE: ContextVar[tuple[str, ...]] = ContextVar("archive_of_run", default=())


@contextlib.contextmanager
def archive_of_run(archive: Sequence[str]) -> Iterator[None]:
    """Set the archive of the flow run that starts inside.

    Not a flow parameter: Prefect stores parameters in its database, and folder names can hold
    patient names.
    """
    token = _ARCHIVE.set(tuple(archive))
    try:
        yield
    finally:
        _ARCHIVE.reset(token)


def current_archive() -> tuple[str, ...]:
    """The archive set by `archive_of_run`; empty in a deployment, which uses its settings file."""
    return _ARCHIVE.get()


def prepare_indexing(
    archive: tuple[str, ...], warehouse: str | None, config: str | None
) -> PreparedIndexing:
    """Check a request and open what it names; writes nothing.

    Raises
    ------
    CacError
        For the first fault: settings, archive, warehouse, secret, or rules.
    """
    from cac_core.dicom.selection_rules import load_rules

    settings = read_settings(config)
    roots = archive_roots(archive, settings)
    store = open_warehouse(warehouse, settings)
    keyring, rules = site_keyring(settings, store), load_rules(settings.rules)
    store.check_writable()
    return PreparedIndexing(roots, store, settings, keyring, rules)


def prepare_scoring(request: ScoringRequest) -> PreparedScoring:
    """Check a request and open what it names; writes nothing.

    Raises
    ------
    CacError
        For the first fault: settings, archive, warehouse, secret, rules, weights, or limit.
    """
    from cac_core.model.weights import verify_weights
    from flows.runtime.cluster_check import check_cluster

    indexing = prepare_indexing(request.archive, request.warehouse, request.config)
    weights = verify_weights(Path(request.model) if request.model else indexing.settings.model)
    if request.limit is not None and request.limit < 1:
        raise UsageError(f"--limit is {request.limit}.", "Give a number of studies, 1 or more.")
    _require_known_reasons(indexing.warehouse, weights.model_id, request.reasons)
    if request.workers is not None:
        cluster = indexing.settings.cluster.model_copy(update={"workers": request.workers})
        settings = indexing.settings.model_copy(update={"cluster": cluster})
        indexing = dataclasses.replace(indexing, settings=settings)
    check_cluster(indexing.settings.cluster)
    job = "retry" if request.retry_failed else request.job
    return PreparedScoring(
        indexing, weights, request.limit, request.retry_failed, tuple(request.reasons), job
    )


def _require_known_reasons(store: Warehouse, model: str, reasons: Sequence[str]) -> None:
    """Check that studies have failed for each of these reasons.

    Raises
    ------
    UsageError
        With the reasons that there are, and their counts.
    """
    if not reasons:
        return
    rows = store.columns(SCORES, ("status", "reason"), model).to_pylist()
    known = Counter(row["reason"] for row in rows if row["status"] == Status.FAILED.value)
    unknown = [reason for reason in reasons if reason not in known]
    if unknown:
        listed = ", ".join(f"{reason} {n}" for reason, n in known.most_common())
        raise UsageError(
            f"No study of the model {model} has failed for the reason {', '.join(unknown)}.",
            f"Failed studies by reason: {listed}." if listed else "No study has failed.",
        )


def read_settings(config: str | None) -> Settings:
    """Settings of the file that a command or deployment names, else the defaults.

    Raises
    ------
    UsageError
        If the file cannot be read or is invalid.
    """
    return load_settings(None if config is None else Path(config))


def schedule_of(config: str | None, scheduled: bool) -> ScheduleSettings | None:
    """Settings of scheduled runs; None for a command typed by hand."""
    return read_settings(config).schedule if scheduled else None


def archive_roots(archive: tuple[str, ...], settings: Settings) -> tuple[Path | str, ...]:
    """The folders and URLs to read: those of the command line, else those of the settings.

    Raises
    ------
    UsageError
        If none is named, one does not exist or is not readable, or none holds a file.
    CacError
        If the store of a URL cannot be used.
    """
    named = tuple(map(str, archive)) or tuple(map(str, settings.archive))
    roots = tuple(item if is_url(item) else Path(item) for item in named)
    if not roots:
        raise UsageError(
            "No archive is named.", "Give a folder of DICOM studies, or set `archive` in cac.toml."
        )
    for root in roots:
        if isinstance(root, str):
            _require_usable(root)
            continue
        hide_paths_below(root)
        if not root.exists():
            raise UsageError(f"The archive {root} does not exist.", "Check the path and the mount.")
        if not os.access(root, os.R_OK):
            raise UsageError(f"The archive {root} cannot be read.", "Check its permissions.")
    if not any(isinstance(root, str) or root.is_file() or _holds_something(root) for root in roots):
        raise UsageError("The archive is empty: no file was found.", "Check the path and mount.")
    return roots


def _require_usable(url: str) -> None:
    from cac_core.sources.open import require_usable
    from cac_core.sources.place import is_pacs

    if is_pacs(url):
        require_usable(url)
    else:
        require_answer(url, "archive")


def archive_listing(settings: Settings, say: Callable[[str], None] = lambda line: None) -> Listing:
    """What lists the files of an archive, those in zip and tar archives and on media included."""
    from cac_core.sources.listing import Listing
    from cac_core.sources.packed import UnpackLimits

    source = settings.source
    limits = UnpackLimits(total_bytes=int(source.unpacked_gb * 10**9))
    return Listing(source.folder / "unpacked", limits, say)


def _holds_something(folder: Path) -> bool:
    """Whether a folder tree holds a file or link; stops at the first."""
    return any(
        files or any(Path(top, name).is_symlink() for name in folders)
        for top, folders, files in os.walk(folder)
    )


def open_warehouse(warehouse: str | None, settings: Settings) -> Warehouse:
    """The warehouse of the command line, else that of the settings.

    Raises
    ------
    UsageError
        If none is named, or the URL names no file system that can be opened.
    CacError
        If its store does not answer or refuses the request.
    """
    url = warehouse or settings.warehouse
    if not url:
        raise UsageError(
            "No warehouse is named.", "Give --warehouse DIR, or set `warehouse` in cac.toml."
        )
    if is_url(url):
        require_answer(url, "warehouse")
    return Warehouse(url)


def site_keyring(settings: Settings, store: Warehouse) -> Keyring:
    """The keyring of the settings or environment, with the secret of the warehouse.

    Raises
    ------
    UsageError
        If there is no secret, or the warehouse was made with another one.
    CacError
        If the file of the fingerprint cannot be read.
    """
    keyring = load_keyring(settings.key_file, store.url if store.exists() else None)
    try:
        require_same_secret(store, keyring)
    except UsageError as error:
        shadowed = ignored_secret(settings.key_file)
        if shadowed is None:
            raise
        raise UsageError(f"{error.what} (Note: {shadowed}.)", error.hint) from None
    return keyring


def index_workers(settings: Settings) -> int:
    """Number of processes that read headers: the setting, else one per usable core."""
    return settings.index_workers or len(os.sched_getaffinity(0))
