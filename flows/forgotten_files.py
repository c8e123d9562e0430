"""Files made from a warehouse that show withdrawn patients: reports, pages, exports and logs."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from cac_core.cohort.leftovers import Search, UnsearchableError
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from cac_core.events import log_files
from cac_core.reading.readings import MASKS
from cac_core.settings import Settings
from flows.runtime.environment import records_folder
from flows.runtime.known_folders import known_folders
from flows.runtime.results_folder import LIST, results_in, withdraw_results
from schemas.forgotten import FORGOTTEN

#: Results over the whole cohort: they show each patient of it, if only as a point of a figure.
_OF_COHORT = ("cohort report", "export")
_NOTE = "This {holds} was removed because a patient was withdrawn. Make it again with `{command}`."
_COMMANDS = {"cohort report": "cac report", "export": "cac export"}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="cac-cohort">
<title>Removed</title></head><body><p>{text}</p></body></html>
"""
_KEY = re.compile(r"[0-9a-f]{32}")


@dataclass
class Searched:
    """Files that were searched, and where something was left; keys in names are masked."""

    files: int = 0
    left: list[str] = field(default_factory=list)
    not_searched: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ForgottenFiles:
    """Files of a warehouse, and of the folders it knows of, that may show withdrawn patients."""

    store: Warehouse
    settings: Settings
    search_for: Search

    def to_make_again(self, *, in_cohort: bool) -> list[str]:
        """Folders of results that would be removed."""
        return sorted({str(folder) for folder, _ in self._affected(in_cohort)})

    def remove(self, *, in_cohort: bool) -> tuple[list[str], int]:
        """Remove results, pages and lines of logs that show the patients.

        Parameters
        ----------
        in_cohort : whether one of them is in the linked cohort; then every report and export of
            it goes.

        Returns
        -------
        Folders whose results must be made again, and the number of files removed.

        Raises
        ------
        CacError
            If a folder or file cannot be written.
        """
        again, removed = set(), 0
        for folder, holds in self._affected(in_cohort):
            text = _NOTE.format(holds=holds, command=_COMMANDS.get(holds, "the command it is of"))
            page = _PAGE.format(text=text.replace("`", "")).encode()
            note = {"index.html": page} if holds == "cohort report" else {}
            removed += withdraw_results(folder, holds, note)
            again.add(str(folder))
        removed += self._remove_other_pages() + self._remove_masks()
        self._clean_logs()
        return sorted(again), removed

    def publish_archive_page(self) -> None:
        """Write the archive page again, whose counts include the patients, if there is one."""
        from flows.pages.archive import PLACE, publish_archive_page

        pages = self.store.files.root / "reports" / PurePosixPath(PLACE).parent
        old = [path for path in self.store.files.all_files() if path.parent == pages]
        for path in old:
            self.store.files.remove(path)
        if old:
            publish_archive_page(self.store)

    def search(self) -> Searched:
        """Search every file of the warehouse, of the folders it knows of, and of the logs."""
        found = Searched()
        own = self.store.files.root / FORGOTTEN.name
        for path in self.store.files.all_files():
            name = str(path.relative_to(self.store.files.root))
            if own in path.parents or name == "_lock":
                continue
            self._look_at(found, name, path)
        for file in self._outside():
            self._look_at(found, str(file), file)
        return found

    def _affected(self, in_cohort: bool) -> Iterator[tuple[Path, str]]:
        """Folders and kinds of results that show the patients."""
        for folder in self._folders():
            for holds, files in results_in(folder).items():
                if (in_cohort and holds in _OF_COHORT) or any(map(self._shows, files)):
                    yield folder, holds

    def _folders(self) -> list[Path]:
        """Folders with results of this program, in the warehouse or known to it."""
        folders = {item.path for item in known_folders(self.store)}
        if self.settings.report.out is not None:
            folders.add(self.settings.report.out)
        if self.store.is_local:
            folders.update(path.parent for path in self.store.folder.rglob(LIST))
        return sorted(folder for folder in folders if (folder / LIST).is_file())

    def _outside(self) -> Iterator[Path]:
        """Files outside the warehouse: results, logs, and Prefect's records on this machine."""
        root = self.store.folder if self.store.is_local else None
        for folder in self._folders():
            if root is None or root not in folder.parents:
                files = results_in(folder).values()
                yield from (path for paths in files for path in paths if path.is_file())
        yield from log_files(self.settings.logging.file)
        records = records_folder()
        if records is not None:
            yield from (path for path in sorted(records.rglob("*")) if path.is_file())

    def _shows(self, path: Path) -> bool:
        """Whether a file shows a patient; a damaged one might."""
        if self.search_for.found_in_bytes(path.name.encode("utf-8", "surrogateescape")):
            return True
        try:
            with path.open("rb") as stream:
                return self.search_for.found_in(stream)
        except FileNotFoundError:
            return False
        except UnsearchableError:
            return True

    def _remove_other_pages(self) -> int:
        """Remove pages that are named after a study, or show one, and belong to no result."""
        if not self.store.is_local:
            return 0
        removed = 0
        for path in sorted((self.store.folder / "reports").rglob("*")):
            if path.is_file() and path.suffix in (".html", ".png", ".pdf") and self._shows(path):
                path.unlink()
                removed += 1
        return removed

    def _remove_masks(self) -> int:
        """Remove the masks of signed readings, which lie in a folder per study."""
        files, removed = self.store.files, 0
        for name in files.below(files.root / MASKS):
            if self.search_for.forgotten.holds(PurePosixPath(name).parts[0]):
                files.remove(files.root / MASKS / name)
                removed += 1
        return removed

    def _clean_logs(self) -> None:
        for path in log_files(self.settings.logging.file):
            try:
                lines = path.read_bytes().splitlines(keepends=True)
                kept = [line for line in lines if not self.search_for.found_in_bytes(line)]
                if len(kept) < len(lines):
                    _replace(path, b"".join(kept))
            except OSError as error:
                raise CacError(
                    f"The log {path} cannot be written ({error.strerror}).",
                    "Correct its permissions, and run the same command again.",
                ) from None

    def _look_at(self, found: Searched, name: str, path: Path | PurePosixPath) -> None:
        """Search one file and its name."""
        shown = _KEY.sub("*", name)
        found.files += 1
        if self.search_for.found_in_bytes(name.encode("utf-8", "surrogateescape")):
            found.left.append(shown)
            return
        try:
            with self._opened(path) as stream:
                if self.search_for.found_in(stream):
                    found.left.append(shown)
        except FileNotFoundError:
            found.files -= 1
        except (UnsearchableError, OSError):
            found.not_searched.append(shown)

    def _opened(self, path: Path | PurePosixPath) -> IO[bytes]:
        return path.open("rb") if isinstance(path, Path) else self.store.files.open(path)


def _replace(path: Path, content: bytes) -> None:
    """Replace a file by one rename, with the same permissions."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    Path(name).chmod(stat.S_IMODE(path.stat().st_mode))
    Path(name).replace(path)
