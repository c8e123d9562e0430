"""Validation of DICOM objects by independent programs, as far as they are installed.

dciodvfy (dicom3tools) checks attributes, codes and templates against the standard; dsrdump (dcmtk)
reads the content tree of a report.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import which

_SECONDS = 60.0
_CHECKED = re.compile(r"^(?:Error|E:|F:)", re.MULTILINE)
#: A value in a message can be an identifier: what it quotes is left out.
_QUOTED = re.compile(r"(?<!Element=)(?<!Module=)(?<!attribute )<[^>]*>|'[^']*'|\"[^\"]*\"|= [^<]*$")


def validators() -> dict[str, tuple[Path, ...]]:
    """The validators of this machine by program: on the path, and beside this Python."""
    found: dict[str, tuple[Path, ...]] = {}
    for program in ("dciodvfy", "dsrdump"):
        beside = Path(sys.executable).parent / program
        places = dict.fromkeys(
            Path(os.path.realpath(place)) for place in (which(program), beside) if place
        )
        found[program] = tuple(place for place in places if os.access(place, os.X_OK))
    return found


def faults(path: Path, *, is_report: bool) -> list[str]:
    """Errors that any validator finds in an object, without the values that they quote.

    Parameters
    ----------
    is_report : whether the object is an SR document, which dsrdump reads.
    """
    places = validators()
    wanted = [*places["dciodvfy"], *(places["dsrdump"] if is_report else ())]
    return [fault for program in wanted for fault in _run(program, path)]


def _run(program: Path, path: Path) -> list[str]:
    try:
        done = subprocess.run([program, path], capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [f"{program.name}: took more than {_SECONDS:.0f} s"]
    text = (done.stderr + b"\n" + done.stdout).decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if _CHECKED.match(line)]
    if not lines and done.returncode < 0:
        lines = [f"ended by signal {-done.returncode}"]
    return [f"{program.name}: {_QUOTED.sub('...', line)}" for line in lines]
