"""Start of the command `cac`: checks that its packages belong together, then runs it.

The names of the packages `flows`, `tasks` and `schemas` are common. Where another program has a
package of such a name before ours, an import would fail in the middle of a command.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

_PACKAGES = ("flows", "tasks", "schemas")
_HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the command line, or end with a message if a package is not ours."""
    foreign = [name for name in _PACKAGES if not _is_ours(name)]
    if foreign:
        sys.stderr.write(
            f"cac: Another program's package {', '.join(foreign)} is found before ours. Install "
            "cac in an environment of its own (`pipx install cac-cohort`), and unset PYTHONPATH.\n"
        )
        sys.exit(1)
    importlib.import_module("flows.cli.start").main()


def _is_ours(name: str) -> bool:
    """Whether the package that an import would find lies beside this one."""
    found = importlib.util.find_spec(name)
    places = found.submodule_search_locations if found else None
    return bool(places) and Path(next(iter(places or ()))).resolve().parent == _HERE
