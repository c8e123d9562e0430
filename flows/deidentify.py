"""`cac export --deidentify`: copies of the images of an archive without identifiers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cac_core.cohort.forgotten import Forgotten
from cac_core.cohort.warehouse import Warehouse
from cac_core.dicom.deidentified_copy import CopyRules, NotCopiedError, deidentified
from cac_core.dicom.index import ArchiveIndex, index_archive, withheld
from cac_core.dicom.limits import ReadLimits
from cac_core.dicom.selection_rules import load_rules, text_policy
from cac_core.errors import UsageError
from cac_core.keys import load_keyring
from cac_core.settings import Settings
from flows.request import (
    archive_roots,
    index_workers,
    open_warehouse,
    read_settings,
    site_keyring,
)
from flows.runtime.progress import RunProgress
from flows.runtime.results_folder import results_folder
from flows.summaries import CopySummary
from schemas.instance import INSTANCES

_HOLDS = "de-identified copy"


@dataclass(frozen=True)
class CopyRequest:
    """Arguments of `cac export --deidentify`; None takes the value of the settings file."""

    archive: tuple[str, ...]
    warehouse: str | None
    config: str | None
    studies: tuple[str, ...]
    out: Path


def copy_deidentified(request: CopyRequest, progress: RunProgress) -> CopySummary:
    """Copy every image of the archive, or those of the named studies, without identifiers.

    Withdrawn patients are left out where the warehouse knows of them.

    Raises
    ------
    UsageError
        If the archive or the secret is missing or another, or the folder holds other files.
    CacError
        If the folder cannot be written.
    """
    settings = read_settings(request.config)
    roots = archive_roots(request.archive, settings)
    store = _warehouse(request, settings)
    keyring = load_keyring(settings.key_file) if store is None else site_keyring(settings, store)
    rules = load_rules(settings.rules)
    with progress.counting("headers read") as report:
        index = index_archive(
            roots,
            keyring,
            previous=None if store is None else store.read(INSTANCES),
            workers=index_workers(settings),
            texts=text_policy(rules, keep=settings.privacy.keep_descriptions),
            progress=report,
        )
    if store is not None:
        index = withheld(index, Forgotten.read(store, keyring).mask)
    copied = CopyRules(keyring, settings.privacy.copy_tags)
    return _copied(index, request, copied, progress)


def _warehouse(request: CopyRequest, settings: Settings) -> Warehouse | None:
    if request.warehouse or settings.warehouse:
        return open_warehouse(request.warehouse, settings)
    return None


def _copied(
    index: ArchiveIndex, request: CopyRequest, rules: CopyRules, progress: RunProgress
) -> CopySummary:
    rows = index.instances.to_pylist()
    by_study: dict[str, list[dict[str, Any]]] = {}
    reasons: Counter[str] = Counter(index.reasons)
    for row in rows:
        if row["reason"] is None:
            by_study.setdefault(row["study_key"], []).append(row)
    unknown = [key for key in request.studies if key not in by_study]
    if unknown:
        raise UsageError(
            f"The archive has no study {unknown[0]!r}.", "Take keys from the table `scores`."
        )
    chosen = list(request.studies) or sorted(by_study)
    if request.studies:
        reasons.clear()
    n_copied = 0
    with progress.counting("studies copied") as report:
        for number, key in enumerate(chosen, start=1):
            n_copied += _copy_study(by_study[key], index, request.out, rules, reasons)
            if report is not None:
                report(number, len(chosen))
    return CopySummary(str(request.out), len(chosen), n_copied, dict(reasons))


def _copy_study(
    rows: list[dict[str, Any]],
    index: ArchiveIndex,
    out: Path,
    rules: CopyRules,
    reasons: Counter[str],
) -> int:
    """Copy the files of a study; counts what is not copied by its reason."""
    n_copied = 0
    with results_folder(out, _HOLDS, whole=False) as aside:
        for row in rows:
            try:
                if row["size_bytes"] > ReadLimits().max_bytes:
                    raise NotCopiedError("the file is too large")
                content = index.paths[row["path_key"]].read_bytes()
                shift = rules.keyring.date_shift(row["patient_key"] or row["study_key"])
                copy = deidentified(content, row, shift, rules)
            except NotCopiedError as error:
                reasons[str(error)] += 1
                continue
            except OSError as error:
                reasons[f"the file cannot be read ({type(error).__name__})"] += 1
                continue
            place = aside / row["study_key"] / _short(copy.SeriesInstanceUID)
            place.mkdir(parents=True, exist_ok=True)
            copy.save_as(place / f"{_short(copy.SOPInstanceUID)}.dcm", enforce_file_format=True)
            n_copied += 1
    return n_copied


def _short(uid: str) -> str:
    return str(uid).removeprefix("2.25.")
