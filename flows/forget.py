"""`cac forget`: removes withdrawn patients from a warehouse and everything made from it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from cac_core.cohort.fingerprint import require_same_secret
from cac_core.cohort.forget import PatientRows, find_rows, remove_rows, studies_of
from cac_core.cohort.forgotten import Forgotten, add_forgotten
from cac_core.cohort.leftovers import Search
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, UsageError
from cac_core.keys import Keyring, load_keyring
from cac_core.settings import Settings
from cac_core.sources.known import KnownStudies, known_file
from flows.forgotten_files import ForgottenFiles, Searched
from flows.request import open_warehouse, read_settings
from flows.runtime.progress import RunProgress
from flows.runtime.stamp import RunStamp
from flows.summaries import ForgetSummary
from schemas.table import KEY_PATTERN

_LIBRARIES = ("pyarrow", "duckdb", "pandera")


@dataclass(frozen=True)
class ForgetRequest:
    """Who is to be forgotten: identifiers, or keys where only these are known."""

    identifiers: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    keys: tuple[str, ...] = ()
    warehouse: str | None = None
    config: str | None = None


@dataclass(frozen=True)
class _Prepared:
    """A checked request."""

    store: Warehouse
    settings: Settings
    keyring: Keyring
    identifiers: frozenset[str]
    patients: frozenset[str]


def forget(request: ForgetRequest, progress: RunProgress, *, dry_run: bool) -> ForgetSummary:
    """Remove patients from a warehouse, and search all its files for what may be left of them.

    Raises
    ------
    UsageError
        If nobody is named, a key is malformed, or the secret is another one.
    CacError
        If there is no warehouse, another run is writing, or a file cannot be read or written.
        What was removed until then stays removed; the same command completes it.
    """
    prepared = _prepare(request)
    if dry_run:
        return _forget(prepared, progress, dry_run=True)
    with prepared.store.lock():
        return _forget(prepared, progress, dry_run=False)


def _prepare(request: ForgetRequest) -> _Prepared:
    settings = read_settings(request.config)
    store = open_warehouse(request.warehouse, settings)
    identifiers = {text.strip() for text in request.identifiers} - {""}
    if not identifiers and not request.keys:
        raise UsageError(
            "No patient is named.",
            "Give identifiers on standard input (`cac forget --from -`), in a file, or as "
            "arguments; or a patient_key with --key.",
        )
    if not all(re.fullmatch(KEY_PATTERN, key) for key in request.keys):
        raise UsageError(
            "--key is not a patient_key.", "Give all 32 digits, as in the table `scores`."
        )
    if not store.exists():
        raise CacError(f"There is no warehouse at {store.url}.", "Name it with --warehouse.")
    keyring = load_keyring(settings.key_file)
    require_same_secret(store, keyring)
    patients = {*request.keys, *(keyring.patient_key(text) for text in identifiers)}
    return _Prepared(store, settings, keyring, frozenset(identifiers), frozenset(patients))


def _forget(prepared: _Prepared, progress: RunProgress, *, dry_run: bool) -> ForgetSummary:
    stamp, store = RunStamp(), prepared.store
    progress.say("looking for the rows of the patients")
    listed = _with(Forgotten.read(store, prepared.keyring), prepared.patients)
    studies = studies_of(store, listed)
    forgotten = _with(listed, studies)
    found = find_rows(store, forgotten)
    words = prepared.identifiers | found.identifiers
    search = Search(forgotten, frozenset(found.pseudonyms), words)
    files = ForgottenFiles(store, prepared.settings, search)
    if dry_run:
        again = files.to_make_again(in_cohort=found.in_cohort)
        planned = _Removed(found.rows, 0, again)
        return _summary(prepared, stamp, len(studies), planned, Searched(), dry_run=True)
    done = _remove(prepared, stamp, (studies, found, files), progress)
    progress.say("searching all files for what is left")
    result = _summary(prepared, stamp, len(studies), done, files.search(), dry_run=False)
    store.add_run(_run_row(prepared, stamp, result))
    return result


def _summary(
    prepared: _Prepared,
    stamp: RunStamp,
    studies: int,
    done: _Removed,
    searched: Searched,
    *,
    dry_run: bool,
) -> ForgetSummary:
    return ForgetSummary(
        run_id=stamp.run_id,
        dry_run=dry_run,
        patients=len(prepared.patients),
        studies=studies,
        rows=dict(sorted(done.rows.items())),
        files_removed=done.files,
        to_make_again=done.to_make_again,
        searched=searched.files,
        left=searched.left,
        not_searched=searched.not_searched,
        warehouse=prepared.store.url,
        seconds=round(stamp.seconds, 3),
    )


@dataclass(frozen=True)
class _Removed:
    rows: Counter[str]
    files: int
    to_make_again: list[str]


def _remove(
    prepared: _Prepared,
    stamp: RunStamp,
    what: tuple[set[str], PatientRows, ForgottenFiles],
    progress: RunProgress,
) -> _Removed:
    """Write the list of the withdrawn, then remove files, then rows.

    In this order: what is removed first is found through what is removed later.
    """
    store, (studies, found, files) = prepared.store, what
    keys = prepared.patients | studies
    forgotten = add_forgotten(store, prepared.keyring, keys, stamp.run_id)
    progress.say("removing pages, reports, exports and lines of logs")
    again, n_files = files.remove(in_cohort=found.in_cohort)
    progress.say("removing rows")
    rows = remove_rows(store, forgotten, found)
    for model in store.staged_models():
        store.suspects(model).clear(studies)
    _remove_pulled(prepared, studies)
    parts = store.parts(prepared.settings.linkage.registry)
    # Extracts are read again: those of a linkage that stopped, and all where their rows lie outside
    # of the warehouse.
    for folder in [parts.staging] if store.is_local else [parts.staging, parts.root]:
        shutil.rmtree(folder, ignore_errors=True)
    files.publish_archive_page()
    return _Removed(rows, n_files, again)


def _remove_pulled(prepared: _Prepared, studies: set[str]) -> None:
    """Remove what is here of the studies from a PACS: pulled series, and their UIDs."""
    folder = prepared.settings.source.folder
    if not folder.is_dir():
        return
    KnownStudies(known_file(folder)).forget(lambda uid: prepared.keyring.study_key(uid) in studies)
    for home in (folder / "series").glob("*-*"):
        if home.name.partition("-")[0] in studies:
            shutil.rmtree(home, ignore_errors=True)


def _with(forgotten: Forgotten, keys: Iterable[str]) -> Forgotten:
    """The list with further keys, in memory only."""
    assert forgotten.keyring is not None
    new = frozenset(map(forgotten.keyring.suppression_key, keys))
    return Forgotten(forgotten.suppressed | new, forgotten.keyring)


def _run_row(prepared: _Prepared, stamp: RunStamp, summary: ForgetSummary) -> dict[str, object]:
    """The row in `runs`: counts only."""
    counts = {
        "patients": summary.patients,
        "rows": sum(summary.rows.values()),
        "files_removed": summary.files_removed,
        "files_searched": summary.searched,
        "left": len(summary.left),
    }
    numbers = ("files", "files_opened", "studies", "scored", "rejected", "failed", "skipped")
    texts = ("model_id", "model_digest", "protocol_digest", "rules_digest")
    return (
        stamp.columns(_LIBRARIES)
        | dict.fromkeys(numbers, 0)
        | dict.fromkeys(texts, "")
        | {
            "job": "forget",
            "outcome": "completed",
            "reasons": json.dumps(counts, sort_keys=True),
            "file_reasons": "{}",
            "settings": json.dumps(prepared.settings.public(), sort_keys=True),
        }
    )
