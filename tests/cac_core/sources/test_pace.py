"""Throttle, attempts, hours and cache: a PACS is asked no faster and no longer than allowed."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from cac_core.errors import CacError
from cac_core.source_settings import SourceSettings
from cac_core.sources.cache import SeriesCache
from cac_core.sources.known import KnownStudies, KnownStudy
from cac_core.sources.open import query_of
from cac_core.sources.pace import Pace, StoppedError, Window
from cac_core.sources.place import is_pacs, is_uid, parse_series_place, series_place
from cac_core.sources.source import Fault, SourceError, StudyQuery
from tests.builders.pacs_night import Night, small_studies
from tests.builders.web_pacs import web_pacs


def test_requests_and_bytes_of_all_threads_keep_the_rate() -> None:
    pace = Pace(requests_per_s=50.0, bytes_per_s=1e6)
    began = time.monotonic()
    threads = [
        threading.Thread(target=lambda: [pace.request() for _ in range(5)]) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.18 <= time.monotonic() - began < 2
    began = time.monotonic()
    for _ in range(5):
        pace.received(50_000)
    assert 0.2 <= time.monotonic() - began < 2


def test_attempts_grow_apart_and_end_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pace, slept, calls = Pace(attempts=5, delay_s=1.0), list[float](), [0]
    monkeypatch.setattr(pace, "sleep", slept.append)

    def fail(fault: Fault) -> None:
        calls[0] += 1
        raise SourceError(fault, "x")

    with pytest.raises(SourceError):
        pace.attempt(lambda: fail(Fault.AWAY))
    assert calls == [5]
    assert all(0.5 * 2**n <= s <= 2**n for n, s in enumerate(slept)) and len(slept) == 4
    for fault in (Fault.REFUSED, Fault.STUDY):
        calls[0] = 0
        with pytest.raises(SourceError):
            pace.attempt(lambda fault=fault: fail(fault))  # type: ignore[misc]
        assert calls == [1]
    stopped = Pace(attempts=5, delay_s=60.0)
    threading.Timer(0.1, stopped.stop.set).start()
    with pytest.raises(StoppedError):
        stopped.attempt(lambda: fail(Fault.AWAY))


def test_hours_may_pass_midnight() -> None:
    def at(hour: int, minute: int = 0) -> dt.datetime:
        return dt.datetime(2024, 5, 1, hour, minute, tzinfo=dt.UTC)

    night = Window(dt.time(22), dt.time(6))
    assert [night.is_open(at(h)) for h in (21, 22, 0, 5, 6, 12)] == [0, 1, 1, 1, 0, 0]
    day = Window(dt.time(8, 30), dt.time(17))
    assert [day.is_open(at(8, m)) for m in (29, 30)] == [False, True]
    assert SourceSettings(hours="22:00-06:00").window == (dt.time(22), dt.time(6))


def test_after_the_hours_studies_are_left_to_the_next_night(tmp_path: Path) -> None:
    folder = small_studies(tmp_path / "archive", 3)
    with web_pacs(sorted(folder.iterdir())) as pacs:
        night = Night(pacs.place, tmp_path)
        orders = night.orders(night.read())
        arrivals, open_for = night.arrivals(), [2]

        def is_open() -> bool:
            open_for[0] -= 1
            return open_for[0] >= 0

        arrivals.is_open = is_open
        faults: list[object] = []
        works = list(arrivals.works(orders, lambda work, error: faults.append(error)))
        night.source.close()
    assert (len(works), arrivals.left, faults) == (2, 1, [])
    assert night.said == ["warning: the hours of the PACS are over; the other studies are left "
                          "to the next run"]  # fmt: skip


def _pulled(cache: SeriesCache, name: str, size: int) -> None:
    with cache.arriving(name) as (folder, whole):
        (folder / "x.dcm").write_bytes(bytes(size))
        assert cache.files(name) is None, "not before it is whole"
        whole()


def test_series_are_deleted_or_kept_up_to_a_limit(tmp_path: Path) -> None:
    none = SeriesCache(tmp_path / "none", 0)
    _pulled(none, "a", 10)
    assert [path.name for path in none.files("a") or []] == ["x.dcm"]
    none.release("a")
    assert none.files("a") is None and not list((tmp_path / "none").iterdir())
    some = SeriesCache(tmp_path / "some", 100)
    for name in "abcd":
        _pulled(some, name, 40)
        time.sleep(0.01)
    assert len(list((tmp_path / "some").iterdir())) == 4, "nothing goes that is still needed"
    for name in "abcd":
        some.release(name)
    assert {path.name for path in (tmp_path / "some").iterdir()} == {"c", "d"}
    with pytest.raises(OSError, match="gone"), some.arriving("e") as (folder, _):
        (folder / "half").touch()
        raise OSError("gone")
    assert {path.name for path in (tmp_path / "some").iterdir()} == {"c", "d"}
    assert (tmp_path / "some").stat().st_mode & 0o077 == 0
    (tmp_path / "file").touch()
    with pytest.raises(CacError, match="cannot be used"):
        SeriesCache(tmp_path / "file", 0)


def test_what_is_known_survives_and_a_damaged_file_does_not_matter(tmp_path: Path) -> None:
    known = KnownStudies(tmp_path / "cache" / "known.sqlite")
    study = KnownStudy("1.2", dt.date(2024, 5, 1), "v", 3, ("1.2.1", "1.2.2"))
    known.write("place", [study, KnownStudy("1.3", None, None, 1, ())])
    assert known.read("place")["1.2"] == study and known.read("other") == {}
    known.write("place", [], ["1.3"])
    assert known.read("place") == {"1.2": study}
    file = tmp_path / "cache" / "known.sqlite"
    assert file.stat().st_mode & 0o077 == 0
    holder = sqlite3.connect(file)
    holder.execute("BEGIN IMMEDIATE")
    assert known.read("place") == {"1.2": study}
    holder.close()
    file.write_bytes(b"this is no database, but long enough to look like a file" * 100)
    assert known.read("place") == {}


def test_places_and_queries_of_the_settings() -> None:
    place = "dicomweb+https://pacs.example/dicom-web"
    assert is_pacs(place) and is_pacs("dicom://PACS@10.0.0.1:104")
    assert not any(map(is_pacs, ("/data", Path("dicom:/x"), "s3://bucket", "https://x")))
    assert parse_series_place(series_place(place, "1.2", "3.4")) == (place, "1.2", "3.4")
    assert parse_series_place("/data/studies/1.2/series/3.4") is None
    assert not any(map(is_uid, ("", "../1", "1.2/3", "1" * 65, None, "1.2\n", "a")))
    today = dt.date(2024, 5, 31)
    recent = SourceSettings(last_days=30, first_date=dt.date(2020, 1, 1), modalities=("nm",))
    assert query_of(recent, today) == StudyQuery(dt.date(2024, 5, 1), None, ("NM",))
    turned = {"first_date": "2024-02-01", "last_date": "2024-01-01"}
    faulty = ({"hours": "6-22"}, {"peers": ["X"]}, {"descriptions": ["("]}, {"tls_key": "k"})
    for wrong in (*faulty, turned):
        with pytest.raises(ValueError):
            SourceSettings.model_validate(wrong)
