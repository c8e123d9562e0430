"""The process environment of a run, set before Prefect is first imported.

No telemetry leaves the machine, no server has to be installed, and leftovers of a killed run are
cleaned up by the next.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cac_core.errors import CacError
from cac_core.scratch import scratch_folder
from flows.runtime.isolation import isolated_settings, load_prefect, working_folder

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

#: Receives a line of text for the user.
Say = Callable[[str], None]

#: The work pool of the deployments in prefect.yaml.
POOL = "cac"
_FORCED = {
    # Both are needed: the server has a separate analytics switch.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
#: Prefect's folder below the private folder.
_OWN_HOME = "prefect"
_DEFAULTS = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    # The log of a flow run goes to the API and not to the terminal, which shows the progress.
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_CLI_WRAP_LINES": "false",
}
#: Variables that name cache folders of libraries, and our folder for each.
_CACHES = {"MPLCONFIGDIR": "matplotlib", "NUMBA_CACHE_DIR": "numba", "XDG_CACHE_HOME": "cache"}


def prepare_environment(say: Say = lambda text: None) -> Path:
    """Set the defaults that a run needs, keep the settings of the site, and return Prefect's home.

    If the user has no writable home folder, Prefect gets a private temporary one that is removed
    when this process ends.

    Raises
    ------
    CacError
        If PREFECT_HOME names a folder that cannot be written.
    """
    os.environ.update(_FORCED)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    named = os.environ.get("PREFECT_HOME")
    if named:
        home = _named_home(named)
    else:
        try:
            home = _data_home() / "cac-cohort" / "prefect"
            _make_private(home)
        except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home folder
            reason = (error.strerror if isinstance(error, OSError) else None) or "no home folder"
            home = private_folder() / _OWN_HOME
            home.mkdir(mode=0o700, exist_ok=True)
            say(
                f"Prefect's records of this run are not kept ({reason}). To keep them, set "
                "XDG_DATA_HOME or PREFECT_HOME to a writable folder."
            )
    os.environ["PREFECT_HOME"] = str(home)
    return home


def records_folder() -> Path | None:
    """Prefect's folder on this machine, with the records of runs; None if there is none."""
    named = os.environ.get("PREFECT_HOME")
    try:
        home = Path(named).expanduser() if named else _data_home() / "cac-cohort" / "prefect"
    except RuntimeError:  # the user has no home folder
        return None
    return home if home.is_dir() else None


def prepare_caches() -> None:
    """Give libraries a temporary cache folder if that of the user is not writable."""
    if _usable_home():
        return
    for name, folder in _CACHES.items():
        if not os.environ.get(name):
            os.environ[name] = str(private_folder() / folder)


def private_folder() -> Path:
    """A temporary folder that only this user can access, removed when this process ends."""
    global _private
    if _private is None:
        scratch = contextlib.ExitStack()
        _private = scratch.enter_context(scratch_folder("cac-private-", leaving=_end_server))
        atexit.register(_remove, scratch, os.getpid())
    return _private


_private: Path | None = None


def _remove(scratch: contextlib.ExitStack, owner: int) -> None:
    if os.getpid() == owner:
        scratch.close()


def _end_server(folder: Path) -> None:
    from flows.runtime.prefect_api import end_left_behind

    end_left_behind(folder / _OWN_HOME)


@contextlib.contextmanager
def prefect_api(
    home: Path, say: Say = lambda text: None, meanwhile: Callable[[], object] = lambda: None
) -> Iterator[Callable[[], None]]:
    """Provide a Prefect API: that of the site, or a server on loopback for this run.

    With `PREFECT_API_URL` set, the run reports to that server. Otherwise a server is started in its
    own session, so that Ctrl-C in the terminal reaches the run but not the API, to which the run
    reports the interruption; it requires a password of this run. Servers that a killed run
    (`kill -9`) left behind are recorded in files and ended first.

    Yields a function that waits until the API answers and raises CacError if it does not: the
    server starts while the caller imports Prefect, and calls `meanwhile`.
    """
    if site_api():
        yield ask_site_api
        return
    # Imports psutil, which a command without a server does not need.
    from flows.runtime.prefect_api import OwnApi, end_left_behind

    end_left_behind(home)
    with isolated_settings(home):
        api = OwnApi(home, say, meanwhile)
        try:
            api.start()
            yield api.wait
        finally:
            api.stop()


@contextlib.contextmanager
def site_reporting() -> Iterator[Callable[[], None] | None]:
    """Report a job that runs in one process to the site's Prefect API, if there is one.

    Yields `ask_site_api`, to be called before the flow, or None without such an API: then the job
    runs as plain functions, without a server.
    """
    home = prepare_environment()
    if site_api():
        yield ask_site_api
        return
    with isolated_settings(home):
        load_prefect(home)  # the modules of the flows import it
        yield None


