"""A short run of the fuzzer; `python -m tests.fuzz.run` does the long one."""

from __future__ import annotations

import subprocess
import sys


def test_what_reads_foreign_bytes_neither_crashes_nor_hangs_nor_leaks() -> None:
    """In a process of its own: its children, forked beside other threads, could not go on."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", "--count", "1500", "--seed", "20260101"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
