"""`cac deployment units`: systemd units of server and worker, and the script that installs them."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from cac_core.errors import CacError, UsageError
from flows.request import open_warehouse, read_settings
from flows.runtime.results_folder import require_new
from flows.serve import quoted

SERVER_UNIT, WORKER_UNIT, SCRIPT = (
    "cac-prefect-server.service",
    "cac-prefect-worker.service",
    "install.sh",
)
#: The user of the services where root writes the files.
_USER = "cac"
_NAME = re.compile(r"[a-z_][a-z0-9_-]*")


@dataclass(frozen=True)
class UnitsRequest:
    """Arguments of `cac deployment units`.

    Parameters
    ----------
    folder : of the files; it must not exist or be empty.
    config : settings file of the deployments, absolute.
    user : who runs the flows; by default who runs this command, or `cac` for root.
    port : of the server, on the loopback interface.
    runs_at_once : limit of the work pool.
    """

    folder: Path
    config: str
    user: str | None = None
    port: int = 4200
    runs_at_once: int = 2


def units(request: UnitsRequest) -> dict[str, str]:
    """Text of each file by its name.

    Raises
    ------
    UsageError
        If the settings are invalid, name no warehouse, or the user is no name of a user.
    """
    settings = read_settings(request.config)
    open_warehouse(None, settings)
    user = request.user or pwd.getpwuid(os.getuid()).pw_name
    if request.user is None and user == "root":
        user = _USER
    if not _NAME.fullmatch(user):
        raise UsageError(f"{user!r} is no name of a user.", "Name one with --user.")
    places = [str(settings.warehouse), str(settings.report.out or "")]
    folders = [place for place in places if place and not urlsplit(place).scheme]
    values = {
        "prefect": str(_program("prefect")),
        "cac": str(_program("cac")),
        "python": sys.executable,
        "config": request.config,
        "user": user,
        "port": request.port,
        "runs_at_once": request.runs_at_once,
        "writable": " ".join(map(quoted, folders)),
        "secret": settings.key_file is None,
    }
    templates = Environment(
        loader=PackageLoader("flows.deployment"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    templates.filters |= {"shell": shlex.quote, "unit": quoted}
    return {
        name: templates.get_template(f"{name}.j2").render(values)
        for name in (SERVER_UNIT, WORKER_UNIT, SCRIPT)
    }


def write_units(request: UnitsRequest) -> list[str]:
    """Write the files, the script executable, and return their paths.

    Raises
    ------
    UsageError
        As `units`, or if a file exists.
    CacError
        If a file cannot be written.
    """
    texts = units(request)
    for name in texts:
        require_new(request.folder / name)
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = request.folder / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755 if name == SCRIPT else 0o644)
    except OSError as error:
        raise CacError(
            f"The folder {request.folder} cannot be written ({error.strerror}).",
            "Name another folder.",
        ) from None
    return [str(request.folder / name) for name in texts]


def _program(name: str) -> Path:
    """A program beside the interpreter that runs this; both are installed together."""
    return Path(sys.executable).with_name(name)
