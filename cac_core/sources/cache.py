"""Pulled series on disk: whole ones only, for the owner only, up to a limit."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cac_core.errors import CacError
from cac_core.scratch import scratch_folder

_ARRIVING = "arriving-"


class SeriesCache:
    """A folder with one folder per pulled series; a half-pulled series never has its name.

    Parameters
    ----------
    folder : private folder; holds images with identifiers.
    limit_bytes : what is kept after scoring, the newest first; 0: nothing.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes
        self._used: set[str] = set()
        self._lock = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise CacError(
                f"The folder of pulled series {folder} cannot be used ({error.strerror}).",
                "Name another folder as `cache` under [source].",
            ) from None

    def files(self, name: str) -> list[Path] | None:
        """The files of a series that is here whole, in order; None otherwise."""
        home = self._folder / name
        with self._lock:
            if not home.is_dir():
                return None
            self._used.add(name)
        with contextlib.suppress(OSError):
            os.utime(home)
        return sorted(home.iterdir())

    @contextlib.contextmanager
    def arriving(self, name: str) -> Iterator[tuple[Path, Callable[[], None]]]:
        """A folder for a series that is being pulled, and what to call when it is whole."""
        with scratch_folder(_ARRIVING, self._folder) as work:
            inner = work / "series"
            inner.mkdir(mode=0o700)

            def whole() -> None:
                with self._lock:
                    self._used.add(name)
                    home = self._folder / name
                    if home.exists():
                        shutil.rmtree(home)
                    inner.rename(home)

            yield inner, whole

    def release(self, name: str) -> None:
        """A series is not needed any more: remove it, or what else exceeds the limit."""
        with self._lock:
            self._used.discard(name)
            if self._limit <= 0:
                shutil.rmtree(self._folder / name, ignore_errors=True)
        if self._limit > 0:
            self.trim()

    def trim(self) -> None:
        """Remove the series that were used longest ago until the limit is kept."""
        with self._lock:
            homes = [h for h in self._folder.iterdir() if not h.name.startswith((".", _ARRIVING))]
            sized = sorted(((h.stat().st_mtime_ns, _size(h), h) for h in homes), reverse=True)
            total = 0
            for _, size, home in sized:
                total += size
                if total > self._limit and home.name not in self._used:
                    shutil.rmtree(home, ignore_errors=True)
                    total -= size


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
