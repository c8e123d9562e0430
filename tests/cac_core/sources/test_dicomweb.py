"""A PACS by DICOMweb: the same rows as from files, only the chosen series, and every bad answer."""

from __future__ import annotations

import base64
import datetime as dt
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pytest
from pydicom import dcmread

from cac_core.dicom.index import index_archive
from cac_core.errors import UsageError
from cac_core.source_settings import SourceSettings
from cac_core.sources import dicomweb
from cac_core.sources.collect import Collector
from cac_core.sources.open import open_source, pace_of
from cac_core.sources.source import Fault, SourceError, StudyQuery
from tests.builders.dicom_files import write_slices
from tests.builders.pacs_night import KEYS, QUERY, TEXTS, Night, rows, small_studies
from tests.builders.web_pacs import WebPacs, certificate, web_pacs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_studies(tmp_path / "archive")


@pytest.fixture
def pacs(folder: Path) -> Iterator[WebPacs]:
    with web_pacs(sorted(p for p in folder.rglob("*") if p.is_file())) as server:
        yield server


def test_headers_give_the_rows_of_files_and_only_ctac_is_pulled(
    pacs: WebPacs, folder: Path, tmp_path: Path
) -> None:
    night = Night(pacs.place, tmp_path)
    content = night.read()
    local = index_archive([folder], KEYS, texts=TEXTS)
    mask = pc.not_equal(local.instances["Modality"], "OT")
    assert rows(content.rows) == rows(local.instances.filter(mask))
    assert pacs.asks("pull") == 0
    works = night.pull(content)
    assert (len(works), pacs.asks("pull"), night.faults) == (3, 3, {})
    for work in works:
        pulled = [Path(stamp.path) for stamp in work.files]
        assert len(pulled) == 24
        (series,) = {dcmread(path).SeriesInstanceUID for path in pulled}
        assert series.endswith(".1")
        originals = {path.read_bytes() for path in folder.iterdir()}
        assert {path.read_bytes() for path in pulled} <= originals
        assert {path.stat().st_mode & 0o077 for path in (tmp_path / "cache").iterdir()} == {0}
    assert all(h.get("Accept-Encoding") == "identity" for h in pacs.headers)


def test_the_second_night_asks_only_for_what_is_new(
    pacs: WebPacs, folder: Path, tmp_path: Path
) -> None:
    first = Night(pacs.place, tmp_path).read()
    asked = pacs.asks("metadata")
    again = Night(pacs.place, tmp_path).read(previous=first.rows)
    assert pacs.asks("metadata") == asked
    assert again.rows.sort_by("path_key").equals(first.rows.sort_by("path_key"))
    assert again.places == first.places
    write_slices(folder, 2, SeriesInstanceUID="1.2.0.9", StudyInstanceUID="1.2.0", PatientID="P0",
                 StudyDate="20240510")  # fmt: skip
    pacs.files = sorted(folder.iterdir())
    third = Night(pacs.place, tmp_path).read(previous=first.rows)
    assert (third.rows.num_rows, third.n_read) == (first.rows.num_rows + 2, 27)
    pacs.counts = False  # a server that does not tell is asked for all headers
    assert Night(pacs.place, tmp_path).read(previous=first.rows).n_read == 77


def test_studies_outside_the_query_stay_and_removed_ones_go(
    pacs: WebPacs, folder: Path, tmp_path: Path
) -> None:
    first = Night(pacs.place, tmp_path).read()
    last = StudyQuery(dt.date(2024, 5, 12), None, ("CT",))
    again = Night(pacs.place, tmp_path).read(last, first.rows)
    assert (again.rows.num_rows, again.n_read) == (75, 0)
    pacs.files = [path for path in pacs.files if not path.name.startswith("1.2.1.")]
    third = Night(pacs.place, tmp_path).read(previous=again.rows)
    assert third.rows.num_rows == 50
    pacs.files = []
    with pytest.raises(SourceError, match="names no studies, of which 2 are known"):
        Night(pacs.place, tmp_path).read(previous=third.rows)


