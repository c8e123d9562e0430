"""A small archive, its undisturbed tables, and runs of `cac score` that are disturbed."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil

from bench import processes, small_archive
from bench.fault_kinds import Fault
from cac_core.cohort.warehouse import Warehouse
from flows.runtime.environment import prefect_api, prepare_environment
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import SCORES

STUDIES = 24
#: Time of a study, so that a run of two workers scores for a few seconds.
_STUDY_S = "0.3"
#: A run that takes longer hangs.
_HANGS_S = 400.0
#: What a killed run leaves ends by itself after this time.
_LINGERS_S = 3.0
#: Columns that differ between two runs over the same archive.
_OF_THE_RUN = ("run_id", "scored_at")
_KEYS = {
    SCORES.name: ("study_key", "protocol_digest"),
    LESIONS.name: (
        "study_key",
        "protocol_digest",
        "slice_index",
        "centroid_row",
        "centroid_column",
    ),
    PREVIEWS.name: ("study_key", "protocol_digest", "slice_index"),
}
_MARK = "CAC_BENCH_FAULTS"

Tables = dict[str, dict[tuple[Any, ...], dict[str, object]]]


@dataclass(frozen=True)
class Outcome:
    """End of a disturbed run, and what differs in the tables after the next one."""

    code: str
    ended: float
    differences: list[str]
    said: str


class Run:
    """One `cac score` in a process of its own."""

    def __init__(self, bench: Bench, place: Path, variables: dict[str, str]) -> None:
        self.place = place
        self.archive = bench.archive
        self.started = monotonic()
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("cac")), "score", str(bench.archive), "--json",
             "-c", str(bench.settings), "-w", str(place / "warehouse" / "tables")],
            env=bench.environment | variables,
            stdout=subprocess.DEVNULL,
            stderr=(place / "run.log").open("wb"),
        )  # fmt: skip

    def workers(self) -> list[psutil.Process]:
        """The worker processes that are there now."""
        return self._those(processes.workers)

    def server(self) -> list[psutil.Process]:
        """The Prefect server of this run, if it has one of its own."""
        return self._those(processes.prefect_api)

    def worker_server(self) -> list[psutil.Process]:
        """The process that forks the workers."""
        return self._those(processes.worker_server)

    def _those(self, of: Callable[[psutil.Process], list[psutil.Process]]) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return of(psutil.Process(self.process.pid))
        return []

    def until(self, there: Any) -> bool:
        """Wait until `there()` holds; False if the run has ended before."""
        while self.process.poll() is None:
            if there():
                return True
            sleep(0.02)
        return False

    def end(self) -> str:
        """Wait for the end; the exit code, a signal, or `hangs`."""
        try:
            code = self.process.wait(max(1.0, _HANGS_S - (monotonic() - self.started)))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "hangs"
        return str(code)


class Bench:
    """Archive and reference of all faults; a context that holds one Prefect server for the runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.archive = folder, folder / "archive"
        self.mark = secrets.token_hex(8)
        self.environment = os.environ | {
            "CAC_LINKAGE_KEY": small_archive.SECRET,
            "CAC_BENCH_STUB_S": _STUDY_S,
            "PREFECT_HOME": str(folder / "prefect"),
            _MARK: self.mark,
        }
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Bench:
        small_archive.write_studies(self.archive, STUDIES)
        self.settings = small_archive.write_settings(
            self.folder,
            cluster={"workers": 2},
            scoring={"shard_size": 8, "timeout_s": 20.0, "publish_every_s": 1.0,
                     "memory_limit": "768MiB"},
        )  # fmt: skip
        self._stack.enter_context(_server(self.folder / "server", self.environment))
        place = self._place("reference")
        run = Run(self, place, {})
        code = run.end()
        self.usual_s = monotonic() - run.started
        assert code == "0", (place / "run.log").read_text()
        self.reference = tables(place / "warehouse" / "tables")
        assert len(self.reference[SCORES.name]) == STUDIES
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def disturbed(self, fault: Fault, luck: random.Random) -> Outcome:
        """Start a run, do the fault to it, wait, and compare after another run."""
        place = self._place("disturbed")
        with contextlib.ExitStack() as stack:
            poison = fault.prepare(place, stack, luck)
            archive, reference = self.archive, self.reference
            if poison:
                self.archive = place / "archive"
                small_archive.write_studies(self.archive, STUDIES * 4, codes=poison)
                reference = {}
            try:
                run = Run(self, place, fault.variables(place, self.environment))
                with fault.done_to(run, luck, self.usual_s):
                    code, ended = run.end(), monotonic()
                said = _last_line(place / "run.log") if code != "0" else ""
                again = Run(self, place, fault.variables(place, self.environment))
                differences = [] if again.end() == "0" else ["the next run failed"]
            finally:
                self.archive = archive
            found = tables(place / "warehouse" / "tables")
            if poison:
                differences += _spoilt(found[SCORES.name], len(poison))
            else:
                differences += _differences(reference, found)
            differences += self._left_processes()
        return Outcome(code, ended, differences, said)

    def _place(self, name: str) -> Path:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        for part in ("warehouse", "tmp", "prefect"):
            (place / part).mkdir(parents=True)
        return place

    def _left_processes(self) -> list[str]:
        sleep(_LINGERS_S)
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark and process.pid not in self._own:
                    left.append(process)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return ["processes are left"] if left else []

    @property
    def _own(self) -> set[int]:
        me = psutil.Process()
        return {me.pid}


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


