"""The process environment of a run, set before Prefect is imported for the first time.

Nothing leaves the machine, nothing needs a server to be set up, and a run that was killed leaves
nothing that the next one has to live with.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cac_core.errors import CacError
from cac_core.scratch import scratch_folder
from flows.runtime.isolation import load_prefect, settled, working_folder
from flows.runtime.prefect_api import OwnApi, end_left_behind

#: Said for a run that starts on a busy machine; takes a line for people.
Say = Callable[[str], None]

_FORCED = {
    # Both are needed: the server has an analytics switch of its own.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
#: Prefect's folder below the private one.
_OWN_HOME = "prefect"
_DEFAULTS = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_CLI_WRAP_LINES": "false",
}
#: Folders of libraries that keep something for the next process, and what they are below.
_CACHES = {"MPLCONFIGDIR": "matplotlib", "NUMBA_CACHE_DIR": "numba", "XDG_CACHE_HOME": "cache"}


def prepare_environment(say: Say = lambda text: None) -> Path:
    """Set the defaults a run needs, keep what the site has set, and give the Prefect home.

    Where the user has no home folder that can be written, Prefect gets a private temporary one
    that is removed when this process ends.

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
        except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home at all
            reason = (error.strerror if isinstance(error, OSError) else None) or "no home folder"
            home = private_folder() / _OWN_HOME
            home.mkdir(mode=0o700, exist_ok=True)
            say(
                f"Prefect's records of this run are not kept: {reason}. Set XDG_DATA_HOME or "
                "PREFECT_HOME to a folder that can be written to keep them."
            )
    os.environ["PREFECT_HOME"] = str(home)
    return home


def prepare_caches() -> None:
    """Give libraries a temporary folder for what they keep, where the user's cannot be written."""
    if _usable_home():
        return
    for name, folder in _CACHES.items():
        if not os.environ.get(name):
            os.environ[name] = str(private_folder() / folder)


def private_folder() -> Path:
    """A folder that only this user can enter, gone when this process ends."""
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
    end_left_behind(folder / _OWN_HOME)


@contextlib.contextmanager
def prefect_api(home: Path, say: Say = lambda text: None) -> Iterator[Callable[[], None]]:
    """Have a Prefect API for as long as this lasts: the site's, or one of our own on loopback.

    With `PREFECT_API_URL` set the run reports to that server. Else one is started in a session of
    its own, so that Ctrl-C in the terminal reaches the run but not the API that the run still
    has to tell about it; it answers only those who know a secret of this run. What a killed run
    (`kill -9`) left behind is on file and ended first; servers a site started itself are in no
    such file.

    Yields a function that waits until the API answers, and raises CacError if it does not:
    the server starts while the caller imports Prefect.
    """
    if site_api():
        yield ask_site_api
        return
    end_left_behind(home)
    with settled(home):
        api = OwnApi(home, say)
        try:
            api.start()
            yield api.wait
        finally:
            api.stop()


@contextlib.contextmanager
def site_reporting() -> Iterator[Callable[[], None] | None]:
    """For a job that fans nothing out: report it to the site's Prefect API, or to none.

    Yields `ask_site_api`, to be called before its flow; None where there is no such API: then the
    job runs as plain functions, and no server is started for it.
    """
    home = prepare_environment()
    if site_api():
        yield ask_site_api
        return
    with settled(home):
        load_prefect(home)  # the modules of the flows import it
        yield None


def site_api() -> str | None:
    """Address of the Prefect API that the site has set, if it has."""
    return os.environ.get("PREFECT_API_URL") or None


def ask_site_api() -> None:
    """Ask the site's own Prefect API whether it is there.

    Raises
    ------
    CacError
        If it does not answer, or says that it is not well, or a proxy is named that cannot be used.
    """
    try:
        # Prefect's client knows the site's proxy, certificates and keys. Imported late: see above.
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            problem = client.api_healthcheck()
    except ImportError as error:
        raise CacError(
            f"The Prefect API at {site_api()} is to be reached through a proxy of a kind that is "
            f"not installed ({error.msg.split('.')[0]}).",
            "Install it with: pip install 'httpx[socks]'; or unset ALL_PROXY, HTTP_PROXY and "
            "HTTPS_PROXY.",
        ) from None
    except ValueError as error:  # no proxy URL at all, or no address of an API
        raise CacError(
            f"The Prefect API at {site_api()} cannot be asked ({type(error).__name__}).",
            "Correct PREFECT_API_URL, or the proxy named by ALL_PROXY, HTTP_PROXY or HTTPS_PROXY.",
        ) from None
    if problem is not None:
        raise CacError(
            f"The Prefect API at {site_api()} does not answer ({problem}).",
            "Start that server, correct PREFECT_API_URL, or unset it: then each run has its own.",
        )


def _named_home(named: str) -> Path:
    try:
        home = working_folder() / Path(named).expanduser()
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(home, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13))
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no home folder"
        raise CacError(
            f"The folder {named} that PREFECT_HOME names cannot be written ({reason}).",
            "Name another, or unset PREFECT_HOME.",
        ) from None
    return home


def _make_private(home: Path) -> None:
    """Make our own folder, or close the one of an earlier version to other users.

    It holds the warehouse's path and counts of each run.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if home.stat().st_mode & 0o077:
        home.chmod(0o700)
    with tempfile.TemporaryFile(dir=home):
        pass  # a read-only mount, or a folder of another user


def _data_home() -> Path:
    named = Path(os.environ.get("XDG_DATA_HOME", ""))
    # A relative one is invalid (XDG Base Directory Specification) and to be ignored.
    return named if named.is_absolute() else Path.home() / ".local" / "share"


def _usable_home() -> bool:
    """Whether libraries can make their folders where they look for them."""
    try:
        home = Path.home()
        return all(
            os.access(_existing(home / name), os.W_OK | os.X_OK) for name in (".cache", ".config")
        )
    except (OSError, RuntimeError):
        return False


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
