"""What a run does with one PACS, without Prefect and without scoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from cac_core.cohort.worklist import Identity, wanted_studies, work_orders
from cac_core.dicom.index import ArchiveIndex, index_archive, joined
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules, text_policy
from cac_core.dicom.series import series_table
from cac_core.errors import StudyError
from cac_core.keys import Keyring
from cac_core.source_settings import SourceSettings
from cac_core.sources.cache import SeriesCache
from cac_core.sources.collect import Collector, SourceContent
from cac_core.sources.known import KnownStudies
from cac_core.sources.open import limits_of, open_source, pace_of
from cac_core.sources.puller import Puller
from cac_core.sources.source import StudyQuery
from cac_core.study import StudyWork
from tasks.arrivals import Arrivals
from tests.builders.dicom_files import CAPTURE_CLASS, NM_CLASS, write_slices

KEYS = Keyring(b"a secret of the tests of PACS")
RULES = load_rules()
TEXTS = text_policy(RULES)
QUERY = StudyQuery(modalities=("CT",))
#: Columns that depend on how an instance is stored.
OF_A_FILE = ["path_key", "mtime_ns", "size_bytes", "pixel_data_offset", "TransferSyntaxUID"]


def small_studies(folder: Path, studies: int = 3) -> Path:
    """Studies with a CTAC of 24 slices, an NM series and a capture each."""
    for number in range(studies):
        study = {"StudyInstanceUID": f"1.2.{number}", "PatientID": f"P{number}"}
        common = study | {"StudyDate": f"2024051{number}"}
        write_slices(folder, 24, SeriesInstanceUID=f"1.2.{number}.1", **common)
        nuclear = {"Modality": "NM", "SOPClassUID": NM_CLASS}
        write_slices(folder, 1, SeriesInstanceUID=f"1.2.{number}.2", **common | nuclear)
        capture = {"Modality": "OT", "SOPClassUID": CAPTURE_CLASS}
        write_slices(folder, 1, SeriesInstanceUID=f"1.2.{number}.3", **common | capture)
    return folder


class Night:
    """One run; `faults` are the studies that did not arrive, `said` its messages."""

    def __init__(self, place: str, folder: Path, **settings: Any) -> None:
        quick = {"timeout_s": 1.0, "retry_delay_s": 0.01, "cache": folder / "cache"}
        self.settings = SourceSettings.model_validate(quick | settings)
        self.pace = pace_of(self.settings)
        self.source = open_source(place, self.settings, self.pace)
        self.known = KnownStudies(self.settings.folder / "known.sqlite")
        self.said: list[str] = []
        self.faults: dict[str, StudyError] = {}

    def read(self, query: StudyQuery = QUERY, previous: pa.Table | None = None) -> SourceContent:
        """Rows of the PACS."""
        try:
            return Collector(self.source, self.known, KEYS, TEXTS).read(query, previous)
        finally:
            self.source.close()

    def index(self, content: SourceContent) -> ArchiveIndex:
        """The index of an archive that is this PACS."""
        empty = index_archive([], KEYS, texts=TEXTS)
        return joined(empty, content.rows, content.places, content.n_read)

    def orders(self, content: SourceContent) -> list[StudyWork]:
        """The studies to be scored."""
        found = self.index(content)
        series = select_series(series_table(found.instances), RULES)
        wanted = wanted_studies(found.instances, series, Identity("m", "p", RULES.digest))
        return work_orders(wanted, found.instances, found.paths)

    def arrivals(self) -> Arrivals:
        """The pulls of the night."""
        settings = self.settings
        cache = SeriesCache(settings.folder / "series", int(settings.cache_gb * 10**9))
        sources = {self.source.place: self.source}
        puller = Puller(sources, cache, KEYS.pseudonym_uid, self.pace, limits_of(settings))
        return Arrivals(puller, self.pace, 2, 4, say=self.said.append)

    def pull(self, content: SourceContent | None = None) -> list[StudyWork]:
        """Studies that arrived."""

        def fault(work: StudyWork, error: StudyError) -> None:
            self.faults[work.study_key] = error

        try:
            orders = self.orders(content or self.read())
            return list(self.arrivals().works(orders, fault))
        finally:
            self.source.close()

    def details(self) -> set[str]:
        """What the rows of the others say."""
        assert {error.reason.value for error in self.faults.values()} <= {"not_retrieved"}
        assert not any(error.rejected for error in self.faults.values())
        return {error.detail for error in self.faults.values()}


def rows(table: pa.Table) -> list[dict[str, object]]:
    """Rows of `instances` without what depends on how an instance is stored."""
    return sorted(table.drop_columns(OF_A_FILE).to_pylist(), key=str)
