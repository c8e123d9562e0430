"""Isolation of a run from settings meant for other programs.

A run with its own Prefect API ignores Prefect's variables, configuration files in the current
folder, and proxies.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_KEPT = ("PREFECT_HOME", "PREFECT_CLI_WRAP_LINES", "PREFECT_SERVER_ANALYTICS_ENABLED")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def flag(name: str) -> bool:
    """Whether an environment variable is on: not if it is unset, empty, 0, false, no or off."""
    value = os.environ.get(name, "").strip().lower()
    return value not in ("", "0", "false", "no", "off", "n", "f")


def working_folder() -> Path:
    """The current folder, or the root if it was removed or is not accessible."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


@contextlib.contextmanager
def isolated_settings(home: Path) -> Iterator[None]:
    """Restrict the settings of Prefect to those set inside; restores the environment at the end.

    On import, Prefect reads `PREFECT_*`, profiles, and `.env`, `prefect.toml` and `pyproject.toml`
    of the current folder. A database, key or profile of another server there would redirect the
    run, or keep it from starting.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith("PREFECT_") and name not in _KEPT and "LOGGING" not in name:
            del os.environ[name]
    os.environ["PREFECT_PROFILES_PATH"] = str(home / "no-profiles.toml")
    # Without an address, Prefect would start a server without authentication.
    os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def load_prefect(home: Path) -> None:
    """Import Prefect with the settings of the current environment, without any file."""
    with _inside(home):
        import prefect.context

        # If it was imported before, it still has the settings of that time.
        prefect.context.refresh_global_settings_context()
        _make_loopback_direct()


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # works for a removed folder too
    try:
        os.chdir(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.fchdir(back)
        os.close(back)


def _make_loopback_direct() -> None:
    """Exclude the run's own API from the proxies of the site.

    A client opens a transport for every configured proxy, even for unused ones. A proxy of an
    unsupported kind would end the run, so its variable is removed.
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
    except (
        ImportError,
        ValueError,
        httpx.InvalidURL,
    ):  # an entry of NO_PROXY that httpx cannot parse
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
