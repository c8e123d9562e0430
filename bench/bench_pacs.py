"""Series pulled from a PACS on this machine, and what is left of them after interruptions.

    python -m bench.bench_pacs [--series 50] [--slices 60] [--kills 20] [--score 12]

Starts Orthanc on the loopback interface (Debian packages orthanc and orthanc-dicomweb) and stores
series of 512 x 512, 16 bit, each a study of its own. Then, each time from an empty cache:

- queries, reads the headers and pulls every series, by DICOMweb with 1, 2 and 4 connections and by
  C-GET and C-MOVE, without scoring;
- pulls in a process that is killed at random times, and checks every file: none missing, none
  twice, no series pulled again that was whole;
- scores synthetic studies from the PACS and from their folder with the real networks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from bench.measure import record
from cac_core.phantom.archive.write import write_archive
from tests.builders.dicom_files import ct_dataset, write_dicom
from tests.builders.pacs import Pacs, free_port, orthanc
from tests.builders.pacs_night import Night

_SIDE = 512


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=50)
    parser.add_argument("--slices", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20, help="interruptions; 0: leave them out")
    parser.add_argument("--score", type=int, default=12, help="studies scored; 0: leave it out")
    parser.add_argument("--no-speeds", dest="speeds", action="store_false")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        place, folder = options.child
        print("begins", flush=True)
        pull_all(place, Path(folder))
        return
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        with orthanc(folder / "orthanc", peer_port=port) as pacs:
            print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", flush=True)
            write_series(folder / "series", options.series, options.slices)
            pacs.upload(sorted((folder / "series").iterdir()))
            figures: dict[str, object] = {}
            if options.speeds:
                figures |= speeds(pacs, folder, options.series, port)
            if options.kills:
                interrupted(pacs, folder, options)
            pacs.clear()
            if options.score:
                figures |= scored(pacs, folder, options.score)
            record("pacs", [], figures)


def write_series(folder: Path, series: int, slices: int) -> None:
    """Write series of noise, which nothing can compress away."""
    rng = np.random.default_rng(1)
    planes = rng.integers(-1000, 1000, (slices, _SIDE, _SIDE), dtype=np.int16)
    for number in range(series):
        uid = f"1.2.3.{number}"
        for index in range(slices):
            image = ct_dataset(
                StudyInstanceUID=uid,
                SeriesInstanceUID=f"{uid}.1",
                SOPInstanceUID=f"{uid}.1.{index + 1}",
                PatientID=f"P{number}",
                InstanceNumber=str(index + 1),
                ImagePositionPatient=["-250", "-250", str(index * 5)],
                Rows=_SIDE,
                Columns=_SIDE,
                PixelSpacing=["0.9765625", "0.9765625"],
                PixelData=np.roll(planes[index], number, 1).tobytes(),
            )
            write_dicom(folder / f"{number:04d}-{index:04d}", image)


def pull_all(place: str, folder: Path, **settings: object) -> tuple[int, float, float]:
    """Pull everything into a cache that keeps it; number of series, seconds of headers and all."""
    began = time.perf_counter()
    night = Night(place, folder, **{"timeout_s": 60.0, "cache_gb": 1000.0} | settings)
    content = night.read()
    headers = time.perf_counter() - began
    works = night.pull(content)
    assert not night.faults, night.details()
    return len(works), headers, time.perf_counter() - began


def speeds(pacs: Pacs, folder: Path, series: int, port: int) -> dict[str, float]:
    """Print and return the speed of each way, series per second."""
    speed = {}
    move = {"retrieve": "move", "listen": f"127.0.0.1:{port}", "peers": ["ORTHANC@127.0.0.1"]}
    ways: list[tuple[str, str, dict[str, object]]] = [
        *((f"DICOMweb, {n} connections", pacs.web, {"connections": n}) for n in (1, 2, 4)),
        ("C-GET, 2 associations", pacs.dimse, {}),
        ("C-MOVE, 2 associations", pacs.dimse, move),
    ]
    for name, place, settings in ways:
        before = time.process_time(), served(pacs)
        found, headers, seconds = pull_all(place, folder / "cache", **settings)
        here, there = time.process_time() - before[0], served(pacs) - before[1]
        assert found == series
        pulled = speed[name] = found / (seconds - headers)
        print(
            f"{name:<24}{pulled:6.2f} series/s pulled, {found / seconds:.2f} with query and "
            f"headers ({seconds:.1f} s, of these {headers:.1f} s); "
            f"processor {here:.1f} s here, {there:.1f} s in Orthanc",
            flush=True,
        )
        shutil.rmtree(folder / "cache")
    return speed


def served(pacs: Pacs) -> float:
    """Processor time of the server so far, seconds."""
    times = psutil.Process(pacs.process.pid).cpu_times()
    return times.user + times.system


def interrupted(pacs: Pacs, folder: Path, options: argparse.Namespace) -> None:
    """Kill a process that pulls at random times; then let it end, and check every file."""
    rng, cache = random.Random(1), folder / "kills"
    originals = {digest(path) for path in (folder / "series").iterdir()}
    whole: dict[str, int] = {}
    killed = 0
    command = [sys.executable, "-m", "bench.bench_pacs", "--child", pacs.web, str(cache)]
    while killed < options.kills:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout and child.stdout.readline()
            time.sleep(rng.uniform(0.0, options.series / 5))
            ended = child.poll() is not None
            child.send_signal(rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
        killed += 1
        check_kept(cache, whole)
        if ended:  # everything was there: begin anew with some series
            for name in rng.sample(sorted(whole), len(whole) // 2):
                shutil.rmtree(next(cache.rglob(name)))
                del whole[name]
    subprocess.run(command, check=True)
    check_kept(cache, whole)
    names = [path for path in (cache / "cache" / "series").rglob("*.dcm")]
    found = [digest(path) for path in names]
    missing, twice = len(originals - set(found)), len(found) - len(set(found))
    print(f"{killed} interruptions: {len(found)} files, {missing} missing, {twice} twice")
    assert not missing and not twice and len(whole) == options.series


def check_kept(cache: Path, whole: dict[str, int]) -> None:
    """Series that were whole are still those that were pulled first; new ones are noted."""
    homes = [h for h in (cache / "cache" / "series").glob("*-*") if "arriving" not in h.name]
    now = {home.name: home.stat().st_ino for home in homes}
    assert all(now.get(name) == number for name, number in whole.items())
    whole.update(now)


def digest(path: Path) -> bytes:
    """SHA-256 of the pixels of a file; servers may rewrite the meta header."""
    return hashlib.sha256(path.read_bytes()[-2 * _SIDE * _SIDE :]).digest()


def scored(pacs: Pacs, folder: Path, studies: int) -> dict[str, float]:
    """Score the same studies from the PACS and from their folder; studies per second."""
    speed = {}
    archive = folder / "phantoms"
    write_archive(archive, studies=studies, seed=5, workers=2)
    pacs.upload(sorted(path for path in archive.rglob("*") if path.is_file()))
    environment = os.environ | {"CAC_LINKAGE_KEY": "a secret of the benchmark"}
    for name, place in (("folder", str(archive)), ("PACS", pacs.web)):
        command = [str(Path(sys.executable).with_name("cac")), "score", place]
        command += ["-w", str(folder / f"wh-{name}"), "--json", "-q"]
        done = subprocess.run(
            command,
            env=environment | {"XDG_DATA_HOME": str(folder / "data")},
            stdout=subprocess.PIPE,
            check=True,
        )
        summary = json.loads(done.stdout)
        speed[f"scored from {name}"] = summary["studies_per_second"]
        print(
            f"scored from {name:<12}{summary['studies_per_second']:6.3f} studies/s, "
            f"{summary['scored']} scored, {summary['seconds']:.1f} s in all",
            flush=True,
        )
    return speed


if __name__ == "__main__":
    main()