@contextlib.contextmanager
def _server(home: Path, environment: dict[str, str]) -> Iterator[None]:
    """One Prefect server for all runs: to start one takes longer than to score the archive."""
    home.mkdir()
    before = os.environ.get("PREFECT_HOME")
    os.environ["PREFECT_HOME"] = str(home)
    with prefect_api(prepare_environment()) as ready:
        ready()
        for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
            environment[name] = os.environ[name]
        try:
            yield
        finally:
            os.environ.pop("PREFECT_HOME", None)
            if before is not None:
                os.environ["PREFECT_HOME"] = before


def tables(warehouse: Path) -> Tables:
    """Rows of the published tables by their keys, without what differs from run to run."""
    store, found = Warehouse(warehouse), {}
    for spec in (SCORES, LESIONS, PREVIEWS):
        keys = _KEYS[spec.name]
        rows: dict[tuple[Any, ...], dict[str, object]] = {}
        for row in store.read(spec).to_pylist():
            kept = {
                name: value
                for name, value in row.items()
                if name not in _OF_THE_RUN and not name.startswith("seconds_")
            }
            key = tuple(row[name] for name in keys)
            rows[(*key, "again") if key in rows else key] = kept
        found[spec.name] = rows
    return found


def _differences(expected: Tables, found: Tables) -> list[str]:
    differences = []
    for name, rows in expected.items():
        missing, more = rows.keys() - found[name].keys(), found[name].keys() - rows.keys()
        changed = [key for key in rows.keys() & found[name].keys() if rows[key] != found[name][key]]
        for what, keys in (("missing", missing), ("unexpected", more)):
            if keys:
                differences.append(f"{len(keys)} rows of {name} are {what}")
        for key in changed:
            new = found[name][key]
            columns = [column for column in new if new[column] != rows[key].get(column)]
            shown = new.get("reason") if "reason" in columns else ", ".join(columns)
            differences.append(f"a row of {name} differs: {shown}")
    return differences


def _spoilt(scores: dict[tuple[Any, ...], dict[str, object]], poisoned: int) -> list[str]:
    """What is wrong with a table in which exactly the poisoned studies may have no score."""
    scored = sum(row["status"] == "scored" for row in scores.values())
    wrong = []
    if len(scores) != STUDIES * 4:
        wrong.append(f"{len(scores)} rows for {STUDIES * 4} studies")
    if scored != STUDIES * 4 - poisoned:
        wrong.append(f"{scored} scores, {STUDIES * 4 - poisoned} expected")
    return wrong