def test_studies_of_withdrawn_patients_are_not_asked_for(pacs: WebPacs, tmp_path: Path) -> None:
    night = Night(pacs.place, tmp_path)
    first = night.read()
    theirs = KEYS.study_key("1.2.1")
    asked = pacs.asks("metadata")
    collector = Collector(night.source, night.known, KEYS, TEXTS, is_withheld=theirs.__eq__)
    again = collector.read(QUERY, first.rows)
    night.source.close()
    assert (again.rows.num_rows, pacs.asks("metadata")) == (50, asked)
    assert night.known.read(pacs.place).keys() == {"1.2.0", "1.2.2"}
    assert night.known.forget(lambda uid: uid == "1.2.0") == 1
    assert night.known.read(pacs.place).keys() == {"1.2.2"}


def test_after_the_hours_headers_are_left_to_the_next_night(pacs: WebPacs, tmp_path: Path) -> None:
    night, allowed = Night(pacs.place, tmp_path), iter((True, True, False))
    first = Collector(
        night.source, night.known, KEYS, TEXTS, 1, may_ask=lambda: next(allowed, False)
    ).read(QUERY, None)
    night.source.close()
    assert (first.rows.num_rows, first.left) == (50, 1)
    second = Night(pacs.place, tmp_path).read(previous=first.rows)
    assert (second.rows.num_rows, second.left, second.n_read) == (75, 0, 25)


def test_queries_are_filtered_again(pacs: WebPacs, tmp_path: Path) -> None:
    pacs.ignores_queries = pacs.ignores_paging = True
    one = StudyQuery(dt.date(2024, 5, 11), dt.date(2024, 5, 11), ("CT",))
    assert Night(pacs.place, tmp_path).read(one).rows.num_rows == 25
    none = StudyQuery(modalities=("MR",))
    assert Night(pacs.place, tmp_path / "2").read(none).rows.num_rows == 0
    described = StudyQuery(descriptions=("perfusion",))
    assert Night(pacs.place, tmp_path / "3").read(described).rows.num_rows == 75
    described = StudyQuery(descriptions=("^knee$", "knie"))
    assert Night(pacs.place, tmp_path / "4").read(described).rows.num_rows == 0


def test_a_busy_server_is_asked_again(pacs: WebPacs, tmp_path: Path) -> None:
    pacs.failures = {"studies": [503, 429], "metadata": [500], "pull": [503, 502, 503]}
    night = Night(pacs.place, tmp_path)
    assert (len(night.pull()), night.faults) == (3, {})
    pacs.gzips = True
    night = Night(pacs.place, tmp_path / "gzip")
    assert (len(night.pull()), night.faults) == (3, {})


def test_a_server_that_stays_away_leaves_studies_to_the_next_night(
    pacs: WebPacs, tmp_path: Path
) -> None:
    night = Night(pacs.place, tmp_path, attempts=2)
    content = night.read()
    pacs.failures = {"pull": [503] * 100}
    assert night.pull(content) == []
    assert night.details() == {"HTTP 503"}
    pacs.failures = {}
    pacs.slow_s = 1.5
    silent = Night(pacs.place, tmp_path, attempts=1)
    with pytest.raises(SourceError, match="no answer in time") as caught:
        silent.read()
    assert caught.value.fault is Fault.AWAY


def test_an_answer_byte_by_byte_is_given_up(pacs: WebPacs, tmp_path: Path) -> None:
    content = Night(pacs.place, tmp_path).read()
    pacs.drips_s = 0.1  # ten seconds, and never a silence as long as the timeout
    night, began = Night(pacs.place, tmp_path, attempts=1, timeout_s=0.5), time.monotonic()
    with pytest.raises(SourceError, match="no answer in time") as caught:
        night.read()
    assert caught.value.fault is Fault.AWAY
    assert (night.pull(content), night.details()) == ([], {"no answer in time"})
    assert time.monotonic() - began < 5.0
    pacs.drips_s = 0.001  # slow, and faster than the patience
    assert len(Night(pacs.place, tmp_path, attempts=1).pull(content)) == 3


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"[" * 100_000, "cannot be read"),
        (b"<html>", "cannot be"),
        (b"7", "not DICOM JSON"),
        (b"[1]", "not DICOM JSON"),
    ],
)
def test_answers_that_are_no_dicom_json(
    answer: bytes, detail: str, pacs: WebPacs, tmp_path: Path
) -> None:
    pacs.instead = {"metadata": answer}
    content = Night(pacs.place, tmp_path / "1", attempts=1).read()
    assert len(content.unread) == 3
    pacs.instead = {"studies": answer}
    with pytest.raises(SourceError, match=detail):
        Night(pacs.place, tmp_path / "2", attempts=1).read()


