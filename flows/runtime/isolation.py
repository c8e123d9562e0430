"""What lies around a process and must not decide what a run does.

Variables, files in the current folder and proxies that are meant for other programs: a run that has
a Prefect API of its own takes none of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_KEPT = ("PREFECT_HOME", "PREFECT_CLI_WRAP_LINES", "PREFECT_SERVER_ANALYTICS_ENABLED")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def flag(name: str) -> bool:
    """Whether a variable of the environment says yes: not if it is empty, 0, false, no or off."""
    value = os.environ.get(name, "").strip().lower()
    return value not in ("", "0", "false", "no", "off", "n", "f")


def working_folder() -> Path:
    """The current folder, or the root where it is gone or closed to this user."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


@contextlib.contextmanager
def settled(home: Path) -> Iterator[None]:
    """Prefect and its HTTP client know only what is set here, until this ends; then all as before.

    Prefect reads `PREFECT_*`, profiles, and `.env`, `prefect.toml` and `pyproject.toml` of the
    current folder when it is imported. Another server's database, key or profile there would make
    a run on this machine write elsewhere, or not start.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith("PREFECT_") and name not in _KEPT and "LOGGING" not in name:
            del os.environ[name]
    os.environ["PREFECT_PROFILES_PATH"] = str(home / "no-profiles.toml")
    # Where it finds no address Prefect would start a server that answers everybody.
    os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def load_prefect(home: Path) -> None:
    """Import Prefect, with the settings of the environment as it is now and of no file."""
    with _inside(home):
        import prefect.context

        # Where it was imported before, it still has the settings of that moment.
        prefect.context.refresh_global_settings_context()
        _make_loopback_direct()


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # also of a folder that is gone
    try:
        os.chdir(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.fchdir(back)
        os.close(back)


def _make_loopback_direct() -> None:
    """Keep calls to our own API from proxies that the site has set for the world outside.

    A client builds a connection for every proxy that is set, also where it will use none; one
    of a kind that cannot be used here would end the run, so it is taken out.
    """
    import httpx

    for name in (*_PROXIES, *map(str.lower, _PROXIES)):
        value = os.environ.get(name)
        if not value:
            continue
        url = value if "://" in value else f"http://{value}"
        try:
            httpx.HTTPTransport(proxy=httpx.Proxy(url), verify=False).close()
        except (ImportError, ValueError, httpx.InvalidURL):
            del os.environ[name]
    for name in ("NO_PROXY", "no_proxy"):
        listed = os.environ.get(name, "")
        if "127.0.0.1" not in listed.split(","):
            os.environ[name] = f"{listed},127.0.0.1".lstrip(",")
    try:
        httpx.Client(verify=False).close()
    except (ImportError, ValueError, httpx.InvalidURL):  # an exception that httpx cannot read
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
