"""A short run of the fuzzer; `python -m tests.fuzz.run` does the long one."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.run import Fuzzer
from tests.fuzz.targets import Targets


def test_what_reads_foreign_bytes_neither_crashes_nor_hangs_nor_leaks(tmp_path: Path) -> None:
    fuzzer = Fuzzer(20260101, 0, 1500, Targets(tmp_path, None))
    fuzzer.run()
    assert not any(fuzzer.findings.values())
