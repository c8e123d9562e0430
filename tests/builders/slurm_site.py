"""A SLURM of one node on the loopback interface, from the packages of the system."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ctld_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/node.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/node.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=1
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=night Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def slurm_site(folder: Path) -> Iterator[dict[str, str]]:
    """Start munge, controller and node; yield the variables of their users.

    Skips the test where the programs are missing, or where only root could start them.
    """
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here (Debian: slurmctld slurmd slurm-client munge)")
    if os.geteuid() != 0:
        pytest.skip("only root can start a node of SLURM")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    config = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    ports = {"ctld_port": free_port(), "node_port": free_port()}
    config.write_text(_CONFIG.format(folder=folder, host=host, **ports))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    variables = {"PATH": path, "SLURM_CONF": str(config)}
    key, log = folder / "munge.key", folder / "munge.log"
    subprocess.run([shutil.which("mungekey", path=path), "-c", "-k", key], check=True)
    with contextlib.ExitStack() as stack:
        munge = f"--key-file={key} --socket={folder}/munge.socket --pid-file={folder}/munge.pid"
        munge += f" --log-file={log} --seed-file={folder}/munge.seed --foreground --force"
        for command in (
            ["munged", *munge.split()],
            ["slurmctld", "-D", "-i", "-f", str(config)],
            ["slurmd", "-D", "-f", str(config)],
        ):
            stack.enter_context(_daemon(command, folder, variables))
        _wait_for_node(variables, folder)
        yield variables


@contextlib.contextmanager
def _daemon(command: list[str], folder: Path, variables: dict[str, str]) -> Iterator[None]:
    with (
        (folder / f"{command[0]}.out").open("w") as out,
        subprocess.Popen(
            command, env=os.environ | variables, stdout=out, stderr=out, start_new_session=True
        ) as process,
    ):
        try:
            time.sleep(1)
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for_node(variables: dict[str, str], folder: Path) -> None:
    command = ["sinfo", "-h", "-o", "%T"]
    deadline = time.monotonic() + 60
    while True:
        said = subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, check=False
        )
        if said.stdout.strip() == "idle":
            return
        if time.monotonic() > deadline:
            logs = "\n".join(p.read_text()[-1500:] for p in sorted(folder.glob("*.[lo][ou][gt]")))
            pytest.fail(f"no node of SLURM: {said.stdout}{said.stderr}\n{logs}")
        time.sleep(0.5)
