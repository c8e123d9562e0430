"""Notes on studies that may end a whole run, so that the next run knows them.

A study whose worker died is scored once more alone. It is noted before: if it takes the run down
with it (the machine is short of memory, say), no row of it is ever written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from cac_core.cohort.warehouse_files import WarehouseFiles

#: A study that was noted this often, and got no row, is recorded without being scored again.
STRIKES = 2
_NAME = "suspects.json"


class SuspectNotes:
    """Notes of one model in the folder of staged rows: key of the study, its files and strikes.

    Parameters
    ----------
    files : file operations of the warehouse.
    folder : folder of staged rows of the model.
    """

    def __init__(self, files: WarehouseFiles, folder: PurePosixPath) -> None:
        self._files, self._path = files, folder / _NAME
        data = files.read_bytes(self._path)
        self._notes: dict[str, list[Any]] = {} if data is None else json.loads(data)

    def strikes(self, study_key: str, instances_digest: str) -> int:
        """How often a study was noted with these files, and got no row."""
        digest, strikes = self._notes.get(study_key, ("", 0))
        return int(strikes) if digest == instances_digest else 0

    def add(self, study_key: str, instances_digest: str) -> None:
        """Note a study that is about to be scored alone."""
        strikes = self.strikes(study_key, instances_digest) + 1
        self._notes[study_key] = [instances_digest, strikes]
        self._write()

    def clear(self, study_keys: Iterable[str]) -> None:
        """Forget studies that have their row, or that an orderly end of the run interrupted."""
        known = self._notes.keys() & set(study_keys)
        for key in known:
            del self._notes[key]
        if known:
            self._write()

    def _write(self) -> None:
        if self._notes:
            text = json.dumps(self._notes, sort_keys=True).encode("ascii")
            self._files.write(self._path, lambda stream: stream.write(text))
        else:
            self._files.remove(self._path)
