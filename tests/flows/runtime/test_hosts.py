"""A cluster of several hosts, one of which is cut off in the midst of a run."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from distributed.security import Security

from cac_core.cohort.warehouse import Warehouse
from schemas.score import SCORES
from tests.builders.hosts import Host, network
from tests.builders.slurm_site import free_port
from tests.flows.conftest import Scored

#: Columns that tell one run from another.
_OF_RUN = ("run_id", "scored_at", "seconds_")


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Path]:
    """Authority, certificate and key, as scheduler, workers and run use them."""
    security = Security.temporary()
    files = {
        "ca-file": security.tls_ca_file,
        "cert": security.tls_client_cert,
        "key": security.tls_client_key,
    }
    for name, text in files.items():
        (tmp_path / f"{name}.pem").write_text(text)
    return {name: tmp_path / f"{name}.pem" for name in files}


@contextlib.contextmanager
def dask_process(
    command: str, *arguments: str, log: Path, on: Host | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    program = [sys.executable, "-m", f"distributed.cli.dask_{command}", *arguments]
    with (
        log.open("w") as out,
        subprocess.Popen(
            [*(on.enter if on else ()), *program],
            stdout=out, stderr=out, env=os.environ | {"OMP_NUM_THREADS": "1"},
        ) as process,
    ):  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def table(warehouse: Path) -> list[dict[str, Any]]:
    """Rows of all studies, in order, without what tells one run from another."""
    (model,) = Warehouse(warehouse).models()
    rows = Warehouse(warehouse).read(SCORES, model).to_pylist()
    kept = [{k: v for k, v in row.items() if not k.startswith(_OF_RUN)} for row in rows]
    return sorted(kept, key=lambda row: str(row["study_key"]))


@pytest.mark.slow
def test_a_host_that_is_cut_off_costs_no_study(
    scored: Scored,
    environment: dict[str, str],
    certificates: dict[str, Path],
    tmp_path: Path,
) -> None:
    tls = [part for name, path in certificates.items() for part in (f"--tls-{name}", str(path))]
    with network(3) as net, contextlib.ExitStack() as stack:
        address = f"tls://{net.address}:{free_port()}"
        place = ["--host", net.address, "--port", address.rpartition(":")[2], "--no-dashboard"]
        stack.enter_context(dask_process("scheduler", *place, *tls, log=tmp_path / "scheduler.log"))
        for host in net.hosts:
            options = ["--host", host.address, "--nthreads", "1", "--no-dashboard", *tls]
            options += ["--local-directory", str(tmp_path / host.name), "--death-timeout", "120"]
            log = tmp_path / f"{host.name}.log"
            stack.enter_context(dask_process("worker", address, *options, log=log, on=host))
        files = {f"tls_{name.replace('-', '_')}": str(path) for name, path in certificates.items()}
        config = tmp_path / "cac.toml"
        lines = {"kind": "address", "address": address} | files
        config.write_text("[cluster]\n" + "".join(f'{k} = "{v}"\n' for k, v in lines.items()))
        watch = stack.enter_context(
            Client(address, security=security_of(certificates), timeout=120, set_as_default=False)
        )
        watch.wait_for_workers(3, timeout=180)
        begin = time.monotonic()
        command = ("score", scored.archive, "-w", tmp_path / "wh", "--config", config)
        with started(environment, *command) as run:
            victim = busy_host(watch, net.hosts, run)
            victim.cut_off()
            assert run.wait(timeout=600) == 0
        assert time.monotonic() - begin < 600
        assert len(watch.nthreads()) == 2
    found, expected = table(tmp_path / "wh"), table(scored.warehouse)
    assert [row["study_key"] for row in found] == [row["study_key"] for row in expected]
    differing = {
        (number, name): (row[name], whole[name])
        for number, (row, whole) in enumerate(zip(found, expected, strict=True))
        for name in row
        if not same(row[name], whole[name])
    }
    assert differing == {}


def same(one: object, other: object) -> bool:
    """Equal; numbers up to their last bits, in which chances of categories were seen to differ."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return one == other


def security_of(files: dict[str, Path]) -> Security:
    return Security(
        require_encryption=True,
        tls_ca_file=str(files["ca-file"]),
        tls_client_cert=str(files["cert"]),
        tls_client_key=str(files["key"]),
    )


@contextlib.contextmanager
def started(environment: dict[str, str], *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on while the test does something to it."""
    command = [str(Path(sys.executable).with_name("cac")), *map(str, arguments)]
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def busy_host(watch: Client, hosts: tuple[Host, ...], run: subprocess.Popen[bytes]) -> Host:
    """A host that scores a study, after the first was scored."""
    done, last = set[str](), dict[str, tuple[str, ...]]()
    while run.poll() is None:
        now = {worker: tuple(map(str, keys)) for worker, keys in watch.processing().items()}
        for worker, keys in last.items():
            if set(keys) - set(now.get(worker, ())):
                done.add(worker)
        last = now
        for host in hosts:
            busy = [worker for worker, keys in now.items() if keys and host.address in worker]
            if busy and done:
                return host
        time.sleep(0.2)
    pytest.fail("the run ended before a host could be cut off")