def site_api() -> str | None:
    """Address of the site's Prefect API, if one is set."""
    return os.environ.get("PREFECT_API_URL") or None


def ask_site_api() -> None:
    """Check that the site's Prefect API answers.

    Raises
    ------
    CacError
        If it does not answer or is unhealthy, is no Prefect API or one of a version that does not
        fit, requires a password, cannot reach its database, or a proxy cannot be used.
    """
    try:
        # Prefect's client uses the proxy, certificates and keys of the site.
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            problem = client.api_healthcheck()
            if problem is None:
                _require_fitting(client)
                _require_database(client)
    except ImportError as error:
        raise CacError(
            f"The Prefect API at {site_api()} needs a proxy whose support is not installed "
            f"({error.msg.split('.')[0]}).",
            "Install it with: pip install 'httpx[socks]'; or unset ALL_PROXY, HTTP_PROXY and "
            "HTTPS_PROXY.",
        ) from None
    except ValueError as error:  # malformed URL of the proxy or the API
        raise CacError(
            f"The Prefect API at {site_api()} cannot be reached ({type(error).__name__}).",
            "Correct PREFECT_API_URL, or the proxy named by ALL_PROXY, HTTP_PROXY or HTTPS_PROXY.",
        ) from None
    if problem is not None:
        raise CacError(
            f"The Prefect API at {site_api()} does not answer ({problem}).",
            "Start that server, correct PREFECT_API_URL, or unset it to run without a site server.",
        )


def work_pool(name: str) -> bool:
    """Whether the site's Prefect server has a work pool of this name."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            return False
        return True


def _require_fitting(client: SyncPrefectClient) -> None:
    """Check that a server is Prefect's, lets us in, and is not older than this installation."""
    import httpx
    from prefect import __version__ as here

    try:
        there = str(client.api_version())
        numbers = [tuple(map(int, text.split(".")[:2])) for text in (there, here)]
    except (httpx.HTTPError, ValueError) as error:
        answer = getattr(error, "response", None)
        if answer is not None and answer.status_code in (401, 403):
            raise CacError(
                f"The Prefect API at {site_api()} requires a password.",
                "Set PREFECT_API_AUTH_STRING to that of the server.",
            ) from None
        raise CacError(
            f"What answers at {site_api()} is not the API of a Prefect server.",
            "Correct PREFECT_API_URL: it ends in /api, e.g. http://prefect.example:4200/api.",
        ) from None
    if numbers[0] < numbers[1] or numbers[0][0] != numbers[1][0]:
        raise CacError(
            f"The Prefect server at {site_api()} has version {there}, this installation {here}.",
            f"Install Prefect {here} or a later {here.split('.')[0]}.x there, or unset "
            "PREFECT_API_URL to run without a site server.",
        )


def _require_database(client: SyncPrefectClient) -> None:
    """Check that a server reaches its database; it is healthy without one."""
    import httpx
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    try:
        # With Prefect's five attempts, each command would wait a minute.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):
            client.request("GET", "/ready")
    except httpx.HTTPError:
        raise CacError(
            f"The Prefect server at {site_api()} does not reach its database.",
            "Start that database (PostgreSQL), or unset PREFECT_API_URL to run without a site "
            "server.",
        ) from None


def _named_home(named: str) -> Path:
    try:
        home = working_folder() / Path(named).expanduser()
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(home, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13))
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no home folder"
        raise CacError(
            f"The folder {named} of PREFECT_HOME cannot be written ({reason}).",
            "Name another folder, or unset PREFECT_HOME.",
        ) from None
    return home


def _make_private(home: Path) -> None:
    """Create the folder, or restrict an existing one to its owner.

    It holds the warehouse path and the counts of each run.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if home.stat().st_mode & 0o077:
        home.chmod(0o700)
    with tempfile.TemporaryFile(dir=home):
        pass  # fails on a read-only mount, or in a folder of another user


def _data_home() -> Path:
    named = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG Base Directory Specification requires ignoring relative paths.
    return named if named.is_absolute() else Path.home() / ".local" / "share"


def _usable_home() -> bool:
    """Whether libraries can create their folders in the user's home."""
    try:
        home = Path.home()
        return all(
            os.access(_existing(home / name), os.W_OK | os.X_OK) for name in (".cache", ".config")
        )
    except (OSError, RuntimeError):
        return False


def _existing(path: Path) -> Path:
    """The folder itself, or its nearest existing parent."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
