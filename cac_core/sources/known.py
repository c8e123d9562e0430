"""What is known of a PACS from earlier nights: its studies, and the UIDs to ask for.

The tables of the warehouse hold pseudonyms, from which nothing can be asked of a PACS. The UIDs lie
in a database in the private cache folder. Without it, everything is asked for again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cac_core.errors import CacError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (
    place TEXT NOT NULL, uid TEXT NOT NULL, date TEXT, version TEXT, instances INTEGER NOT NULL,
    PRIMARY KEY (place, uid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series (
    place TEXT NOT NULL, study TEXT NOT NULL, uid TEXT NOT NULL,
    PRIMARY KEY (place, study, uid)
) WITHOUT ROWID;
PRAGMA secure_delete = ON;
"""


def known_file(folder: Path) -> Path:
    """The database in a cache folder."""
    return folder / "known-studies.sqlite"


@dataclass(frozen=True, slots=True)
class KnownStudy:
    """A study whose headers were read: its date, version, series and number of instances."""

    uid: str
    date: dt.date | None
    version: str | None
    instances: int
    series: tuple[str, ...]


class KnownStudies:
    """The database of one cache folder."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self, place: str) -> dict[str, KnownStudy]:
        """The known studies of a PACS by StudyInstanceUID."""
        with self._open() as database:
            series: dict[str, list[str]] = {}
            for study, uid in database.execute(
                "SELECT study, uid FROM series WHERE place = ? ORDER BY study, uid", (place,)
            ):
                series.setdefault(study, []).append(uid)
            rows = database.execute(
                "SELECT uid, date, version, instances FROM study WHERE place = ?", (place,)
            ).fetchall()
        return {
            uid: KnownStudy(uid, _date(date), version, count, tuple(series.get(uid, ())))
            for uid, date, version, count in rows
        }

    def write(self, place: str, studies: Iterable[KnownStudy], gone: Iterable[str] = ()) -> None:
        """Remember studies in place of what was known of them, and forget those that are gone."""
        studies = list(studies)
        with self._open() as database:
            names = [(place, uid) for uid in (*gone, *(item.uid for item in studies))]
            database.executemany("DELETE FROM study WHERE place = ? AND uid = ?", names)
            database.executemany("DELETE FROM series WHERE place = ? AND study = ?", names)
            database.executemany(
                "INSERT INTO study VALUES (?, ?, ?, ?, ?)",
                [
                    (place, s.uid, s.date and s.date.isoformat(), s.version, s.instances)
                    for s in studies
                ],
            )
            database.executemany(
                "INSERT INTO series VALUES (?, ?, ?)",
                [(place, s.uid, uid) for s in studies for uid in s.series],
            )

    def forget(self, is_theirs: Callable[[str], bool]) -> int:
        """Remove the studies of withdrawn patients from what is known of any PACS.

        Parameters
        ----------
        is_theirs : whether a StudyInstanceUID is that of such a study.

        Returns
        -------
        The number of removed studies.
        """
        if not self._file.exists():
            return 0
        with self._open() as database:
            rows = database.execute("SELECT place, uid FROM study").fetchall()
            theirs = [(place, uid) for place, uid in rows if is_theirs(uid)]
            database.executemany("DELETE FROM study WHERE place = ? AND uid = ?", theirs)
            database.executemany("DELETE FROM series WHERE place = ? AND study = ?", theirs)
        return len(theirs)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A transaction; a damaged database is begun anew."""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            database = self._connected()
            try:
                with database:
                    yield database
            finally:
                database.close()
        except (sqlite3.Error, OSError) as error:
            raise CacError(
                f"The database of known studies {self._file} cannot be used "
                f"({type(error).__name__}).",
                "Free space and permissions there; it may be removed, then all is asked again.",
            ) from None

    def _connected(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, timeout=60.0)
        try:
            database.executescript(_SCHEMA)
        except sqlite3.OperationalError:  # locked, or the disk: nothing is wrong with the file
            database.close()
            raise
        except sqlite3.DatabaseError:
            database.close()
            self._file.write_bytes(b"")
            database = sqlite3.connect(self._file, timeout=60.0)
            database.executescript(_SCHEMA)
        return database


def _date(text: str | None) -> dt.date | None:
    return None if text is None else dt.date.fromisoformat(text)
