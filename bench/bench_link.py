"""Time and memory of a linkage of registry size, compared with the same work in pandas.

    python -m bench.bench_link [--encounters 10000000] [--studies 200000] [--scratch DIR]

Writes extracts as CSV, makes canonical parts and links them as `cac link` does, but without
Prefect, then does the same joins in pandas, each in a separate process. Prints seconds, peak memory
and their ratios, for a tenth of the rows and for all, and whether both find the same events.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv

from bench.measure import from_pairs, record
from cac_core.cohort.canonical import make_part
from cac_core.cohort.database import Resources
from cac_core.cohort.extract_parts import PartStore
from cac_core.cohort.extracts import find_extracts
from cac_core.cohort.link import link
from cac_core.cohort.mapping import load_mapping
from cac_core.cohort.outcomes import load_outcomes
from cac_core.keys import Keyring

if TYPE_CHECKING:
    import pandas as pd

_KEYS = Keyring(b"a secret of the benchmark")
_BEGIN, _END = dt.date(2008, 1, 1), dt.date(2019, 12, 31)
_CODES = ("I21.4", "I20.0", "J18.9", "I10", "E11.9", "N17.9", "I48.0", "K92.2", "R07.4", "I50.0")
_MAPPING = """
site = "bench"
[coverage]
end = 2019-12-31
[[source]]
name = "clinical"
table = "clinical"
files = "clinical.csv"
[source.columns]
patient_id = "id"
study_date = "scan"
age_years = "age"
sex = "sex"
[[source]]
name = "encounters"
table = "encounters"
files = "encounters.csv"
[source.columns]
patient_id = "id"
admit_date = "admit"
discharge_date = "discharge"
record_type = { column = "kind", codes = { D = "inpatient", E = "emergency", A = "ambulatory" } }
diagnosis_code = "dx"
diagnosis_type = "role"
procedure_code = "px"
procedure_date = "px_date"
[[source]]
name = "deaths"
table = "deaths"
files = "deaths.csv"
[source.columns]
patient_id = "id"
death_date = "died"
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encounters", type=int, default=10_000_000)
    parser.add_argument("--studies", type=int, default=200_000)
    parser.add_argument("--scratch", type=Path, help="folder for some 3 GiB of files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        memory, ratios, figures = [], [], {}
        for part in (10, 1):
            site = Path(folder) / f"site-{part}"
            n_encounters, n_studies = options.encounters // part, options.studies // part
            write_site(site, n_encounters, n_studies)
            print(f"{n_encounters:,} encounters, {n_studies:,} studies")
            ours, theirs = (_measured(work, site) for work in (link_site, link_site_in_pandas))
            for name, done in (("cac link", ours), ("pandas", theirs)):
                listed = ", ".join(f"{k} {v}" for k, v in done["found"].items())
                print(f"  {name:9} {done['seconds']:6.1f} s  {done['mib']:6.0f} MiB  {listed}")
            print(f"  time {theirs['seconds'] / ours['seconds']:.2f} x, memory "
                  f"{theirs['mib'] / ours['mib']:.2f} x in pandas, "
                  f"same events: {ours['found'] == theirs['found']}")  # fmt: skip
            memory.append(ours["mib"])
            ratios.append(
                from_pairs(f"pandas / cac link, {n_encounters:,} encounters", "cac link", "pandas",
                           [(ours["seconds"], theirs["seconds"])])
            )  # fmt: skip
            figures[f"mib_{n_encounters}"] = {"cac link": ours["mib"], "pandas": theirs["mib"]}
        record("link", ratios, figures)
        print(f"memory with ten times the rows: {memory[1] / memory[0]:.2f} x")


def write_site(folder: Path, n_encounters: int, n_studies: int) -> None:
    """Write extracts and scans; nine of ten people with encounters were never scanned."""
    folder.mkdir()
    rng = np.random.default_rng(n_encounters)
    people = 10 * n_studies
    ids = np.char.add("P", np.char.zfill(np.arange(people).astype(str), 8))
    span = (_END - _BEGIN).days
    scans = rng.integers(400, span - 100, n_studies)
    clinical = {
        "id": ids[:n_studies],
        "scan": _dates(scans),
        "age": rng.integers(35, 90, n_studies),
        "sex": rng.choice(["F", "M"], n_studies),
    }
    died = np.flatnonzero(rng.random(people) < 0.05)
    # Deaths come after every record of the person.
    deaths = {"id": ids[died], "died": _dates(np.full(len(died), span - 1))}
    who = rng.integers(0, people, n_encounters)
    admit = rng.integers(0, span - 20, n_encounters)
    treated = rng.random(n_encounters) < 0.01
    days = _dates(admit)
    encounters = {
        "id": ids[who],
        "admit": days,
        "discharge": _dates(admit + rng.integers(0, 9, n_encounters)),
        "kind": rng.choice(["D", "E", "A"], n_encounters),
        "dx": np.array(_CODES)[np.minimum(rng.geometric(0.12, n_encounters) - 1, 9)[::-1]],
        "role": rng.choice(["M", "1", "3"], n_encounters),
        "px": np.where(treated, "1.IJ.50.GQ", ""),
        "px_date": np.where(treated, days, ""),
    }
    for name, columns in (
        ("clinical", clinical),
        ("deaths", deaths),
        ("encounters", encounters),
    ):
        pc_csv.write_csv(pa.table(columns), folder / f"{name}.csv")
    (folder / "site.toml").write_text(_MAPPING, encoding="utf-8")
    np.save(folder / "scans.npy", scans)


def link_site(folder: Path) -> dict[str, int]:
    """Canonical parts with all checks, then the linkage, as `cac link` does."""
    mapping = load_mapping(folder / "site.toml")
    resources = Resources(memory_limit="2GB", threads=2, scratch=folder)
    store = PartStore(folder / "wh", folder / "wh" / "_staging")
    parts = [
        make_part(extract, mapping, store, resources)
        for source in mapping.source
        for extract in find_extracts(source, folder)
    ]
    scans = np.load(folder / "scans.npy")
    n = len(scans)
    scores = pa.table(
        {
            "study_key": [_KEYS.study_key(str(i)) for i in range(n)],
            "patient_key": [_KEYS.patient_key(f"P{i:08d}") for i in range(n)],
            "study_date": pa.array([_BEGIN + dt.timedelta(days=int(d)) for d in scans]),
            "status": ["scored"] * n,
            "reason": pa.nulls(n, pa.string()),
            "agatston": [1.0] * n,
            "cac_category": ["1-100"] * n,
        }
    )
    nothing = pa.table({c: pa.array([], pa.string()) for c in ("study_key", "accession_key")})
    done = link(parts, scores, nothing, mapping, load_outcomes(), _KEYS, resources)
    found = {"people": done.linked.num_rows}
    for name in ("mace", "death_mi", "death"):
        events = done.linked[f"{name}_event"].to_numpy()
        found[name] = int(events.sum())
        found[f"{name} days"] = int(done.linked[f"{name}_days"].to_numpy().sum())
    return found


def link_site_in_pandas(folder: Path) -> dict[str, int]:
    """The same events and days in pandas, without quarantine and checks."""
    import pandas as pd

    clinical, deaths = _read(folder, "clinical", "scan"), _read(folder, "deaths", "died")
    events = _events_in_pandas(folder, deaths)
    people = clinical.merge(deaths, on="id", how="left")
    people["end"] = people.died.fillna(pd.Timestamp(_END))
    events = events.merge(people[["id", "scan", "end"]], on="id")
    prior = events[(events.day <= events.scan) & events.kind.isin(["mi", "treated"])].id.unique()
    people = people[~people.id.isin(prior)]
    later = events[(events.day > events.scan) & (events.day <= events.end)]
    found = {"people": len(people)}
    kinds = {
        "mace": ["mi", "angina", "treated", "death"],
        "death_mi": ["mi", "death"],
        "death": ["death"],
    }
    for name, wanted in kinds.items():
        days = later[later.kind.isin(wanted)].groupby("id").day.min()
        day = people.id.map(days)
        found[name] = int(day.notna().sum())
        found[f"{name} days"] = int((day.fillna(people.end) - people.scan).dt.days.sum())
    return found


def _read(folder: Path, name: str, *dates: str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(folder / f"{name}.csv", dtype=str).assign(
        **{d: lambda t, d=d: pd.to_datetime(t[d]) for d in dates}
    )


def _events_in_pandas(folder: Path, deaths: pd.DataFrame) -> pd.DataFrame:
    """Columns `id`, `day` and `kind` of all events, whoever was scanned."""
    import pandas as pd

    records = _read(folder, "encounters", "admit", "discharge", "px_date")
    code = records.dx.str.replace(".", "", regex=False)
    inpatient = records.kind == "D"
    mi = inpatient & code.str.startswith(("I21", "I22")) & records.role.isin(["M", "1"])
    angina = inpatient & code.str.startswith("I200") & (records.role == "M")
    treated = records.px.fillna("").str.replace(".", "", regex=False).str.startswith("1IJ50")
    stays = records.loc[records.kind != "A", ["id", "admit", "discharge"]].sort_values(
        ["id", "admit"]
    )
    # Episodes of care: stays that touch; a diagnosis counts from the first day of its episode.
    last = stays.groupby("id").discharge.cummax().groupby(stays.id).shift()
    stays["episode"] = (last.isna() | ((stays.admit - last).dt.days > 1)).cumsum()
    begin = stays.groupby("episode").admit.transform("min").rename("begin")
    first = records.join(begin).begin.fillna(records.admit)
    parts = [
        pd.DataFrame({"id": records.id[at], "day": day[at], "kind": kind})
        for kind, at, day in (
            ("mi", mi, first),
            ("angina", angina, first),
            ("treated", treated, records.px_date),
        )
    ]
    parts.append(pd.DataFrame({"id": deaths.id, "day": deaths.died, "kind": "death"}))
    return pd.concat(parts)


def _dates(days: np.ndarray) -> np.ndarray:
    return (np.datetime64(_BEGIN) + days.astype("timedelta64[D]")).astype(str)


def _measured(work: Callable[[Path], dict[str, int]], folder: Path) -> dict:
    """Result, seconds and peak memory of the work in a new process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(work, folder, sender))
    process.start()
    sender.close()
    result = json.loads(receiver.recv())
    process.join()
    return result


def _send(work: Callable[[Path], dict[str, int]], folder: Path, sender) -> None:
    start = perf_counter()
    found = work(folder)
    seconds = perf_counter() - start
    # Not ru_maxrss, which a process inherits from its parent.
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    mib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    sender.send(json.dumps({"found": found, "seconds": seconds, "mib": mib}))


if __name__ == "__main__":
    main()
