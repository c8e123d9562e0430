"""Time of the statistics, and of the same bootstrap by refitting lifelines.

    python -m bench.bench_analysis [--patients 2271 100000] [--resamples 1000 200] [--refits 3]

Draws cohorts like the paper's. First, in one thread, the bootstrap of one marker (both models
refitted in each resample, then the net reclassification): our kernels, and lifelines with a
tolerance that gives R's digits. Then the whole shipped plan, each size in its own process, with one
thread per core: seconds by step, and the peak memory of that process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter

from bench.measure import Ratio, from_pairs, record
from cac_core.analysis.run import estimates_table, steps
from cac_core.phantom.registry.patients import PAPER_N, draw_cohort
from cac_core.stats.bootstrap import METRICS, MarkerData, bootstrap, measure, resampled
from cac_core.stats.cox import time_order
from cac_core.stats.reclassification import moves, nri_kaplan_meier
from schemas.linkage import FLOW
from tests.builders.analyses import linked_events, plan
from tests.builders.cohorts import linked_frame

_HORIZON = 3 * 365.25
_LIFELINES = {"fit_options": {"precision": 1e-12, "r_precision": 1e-14}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, nargs="*", default=[PAPER_N, 100_000])
    parser.add_argument("--resamples", type=int, nargs="*", default=[1000, 200])
    parser.add_argument("--refits", type=int, default=3, help="resamples refitted by lifelines")
    options = parser.parse_args()
    ratios = [report_refits(marker_data(PAPER_N), options.refits)] if options.refits else []
    plans = zip(options.patients, options.resamples, strict=True)
    figures = {
        f"plan_s_{patients}_patients_{resamples}_resamples": report_plan(patients, resamples)
        for patients, resamples in plans
    }
    record("analysis", ratios, figures)


def marker_data(n: int) -> MarkerData:
    """The covariates of Table 2 in numbers, and with the calcium categories, sorted by time."""
    frame = linked_frame(draw_cohort(n))
    days = frame["mace_days"].to_numpy(np.float64)
    event = frame["mace_event"].to_numpy(bool)
    order = time_order(days, event)
    names = ["hypertension", "diabetes", "dyslipidemia", "family_history", "smoking"]
    names += ["age_years", "bmi_kg_m2", "rest_tpd_pct", "stress_lvef_pct"]
    perfusion = np.searchsorted([1, 5, 10], frame["stress_tpd_pct"], side="right")
    base = np.column_stack(
        [frame[names], frame["sex"] == "M", *(perfusion == level for level in (1, 2, 3))]
    ).astype(np.float64)
    calcium = [frame["cac_category"] == level for level in ("1-100", "101-400", ">400")]
    full = np.column_stack([*calcium, base]).astype(np.float64)
    return MarkerData(base[order], {"dl": full[order]}, days[order], event[order], _HORIZON, (0.1,))


def report_refits(data: MarkerData, refits: int) -> Ratio:
    """Seconds per resample of both, and the largest difference of their NRI."""
    fits, _ = measure(data)
    bootstrap(data, fits, 2, 1)  # compiles
    by_lifelines, many = [], 20 * refits
    begin = perf_counter()
    drawn = bootstrap(data, fits, many, 1)
    seconds = (perf_counter() - begin) / many
    begin = perf_counter()
    for number in range(refits):
        rows = resampled(len(data.days), 1, number)
        by_lifelines.append(nri_by_lifelines(data, rows))
    theirs = (perf_counter() - begin) / refits
    same = drawn.of("dl", "nri_overall")[:refits]
    print(f"one resample of {len(data.days):,} patients, two fits and all measures, one thread")
    print(f"  ours {seconds:.4f} s with all {len(METRICS)} measures, lifelines {theirs:.3f} s "
          f"with the NRI alone: {theirs / seconds:.0f} x")  # fmt: skip
    print(f"  largest difference of the NRI: {np.abs(same - by_lifelines).max():.0e} "
          "(lifelines has Breslow's baseline)")  # fmt: skip
    return from_pairs("a resample by lifelines / ours", "ours", "lifelines", [(seconds, theirs)])


def nri_by_lifelines(data: MarkerData, rows: np.ndarray) -> float:
    """The Kaplan-Meier form of the NRI with both models fitted by lifelines in a resample."""
    risks = []
    for design in (data.base, data.full["dl"]):
        frame = pd.DataFrame(design[rows]).rename(columns=str)
        frame["days"], frame["event"] = data.days[rows], data.event[rows]
        fitter = CoxPHFitter().fit(frame, "days", "event", **_LIFELINES)
        risks.append(1 - fitter.predict_survival_function(frame, [_HORIZON]).to_numpy()[0])
    return nri_kaplan_meier(data.days[rows], data.event[rows], *moves(*risks), _HORIZON).overall


def report_plan(patients: int, resamples: int) -> float:
    """Seconds of the whole shipped plan in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_plan, args=(patients, resamples, sender))
    process.start()
    sender.close()
    result = json.loads(receiver.recv())
    process.join()
    total = sum(result["seconds"].values())
    threads = result["threads"]
    print(f"the shipped plan: {patients:,} patients, {resamples} resamples, {threads} threads")
    print(f"  {total:7.1f} s, peak {result['mib']:.0f} MiB, {result['rows']} estimates; of these")
    for name, seconds in sorted(result["seconds"].items(), key=lambda item: -item[1])[:6]:
        print(f"  {seconds:7.1f} s  {name}")
    return total


def _run_plan(patients: int, resamples: int, sender) -> None:
    threads = len(os.sched_getaffinity(0))
    linked, events = linked_events(linked_frame(draw_cohort(patients)))
    wanted, flow = plan(resamples=resamples), FLOW.empty()
    seconds, rows = {}, []
    with ThreadPoolExecutor(threads) as pool:
        for step in steps(linked, events, flow, wanted, pool.map):
            begin = perf_counter()
            rows += step.run()
            seconds[step.name] = perf_counter() - begin
    begin = perf_counter()
    estimates = estimates_table(rows)
    seconds["the table itself"] = perf_counter() - begin
    # Not ru_maxrss: a process inherits that of the one which started it.
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    mib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    result = {"seconds": seconds, "mib": mib, "rows": estimates.num_rows, "threads": threads}
    sender.send(json.dumps(result))


if __name__ == "__main__":
    main()
