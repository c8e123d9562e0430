"""The server that forks workers: what it has loaded, where its socket is, what its workers know."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest

from cac_core.cluster_settings import ClusterSettings
from flows.runtime.dask_cluster import cluster_client
from flows.runtime.worker_server import start_method


def servers() -> list[psutil.Process]:
    """The servers of this process."""
    return [
        child
        for child in psutil.Process().children()
        if any("forkserver" in word for word in child.cmdline())
    ]


def state() -> dict[str, object]:
    """What a worker knows of itself."""
    return {
        "parent": os.getppid(),
        "torch": "torch" in sys.modules,
        "secret": os.environ.get("CAC_LINKAGE_KEY"),
        "late": os.environ.get("CAC_SET_LATER"),
        "threads": os.environ["OMP_NUM_THREADS"],
    }


def test_workers_are_forked_with_their_libraries_by_a_server_with_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAC_LINKAGE_KEY", "the secret of the run")
    assert start_method() == "forkserver"
    (server,) = servers()
    monkeypatch.setenv("CAC_SET_LATER", "1")
    with cluster_client(ClusterSettings(workers=2)) as client:
        found = list(client.run(state).values())
        # A process with several threads cannot be forked safely.
        assert server.num_threads() == 1
    expected = {"parent": server.pid, "torch": True, "secret": None, "late": "1", "threads": "1"}
    assert found == [expected] * 2
    assert "CAC_LINKAGE_KEY" not in server.environ()
    assert os.environ["CAC_LINKAGE_KEY"] == "the secret of the run"
    assert "PYTHONSAFEPATH" not in os.environ


def test_a_server_that_died_is_replaced() -> None:
    start_method()
    (server,) = servers()
    server.send_signal(signal.SIGKILL)
    with cluster_client(ClusterSettings(workers=1)) as client:
        assert next(iter(client.run(state).values()))["torch"] is True
    assert [one.pid for one in servers()] != [server.pid]


_IN_A_PROCESS = """
import multiprocessing, os, sys
from flows.runtime.worker_server import start_method
if __name__ == "__main__":
    print(start_method())
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=print, args=("forked",), kwargs={"flush": True})
    process.start(); process.join()
    print(process.exitcode, flush=True)
    if sys.argv[1:]:
        os.kill(os.getpid(), 9)
"""


def run(folder: Path, place: Path, *arguments: str) -> list[str]:
    """Start a server and a worker by a script in `folder` whose temporary folder is `place`."""
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(_IN_A_PROCESS)
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env=os.environ | {"TMPDIR": str(place)}, cwd=folder.parent, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary folder whose path is short."""
    place = Path(f"/tmp/t{os.getpid()}")
    place.mkdir(mode=0o700)
    yield place
    place.rmdir()


def test_modules_of_the_current_folder_are_not_loaded(tmp_path: Path, short: Path) -> None:
    (tmp_path / "torch.py").write_text("open('loaded', 'w')\n")
    assert run(tmp_path / "scripts", short) == ["forkserver", "forked", "0"]
    assert not (tmp_path / "loaded").exists()


def test_the_socket_of_a_killed_run_is_removed_by_the_next(tmp_path: Path, short: Path) -> None:
    assert run(tmp_path / "scripts", short, "killed") == ["forkserver", "forked", "0"]
    assert [path.name[:11] for path in short.iterdir()] == ["cac-server-"]
    assert run(tmp_path / "scripts", short) == ["forkserver", "forked", "0"]
    assert list(short.iterdir()) == []


def test_a_long_temporary_folder_is_no_place_for_a_socket(tmp_path: Path) -> None:
    place = tmp_path / ("long" * 30)
    place.mkdir()
    assert run(tmp_path / "scripts", place) == ["forkserver", "forked", "0"]
    assert list(place.iterdir()) == []


def test_a_server_ends_with_its_process_also_while_it_imports() -> None:
    script = "from flows.runtime.worker_server import start_method\nprint(start_method())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True,
        env=os.environ | {"CAC_TEST_MARK": str(os.getpid())},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("forkserver\n", "")
    for process in psutil.process_iter(["environ", "cmdline"]):
        if (process.info["environ"] or {}).get("CAC_TEST_MARK") == str(os.getpid()):
            assert not any("forkserver" in word for word in process.info["cmdline"])


def test_without_a_server_each_worker_imports_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError

    monkeypatch.setattr(forkserver, "ensure_running", refused)
    assert start_method() == "spawn"
    with cluster_client(ClusterSettings(workers=1)) as client:
        assert next(iter(client.run(state).values()))["parent"] == os.getpid()