def test_a_partial_study_is_pulled_again_and_then_named(pacs: WebPacs, tmp_path: Path) -> None:
    content = Night(pacs.place, tmp_path).read()
    left = [2]

    def late(contents: list[bytes]) -> list[bytes]:
        left[0] -= 1
        return contents if left[0] < 0 else contents[:-3]

    pacs.change = late
    night = Night(pacs.place, tmp_path)
    assert (len(night.pull(content)), night.faults) == (3, {})
    pacs.change = lambda contents: contents[:-3]
    night = Night(pacs.place, tmp_path / "2", attempts=2)
    assert night.pull(content) == []
    assert night.details() == {"21 of 24 instances"}
    assert not list((tmp_path / "2" / "cache" / "series").iterdir())


def test_copies_are_dropped_and_differing_ones_compared(pacs: WebPacs, tmp_path: Path) -> None:
    pacs.change = lambda contents: contents + contents
    works = Night(pacs.place, tmp_path).pull()
    assert [len(work.files) for work in works] == [24, 24, 24]
    assert {stamp.copy_of for work in works for stamp in work.files} == {None}
    pacs.change = lambda contents: [*contents, contents[0][:-2] + b"\1\1"]
    works = Night(pacs.place, tmp_path / "2").pull()
    numbers = [stamp.copy_of for stamp in works[0].files if stamp.copy_of is not None]
    assert len(works[0].files) == 25 and len(numbers) == 2 and len(set(numbers)) == 1


def _renamed(content: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new) and old in content
    return content.replace(old, new)


def test_other_uids_than_asked_are_refused(pacs: WebPacs, folder: Path, tmp_path: Path) -> None:
    alien = next(path for path in folder.iterdir() if path.name.startswith("1.2.2.2"))
    pacs.change = lambda contents: [*contents, alien.read_bytes()]
    night = Night(pacs.place, tmp_path, attempts=1)
    assert night.pull() == []
    assert night.details() == {"an instance of another study or series"}
    pacs.change = lambda contents: [b"<html>not DICOM</html>"]
    night = Night(pacs.place, tmp_path / "2", attempts=1)
    assert (night.pull(), night.details()) == ([], {"an answer that is no DICOM instance"})
    content = (folder / "1.2.2.1-023").read_bytes()
    stranger = _renamed(content, b"1.2.2.1.24", b"1.2.2.1.99")
    night = Night(pacs.place, tmp_path / "3", attempts=1)
    pacs.change = lambda contents: [*contents, stranger] if content in contents else contents
    works = night.pull()
    assert [len(work.files) for work in works] == [24, 24, 24], "it was not announced"


