"""Signed readings: what stands for a study, and that none is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from cac_core.reading.readings import ReadingLog, grouped, read_masks, read_readings, sign
from schemas.invalid import InvalidTableError
from tests.builders.readings import reading_row
from tests.builders.rows import key

HIGH = {"cac_category": "101-400", "agatston": 150.0}


def test_the_only_reading_stands_for_its_study() -> None:
    one = reading_row()
    assert grouped([one]).final() == {key(1): one}


def test_two_readings_stand_where_they_agree_and_wait_where_they_differ() -> None:
    first, second = reading_row(), reading_row(reader="B", number=1, agatston=20.0)
    assert grouped([second, first]).of(key(1)).final == first
    found = grouped([first, second | HIGH]).of(key(1))
    assert found.differs and found.final is None
    third = reading_row(reader="C", number=2, kind="adjudication", **HIGH)
    assert grouped([first, second | HIGH, third]).of(key(1)).final == third


def test_a_correction_takes_the_place_of_what_it_corrects() -> None:
    first = reading_row()
    fixed = reading_row(number=1, kind="correction", amends=first["reading_id"], **HIGH)
    found = grouped([first, fixed]).of(key(1))
    assert found.by_reader == (fixed,) and found.final == fixed


def test_a_repeat_is_kept_aside() -> None:
    first, again = reading_row(), reading_row(number=1, kind="repeat", **HIGH)
    found = grouped([first, again]).of(key(1))
    assert found.final == first and found.repeats == ((first, again),)


def test_what_is_signed_is_read_with_its_masks(tmp_path: Path) -> None:
    store = Warehouse(tmp_path / "wh")
    row = reading_row()
    sign(store, row, b"masks")
    (found,) = read_readings(store).rows
    assert found["reading_id"] == row["reading_id"]
    assert read_masks(store, found) == b"masks"
    path = tmp_path / "wh" / "reading_masks" / key(1) / f"{row['reading_id']}.dcm"
    path.write_bytes(b"other")
    with pytest.raises(CacError, match="not those that were signed"):
        read_masks(store, found)
    path.unlink()
    with pytest.raises(CacError, match="are missing"):
        read_masks(store, found)


@pytest.mark.parametrize("reader", ["", " x", "../x", "<b>", "x" * 70, "a\nb"])
def test_a_row_that_breaks_the_schema_is_not_written(tmp_path: Path, reader: str) -> None:
    store = Warehouse(tmp_path / "wh")
    with pytest.raises(InvalidTableError):
        sign(store, reading_row(reader=reader), b"masks")
    assert not (tmp_path / "wh" / "reading_masks").exists()


def test_readers_who_sign_at_once_lose_nothing_also_while_a_run_writes(tmp_path: Path) -> None:
    store = Warehouse(tmp_path / "wh")
    log = ReadingLog(store)

    def reader(name: str) -> None:
        own = Warehouse(tmp_path / "wh")
        for n in range(10):
            sign(own, reading_row(n, name), f"{name} {n}".encode())

    with store.lock():
        threads = [threading.Thread(target=reader, args=(name,)) for name in "ABCD"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert log.refresh() and not log.refresh()
    assert len(read_readings(store).rows) == len(log.readings.rows) == 40


_SIGNER = """
import sys
from cac_core.cohort.warehouse import Warehouse
from cac_core.reading.readings import sign
from tests.builders.readings import reading_row
store = Warehouse(sys.argv[1])
for n in range(10_000):
    row = reading_row(n)
    sign(store, row, b"masks of %d" % n)
    print(row["reading_id"], flush=True)
"""


def test_kill_at_any_moment_loses_no_signed_reading(tmp_path: Path) -> None:
    signed: set[str] = set()
    for n in range(3):
        command = [sys.executable, "-c", _SIGNER, str(tmp_path / str(n))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            signed = {process.stdout.readline().strip()}
            time.sleep(0.05 + 0.07 * n)
            os.kill(process.pid, signal.SIGKILL)
            signed |= {line.strip() for line in process.stdout if len(line) == 33}
        store = Warehouse(tmp_path / str(n))
        found = {row["reading_id"]: row for row in read_readings(store).rows}
        assert signed <= set(found)
        for row in found.values():
            assert read_masks(store, row).startswith(b"masks of ")
