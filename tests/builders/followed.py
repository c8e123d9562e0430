"""Small followed cohorts with two predicted risks, with and without ties."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

HORIZON = 700.0


class Followed(NamedTuple):
    """Follow-up in days, event indicators, and two predicted risks of the same patients."""

    days: np.ndarray
    event: np.ndarray
    risk: np.ndarray
    second: np.ndarray


def followed(name: str) -> Followed:
    """`plain`: 240 patients without ties; `tied`: 160 with times of 50 days and 8 risks."""
    tied = name == "tied"
    random = np.random.default_rng(20 + tied)
    n = 160 if tied else 240
    truth = random.normal(size=n)
    event_at = random.exponential(1500 * np.exp(-0.8 * truth))
    censored_at = random.uniform(200, 1600, size=n)
    time, event = np.minimum(event_at, censored_at) + 1, event_at <= censored_at
    risks = [_risk(truth + random.normal(0, noise, size=n)) for noise in (0.4, 1.2)]
    if tied:
        time = np.ceil(time / 50) * 50
        risks = [np.ceil(risk * 8) / 8 for risk in risks]
    return Followed(time.round(6), event.astype(int), risks[0].round(6), risks[1].round(6))


def csv_text() -> str:
    """Both cohorts as the lines of `tests/golden/discrimination.csv`."""
    lines = ["cohort,time,event,risk,second"]
    for name in ("plain", "tied"):
        lines += [f"{name},{t},{e},{r},{s}" for t, e, r, s in zip(*followed(name), strict=True)]
    return "\n".join(lines) + "\n"


def _risk(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(0.3 - value))


if __name__ == "__main__":
    Path("tests/golden/discrimination.csv").write_text(csv_text())