def test_what_a_peer_may_send_is_limited(
    pacs: WebPacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(pacs.place, tmp_path, attempts=1, series_gb=0.000_02)
    assert night.pull() == []
    assert night.details() == {"more than 0 MiB in one series"}
    night = Night(pacs.place, tmp_path / "2", attempts=1, series_instances=23)
    assert (night.pull(), night.details()) == ([], {"more than 23 instances"})
    pacs.endless = True
    night = Night(pacs.place, tmp_path / "3", attempts=1, series_gb=0.05)
    assert (night.pull(), night.details()) == ([], {"an instance of more than 47 MiB"})
    monkeypatch.setattr(dicomweb, "_LONGEST_ANSWER_S", 0.0)
    night = Night(pacs.place, tmp_path / "5", attempts=1)
    with pytest.raises(SourceError, match="takes more than"):
        night.read()
    monkeypatch.undo()
    pacs.endless = False
    pacs.cut = 5000
    night = Night(pacs.place, tmp_path / "4", attempts=2)
    assert (night.pull(), len(night.details())) == ([], 1)
    assert not [p for p in tmp_path.rglob("cache/series/*") if p.is_dir()]


def test_credentials_come_from_environment_or_file(
    pacs: WebPacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs.token = "a-token"
    with pytest.raises(SourceError, match="HTTP 401") as caught:
        Night(pacs.place, tmp_path).read()
    assert caught.value.fault is Fault.REFUSED and pacs.asks("studies") == 1, "not asked again"
    monkeypatch.setenv("CAC_PACS_TOKEN", "a-token")
    assert Night(pacs.place, tmp_path).read().rows.num_rows == 75
    monkeypatch.delenv("CAC_PACS_TOKEN")
    file = tmp_path / "token"
    file.write_text("a-token\n")
    file.chmod(0o604)
    with pytest.raises(UsageError, match="Every user"):
        Night(pacs.place, tmp_path, token_file=file)
    file.chmod(0o600)
    assert Night(pacs.place, tmp_path / "2", token_file=file).read().rows.num_rows == 75
    pacs.token, pacs.basic = None, "Basic " + base64.b64encode(b"cac:word").decode()
    monkeypatch.setenv("CAC_PACS_PASSWORD", "word")
    assert Night(pacs.place, tmp_path / "3", user="cac").read().rows.num_rows == 75
    for place in ("dicomweb+http://pacs.example/x", "dicomweb+https://u:p@pacs.example/x"):
        with pytest.raises(UsageError, match=r"without encryption|holds credentials"):
            open_source(place, SourceSettings(user="cac"), pace_of(SourceSettings()))


def test_certificates_are_checked(folder: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path / "server")
    ours, secret = certificate(tmp_path / "client")
    other, _ = certificate(tmp_path / "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    files = sorted(folder.iterdir())
    with web_pacs(files, context) as pacs:
        for wrong in ({}, {"tls_ca_file": other}):
            with pytest.raises(SourceError, match="TLS: ") as caught:
                Night(pacs.place, tmp_path, **wrong).read()
            assert caught.value.fault is Fault.REFUSED
        assert Night(pacs.place, tmp_path, tls_ca_file=cert).read().rows.num_rows == 75
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ours)
    with web_pacs(files, context) as pacs:
        with pytest.raises(SourceError):
            Night(pacs.place, tmp_path / "2", tls_ca_file=cert, attempts=1).read()
        own = {"tls_ca_file": cert, "tls_cert": ours, "tls_key": secret}
        assert Night(pacs.place, tmp_path / "2", **own).read().rows.num_rows == 75


def test_a_redirection_is_not_followed(pacs: WebPacs, tmp_path: Path) -> None:
    pacs.elsewhere = f"http://127.0.0.1:{pacs.port}/dicom-web/studies"
    with pytest.raises(SourceError, match="redirects elsewhere"):
        Night(pacs.place, tmp_path).read()
    assert len(pacs.asked) == 1


def test_headers_that_cannot_be_had_are_a_row(pacs: WebPacs, tmp_path: Path) -> None:
    pacs.failures = {"metadata": [404]}
    night = Night(pacs.place, tmp_path, attempts=1)
    content = night.read()
    assert len(content.unread) == 1
    reasons = content.rows["reason"].drop_null().to_pylist()
    assert reasons == ["not_retrieved"]
    again = Night(pacs.place, tmp_path).read(previous=content.rows)
    assert (again.rows.num_rows, len(again.unread), again.n_read) == (75, 0, 25)


def test_no_identifier_leaves_in_messages(pacs: WebPacs, tmp_path: Path) -> None:
    pacs.failures = {"pull": [404, 401, 503]}
    night = Night(pacs.place, tmp_path, attempts=1)
    night.pull()
    shown = " ".join([*night.said, *map(str, night.faults.values())])
    assert "1.2." not in shown and "P0" not in shown
