"""Jobs of SLURM end before their time limit and are replaced, on a real SLURM of one node."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import dask
import pyarrow.parquet as pq
import pytest

from cac_core.cluster_settings import ClusterSettings
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, UsageError
from cac_core.keys import Keyring
from cac_core.phantom.archive.write import write_archive
from flows.runtime.dask_cluster import cluster_client
from flows.runtime.slurm import SlurmJobs, lifetime_arguments, slurm_options, walltime_seconds
from schemas.score import SCORES
from tests.builders.slurm_site import slurm_site
from tests.flows.conftest import SECRET, Cac

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """dask-jobqueue leaves its temporary certificate files to the garbage collector."""
    yield
    gc.collect()


@pytest.mark.parametrize(
    ("text", "seconds"),  # the forms in the manual of sbatch, under --time
    [
        ("30", 30 * 60),
        ("2:30", 150),
        ("00:30:00", 1800),
        ("08:00:00", 8 * 3600),
        ("1-0", 86400),
        ("1-12:30", 86400 + 12 * 3600 + 1800),
        ("2-01:02:03", 2 * 86400 + 3600 + 120 + 3),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, seconds: int) -> None:
    assert walltime_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "noon", "0", "1:2:3:4", "-5", "8h"])
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no time limit"):
        walltime_seconds(text)


@pytest.mark.parametrize("walltime", ["00:01:00", "00:10:00", "00:30:00", "08:00:00", "7-0"])
def test_the_longest_life_ends_well_before_the_time_limit(walltime: str) -> None:
    name, lifetime, other, stagger = lifetime_arguments(walltime)
    assert (name, other) == ("--lifetime", "--lifetime-stagger")
    shortest, longest = (float(lifetime[:-1]) + sign * float(stagger[:-1]) for sign in (-1, 1))
    limit = walltime_seconds(walltime)
    assert 0.25 * limit < shortest < longest <= limit - min(90, 0.3 * limit)


def test_jobs_without_a_time_limit_live_on() -> None:
    assert lifetime_arguments("UNLIMITED") == []


def test_an_interrupted_run_is_not_a_finished_one() -> None:
    """dask-jobqueue installs a handler of SIGINT that ends the process with exit code 0."""
    code = (
        "import os, signal, time; import flows.runtime.slurm;"
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr.endswith("KeyboardInterrupt\n")


def test_the_job_script_holds_what_a_worker_needs() -> None:
    options = {"cores": 4, "memory": "8GiB", "walltime": "02:00:00", "worker_extra_args": ["-v"]}
    settings = ClusterSettings(kind="slurm", options=options, worker_resources={"GPU": 1})
    made = slurm_options(settings, {"distributed.worker.memory.pause": False})
    own = ("scheduler_cls", "scheduler_options", "security", "shared_temp_directory")
    kept = {name: value for name, value in made.items() if name not in own}
    lines = SlurmJobs.job_cls("tls://h:1", "one", **kept).job_script().splitlines()
    (start,) = (line for line in lines if "distributed.cli.dask_worker" in line)
    for part in ("--nthreads 1 ", "--nworkers 4 ", "-v ", "--resources GPU=1", "--lifetime 6600s"):
        assert part in start
    (export,) = (line for line in lines if line.startswith("export "))
    config = dask.config.deserialize(export.partition("=")[2])
    assert config == {"distributed.worker.memory.pause": False}
    assert "#SBATCH -t 02:00:00" in lines


def test_workers_get_certificates_of_the_run() -> None:
    options = {"cores": 1, "memory": "2GiB", "scheduler_options": {"interface": "ib0"}}
    made = slurm_options(ClusterSettings(kind="slurm", options=options), {})
    assert made["security"] is True
    assert made["scheduler_cls"].__name__ == "ClosedScheduler"
    assert made["scheduler_options"]["interface"] == "ib0"
    assert made["scheduler_options"]["dashboard"] is False


def test_a_lifetime_of_the_site_is_kept() -> None:
    options = {"cores": 1, "memory": "8GiB", "worker_extra_args": ["--lifetime", "5m"]}
    made = slurm_options(ClusterSettings(kind="slurm", options=options), {})
    assert made["worker_extra_args"].count("--lifetime") == 1


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm_site(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


def settings_of(folder: Path, **options: object) -> ClusterSettings:
    """A worker of one core for ten minutes, on the loopback interface."""
    usual = {"cores": 1, "memory": "2GiB", "interface": "lo", "walltime": "00:10:00"}
    folders = {"shared_temp_directory": str(folder), "log_directory": str(folder / "logs")}
    return ClusterSettings(kind="slurm", workers=1, options=usual | folders | options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"queue": "banana"}, r"does not take the job of a worker .*partition"),
        ({"job_script_prologue": ["exit 1"]}, "ended before a worker arrived"),
    ],
)
def test_a_cluster_whose_jobs_do_not_start_ends_the_run(
    site: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    fault: str,
) -> None:
    for name, value in site.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(CacError, match=fault),
        cluster_client(settings_of(tmp_path, **options)),
    ):
        pass


_CONFIG = """
[cluster]
kind = "slurm"
workers = 1
worker_resources = {{ GPU = 1 }}
study_resources = {{ GPU = 1 }}
[cluster.options]
queue = "night"
cores = 1
memory = "2GiB"
walltime = "00:01:00"
interface = "lo"
log_directory = "{folder}/logs"
shared_temp_directory = "{folder}"
"""


@pytest.mark.slow
def test_workers_that_reach_their_lifetime_are_replaced(
    site: dict[str, str], cac: Cac, tmp_path: Path
) -> None:
    """Jobs of a minute, one at a time, score an archive for which a minute is too short."""
    archive, truth, warehouse = (tmp_path / name for name in ("archive", "truth.parquet", "wh"))
    write_archive(archive, studies=80, seed=3, truth_path=truth, workers=2)
    config = tmp_path / "cac.toml"
    config.write_text(_CONFIG.format(folder=tmp_path))
    done = cac(
        "score", archive, "-w", warehouse, "--json", "--config", config, timeout=1500, **site
    )
    assert done.code == 0, done.err
    store = Warehouse(warehouse)
    (model,) = store.models()
    rows = store.read(SCORES, model).to_pylist()
    keyring = Keyring(SECRET.encode())
    expected = {
        keyring.study_key(row["study_instance_uid"]): row["planted_defect"]
        for row in pq.read_table(truth).to_pylist()
    }
    assert Counter(row["study_key"] for row in rows) == Counter(expected.keys())
    assert {row["study_key"]: row["reason"] for row in rows} == expected
    jobs = {path.stem for path in (tmp_path / "logs").iterdir()}
    assert len(jobs) > 1, "the first job was enough"
    deadline = monotonic() + 60  # SLURM lists a job while it completes
    while left := subprocess.run(
        ["squeue", "-h"], env=site, capture_output=True, text=True, check=True
    ).stdout:
        assert monotonic() < deadline, left
        sleep(1)
