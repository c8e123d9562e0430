"""Only the run itself can talk to its scheduler and workers, since they unpickle messages."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster, Worker
from distributed.security import Security

from cac_core.cluster_settings import ClusterSettings
from cac_core.errors import CacError, UsageError
from cac_core.processes import end_processes
from flows.runtime import dask_cluster
from flows.runtime.dask_cluster import cluster_client
from flows.runtime.worker_server import start_method
from tasks.worker import CascadePlugin

#: Tries every way in: plain, HTTP, TLS without a certificate, TLS with one that we made ourselves.
_INTRUDER = """
import socket, ssl, sys
certificate, *ports = sys.argv[1:]
def ways():
    yield "plain", None
    for own in (False, True):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if own:
            context.load_cert_chain(certificate)
        yield f"tls {own}", context
for port in map(int, ports):
    for name, context in ways():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
                raw.settimeout(10)
                channel = context.wrap_socket(raw) if context else raw
                channel.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                answer = channel.recv(100)
        except OSError as error:
            answer = b""
        # A TLS alert (type 21) is the refusal of a server that was spoken to in plain text.
        if answer and answer[:1] != b"\\x15":
            print(f"{name} at {port}: {answer!r}")
print("done")
"""


@pytest.fixture(scope="module")
def others() -> set[int]:
    """Ports that were listened on before the run, by the Prefect server of other tests."""
    return listening()


@pytest.fixture(scope="module")
def client(others: set[int]) -> Iterator[Client]:
    os.environ["CAC_LINKAGE_KEY"] = "the secret of the run"
    with cluster_client(ClusterSettings(workers=1)) as client:
        yield client
    assert os.environ.pop("CAC_LINKAGE_KEY") == "the secret of the run"


def listening() -> set[int]:
    """Ports that this process and its children listen on."""
    me = psutil.Process()
    return {
        connection.laddr.port
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.fixture(scope="module")
def ports(others: set[int], client: Client) -> list[int]:
    """Ports of the run: its scheduler, nanny and worker."""
    ports = sorted(listening() - others)
    assert len(ports) >= 3
    return ports


def own_certificate(folder: Path) -> Path:
    """A certificate that nobody but its maker trusts, with its key."""
    security = Security.temporary()
    path = folder / "own.pem"
    path.write_text(security.tls_client_cert + security.tls_client_key)
    path.chmod(0o644)
    return path


def test_every_port_requires_the_certificate_of_the_run(ports: list[int], tmp_path: Path) -> None:
    command = [sys.executable, "-c", _INTRUDER, own_certificate(tmp_path), *map(str, ports)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "done\n"


def test_another_user_is_refused(
    ports: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user, with setpriv")
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    python = Path(sys.executable).resolve()
    if subprocess.run([*as_nobody, python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("user 65534 may not run this Python")
    # On stdin, for the folders of the tests are closed to other users.
    certificate = own_certificate(tmp_path_factory.mktemp("intruder"))
    script = "import os,tempfile\nf = tempfile.NamedTemporaryFile('w')\n" + (
        f"f.write({certificate.read_text()!r}); f.flush()\n"
        f"import sys; sys.argv[1:] = [f.name, *{[str(port) for port in ports]}]\n"
    )
    script += "assert os.getuid() == 65534\n" + _INTRUDER
    for process in psutil.Process().children(recursive=True):
        script += (
            f"try: open('/proc/{process.pid}/environ').read(); print('environment read')\n"
            "except PermissionError: pass\n"
        )
    done = subprocess.run(
        [*as_nobody, python, "-"], input=script, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_dask_client_without_the_certificate_is_refused(client: Client) -> None:
    address = client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    for url, security in (
        (address.replace("tls://", "tcp://"), None),
        (address, Security.temporary()),
    ):
        with pytest.raises((OSError, TimeoutError)):
            Client(url, timeout="2s", security=security)


def test_workers_do_not_get_the_secret(client: Client) -> None:
    inherited = client.run(lambda: dict(os.environ))
    assert inherited
    for environment in inherited.values():
        assert "CAC_LINKAGE_KEY" not in environment


def test_workers_leave_ctrl_c_to_the_run(client: Client) -> None:
    """One that was still importing would print a traceback."""
    masks = client.run(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    assert masks and all(signal.SIGINT in mask for mask in masks.values())


def test_dask_configuration_of_the_user_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "preload.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    import dask

    with (
        dask.config.set(
            {
                "distributed.worker.preload": [str(tmp_path / "preload.py")],
                "distributed.comm.tls.ca-file": "/nowhere.pem",
                "distributed.comm.default-scheme": "ucx",
                "scheduler-address": "tcp://127.0.0.1:1",
            }
        ),
        cluster_client(ClusterSettings(workers=1)) as client,
    ):
        assert client.submit(lambda: 3).result() == 3
    assert not marker.exists()


def test_a_cluster_leaves_no_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start_method()  # its folder is that of the process
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / f"cac-workers-{'0' * 32}"  # of a run that was killed
    left.mkdir()
    with pytest.raises(KeyboardInterrupt), cluster_client(ClusterSettings(workers=1)):
        (folder,) = tmp_path.iterdir()
        assert folder != left and folder.name.startswith("cac-workers-")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_an_abandoned_worker_is_ended() -> None:
    late = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    late.start()
    end_processes(set(multiprocessing.active_children()) - {late})
    assert not late.is_alive() and late.exitcode == -signal.SIGKILL


def test_options_that_would_open_the_cluster_are_refused() -> None:
    settings = ClusterSettings(workers=1, options={"protocol": "tcp://", "host": "0.0.0.0"})
    with (
        pytest.raises(UsageError, match=r"cluster\.options holds host, protocol"),
        cluster_client(settings),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"banana": 1, "nthreads": 1}, r"cluster\.options holds banana,"),
        ({"preload": "a.py", "security": 1, "n_workers": -1}, "holds n_workers, security"),
    ],
)
def test_options_that_no_worker_takes_are_named_at_once(
    options: dict[str, Any], named: str
) -> None:
    settings = ClusterSettings(workers=1, options=options)
    with pytest.raises(UsageError, match=named), cluster_client(settings):
        pass


def test_workers_whose_nannies_were_closed_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a restart takes longer than Dask waits; then it forgets the workers."""
    monkeypatch.setitem(dask_cluster._CONFIG, "distributed.deploy.lost-worker-timeout", "50ms")
    with cluster_client(ClusterSettings(workers=2)) as client:
        first = client.run(os.getpid)
        for pid in first.values():
            os.kill(pid, signal.SIGKILL)
        # Two others: the cluster is as wide as before.
        deadline = time.monotonic() + 60
        while len(now := set(client.nthreads())) < 2 or now & set(first):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert client.submit(lambda: 3).result(timeout=60) == 3


