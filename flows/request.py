"""What a run is asked to do, checked before anything is started or written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from cac_core.cohort.store import Warehouse
from cac_core.cohort.worklist import Identity
from cac_core.dicom.descriptions import TextPolicy
from cac_core.dicom.index import ArchiveIndex
from cac_core.dicom.rules import SelectionRules, load_rules, text_policy
from cac_core.errors import UsageError
from cac_core.keys import Keyring, load_keyring
from cac_core.model.weights import WeightsManifest, verify_weights
from cac_core.settings import Settings, load_settings
from flows.cli.faults import keep_unsaid


@dataclass(frozen=True)
class Request:
    """Arguments of one rescoring, as the command line or a deployment gives them.

    `archive` and `warehouse` override those of the settings file.
    """

    archive: tuple[str, ...] = ()
    warehouse: str | None = None
    config: str | None = None
    model: str | None = None
    limit: int | None = None
    retry_failed: bool = False


@dataclass(frozen=True)
class Prepared:
    """A checked request: everything a run needs, opened or loaded."""

    roots: tuple[Path, ...]
    warehouse: Warehouse
    settings: Settings
    keyring: Keyring
    rules: SelectionRules
    weights: WeightsManifest
    limit: int | None
    retry_failed: bool

    @property
    def identity(self) -> Identity:
        """The run-wide part of every score's identity."""
        return Identity(self.weights.digest, self.settings.protocol.digest, self.rules.digest)

    @property
    def texts(self) -> TextPolicy:
        """Which words of the headers are kept."""
        return text_policy(self.rules, keep=self.settings.privacy.keep_descriptions)

    @property
    def index_workers(self) -> int:
        """Processes that read headers."""
        return index_workers(self.settings)


_NAMED: ContextVar[tuple[str, ...]] = ContextVar("named_archive", default=())


@contextlib.contextmanager
def naming(archive: Sequence[str]) -> Iterator[None]:
    """Name the archive of the run that starts inside.

    Prefect keeps the parameters of a flow in its database; folders can bear the names of patients.
    """
    token = _NAMED.set(tuple(archive))
    try:
        yield
    finally:
        _NAMED.reset(token)


def named_archive() -> tuple[str, ...]:
    """Folders named by `naming`; none in a deployment, whose settings file names them."""
    return _NAMED.get()


def prepare(request: Request) -> Prepared:
    """Check a request and open what it names; writes nothing.

    Raises
    ------
    CacError
        For the first thing that is wrong: settings, archive, secret, rules, weights, warehouse.
    """
    settings = load_settings(None if request.config is None else Path(request.config))
    roots = archive_roots(request.archive, settings)
    warehouse = open_warehouse(request.warehouse, settings)
    keyring = load_keyring(settings.key_file)
    rules = load_rules(settings.rules)
    weights = verify_weights(Path(request.model) if request.model else settings.model)
    warehouse.check_writable()
    if request.limit is not None and request.limit < 1:
        raise UsageError(f"--limit is {request.limit}.", "Give a number of studies, 1 or more.")
    return Prepared(
        roots, warehouse, settings, keyring, rules, weights, request.limit, request.retry_failed
    )


def archive_roots(archive: tuple[str, ...], settings: Settings) -> tuple[Path, ...]:
    """The folders to score: those of the command line, else those of the settings.

    Raises
    ------
    UsageError
        If none is named, one does not exist or is not readable, or there is no file in any.
    """
    roots = tuple(Path(item) for item in archive) or settings.archive
    if not roots:
        raise UsageError(
            "No archive is named.", "Give a folder of DICOM studies, or set `archive` in cac.toml."
        )
    for root in roots:
        keep_unsaid(root)
        if not root.exists():
            raise UsageError(f"The archive {root} does not exist.", "Check the path and the mount.")
        if not os.access(root, os.R_OK):
            raise UsageError(f"The archive {root} cannot be read.", "Check its permissions.")
    if not any(root.is_file() or _holds_something(root) for root in roots):
        raise UsageError("The archive is empty: no file was found.", "Check the path and mount.")
    return roots


def _holds_something(folder: Path) -> bool:
    """Whether there is anything but folders below; stops at the first such thing."""
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
    """
    url = warehouse or settings.warehouse
    if not url:
        raise UsageError(
            "No warehouse is named.", "Give --warehouse DIR, or set `warehouse` in cac.toml."
        )
    try:
        return Warehouse(url)
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"The warehouse {url} cannot be opened ({error}).",
            "Give a folder, or an fsspec URL whose package is installed.",
        ) from None


def index_workers(settings: Settings) -> int:
    """Processes that read headers: those of the settings, else one per usable core."""
    return settings.index_workers or len(os.sched_getaffinity(0))


def require_ct(archive: ArchiveIndex) -> None:
    """Refuse an archive in which there is nothing to score.

    Raises
    ------
    UsageError
        If it holds no CT instance.
    """
    modalities = archive.instances["Modality"]
    if not any(value == "CT" for value in modalities.unique().to_pylist()):
        listed = ", ".join(f"{name} {n}" for name, n in sorted(archive.reasons.items()))
        raise UsageError(
            f"The archive holds no CT image among its {archive.n_files} files"
            + (f" ({listed})." if listed else "."),
            "Name the folder that holds the SPECT/CT studies.",
        )