class Dies(CascadePlugin):
    """Takes its worker down in the midst of loading, the first time."""

    def setup(self, worker: Worker) -> None:
        """Die once."""
        marker = Path(str(self.folder))
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_lost_while_the_cluster_starts_costs_another_start() -> None:
    killed: list[int] = []
    start_method()
    others = set(psutil.Process().children(recursive=True))

    def kill_the_first() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            for child in set(psutil.Process().children(recursive=True)) - others:
                child.kill()
                killed.append(child.pid)
                return
            time.sleep(0.005)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    with cluster_client(ClusterSettings(workers=2)) as client:
        pids = set(client.run(os.getpid).values())
    killer.join()
    assert len(pids) == 2
    assert killed and not pids & set(killed)


def test_a_cluster_whose_workers_never_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def lost(**options: object) -> None:
        tried.append(options)
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(dask_cluster, "_ClosedLocalCluster", lost)
    with (
        pytest.raises(CacError, match=r"did not start, 3 times"),
        cluster_client(ClusterSettings(workers=1)),
    ):
        pass
    assert len(tried) == 3


def test_a_worker_lost_while_loading_is_replaced(tmp_path: Path) -> None:
    with cluster_client(ClusterSettings(workers=2), Dies(str(tmp_path / "once"), "")) as client:
        assert client.submit(lambda: 3).result() == 3
    assert (tmp_path / "once").exists()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A scheduler of a site that asks for certificates, and the folder of its files."""
    folder = tmp_path_factory.mktemp("tls")
    security = Security.temporary()
    for name, text in (
        ("ca.pem", security.tls_ca_file),
        ("run.pem", security.tls_client_cert),
        ("run.key", security.tls_client_key),
    ):
        (folder / name).write_text(text)
    other = Security.temporary()
    (folder / "other.pem").write_text(other.tls_client_cert)
    (folder / "other.key").write_text(other.tls_client_key)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, security=security, protocol="tls://",
        dashboard_address="127.0.0.1:0", host="127.0.0.1",
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address, folder


def by_address(site: tuple[str, Path], **files: str) -> ClusterSettings:
    address, folder = site
    named = {"tls_ca_file": "ca.pem", "tls_cert": "run.pem", "tls_key": "run.key"} | files
    paths = {name: folder / file for name, file in named.items()}
    return ClusterSettings(kind="address", address=address, **paths)  # type: ignore[arg-type]


def test_a_scheduler_by_address_uses_the_certificate_of_the_settings(
    site: tuple[str, Path],
) -> None:
    with cluster_client(by_address(site)) as client:
        assert client.submit(lambda: 3).result() == 3


@pytest.mark.parametrize(
    "files",
    [{"tls_cert": "other.pem", "tls_key": "other.key"}, {"tls_ca_file": "other.pem"}],
    ids=["ours is refused", "theirs is refused"],
)
def test_a_wrong_certificate_is_named(site: tuple[str, Path], files: dict[str, str]) -> None:
    began = dt.datetime.now()
    with (
        pytest.raises(CacError, match=r"do not accept each other's certificate") as reported,
        cluster_client(by_address(site, **files)),
    ):
        pass
    assert site[0] in str(reported.value)
    assert dt.datetime.now() - began < dt.timedelta(seconds=20)


def test_a_missing_file_and_a_silent_address_are_named(site: tuple[str, Path]) -> None:
    with (
        pytest.raises(UsageError, match=r"cluster\.tls_key: .*nowhere"),
        cluster_client(by_address(site, tls_key="nowhere")),
    ):
        pass
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        deaf = (f"tls://127.0.0.1:{taken.getsockname()[1]}", site[1])
        with (
            pytest.raises(CacError, match=r"No Dask scheduler answers at tls://"),
            cluster_client(by_address(deaf)),
        ):
            pass


def test_a_scheduler_that_requires_certificates_needs_them(
    site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.runtime.dask_cluster._CONNECT_S", 2.0)
    settings = ClusterSettings(kind="address", address=site[0].replace("tls://", "tcp://"))
    with pytest.raises(CacError, match="tls_ca_file"), cluster_client(settings):
        pass


def test_a_resource_that_no_worker_of_a_scheduler_offers_is_told(site: tuple[str, Path]) -> None:
    settings = by_address(site).model_copy(update={"study_resources": {"GPU": 1.0}})
    began = dt.datetime.now()
    with (
        pytest.raises(CacError, match=r"No worker offers GPU=1, .*--resources GPU=1"),
        cluster_client(settings),
    ):
        pass
    assert dt.datetime.now() - began < dt.timedelta(seconds=20)


def test_the_intruder_of_these_tests_can_enter_an_open_cluster() -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with LocalCluster(
        n_workers=0,
        processes=False,
        protocol="tcp://",
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
    ) as open_cluster:
        port = open_cluster.scheduler_address.rsplit(":", 1)[1]
        own = Security.temporary()
        assert own.tls_client_cert
        command = [sys.executable, "-c", _INTRUDER, "/nowhere", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert "plain at" in done.stdout
