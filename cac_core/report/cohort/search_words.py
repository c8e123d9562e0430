"""Other words for what the report shows, by which "Find a number" finds a row as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Further words of a row whose name, caption or column titles have a phrase; all in lower case.
SYNONYMS: Mapping[str, Sequence[str]] = {
    "kappa": ("agreement", "cohen"),
    "per 100 person-years": (
        "annual rate", "annualised", "annualized", "yearly", "incidence rate", "% per year",
    ),
    "harrell's c": ("c-statistic", "c statistic", "c-index", "c index", "concordance index"),
    "uno's c": ("c-statistic", "c statistic", "c-index", "c index", "concordance index"),
    "auc": ("c-statistic", "c statistic", "roc", "area under the curve", "discrimination"),
    "nri": ("net reclassification improvement", "net reclassification index"),
    "net reclassification": ("nri",),
    "event nri": ("events",),
    "trend": ("p for trend", "p trend"),
    "hazard ratio": ("hr", "relative hazard"),
    "adjusted hr": ("multivariable", "multivariate", "hazard ratio"),
    "unadjusted hr": ("univariable", "univariate", "crude", "hazard ratio"),
    "subdistribution": ("fine-gray", "competing risk"),
    "aalen-johansen": ("cumulative incidence", "competing risk"),
    "incidence of": ("cumulative incidence", "cif"),
    "event-free": ("survival", "kaplan-meier", "km"),
    "free of": ("survival", "kaplan-meier", "km"),
    "cumulative incidence": ("1 - km", "risk", "event rate"),
    "limits of agreement": ("bland-altman", "bias"),
    "brier": ("calibration",),
    "observed / expected": ("calibration", "o/e"),
    "proportional hazards": ("schoenfeld", "ph test"),
    "spearman's": ("rho", "correlation"),
    "icc": ("intraclass correlation",),
    "score tests": ("schoenfeld",),
    "integrated discrimination improvement": ("idi",),
    "death": ("mortality",),
    "mi": ("myocardial infarction",),
    "follow-up": ("followup",),
    "sensitivity": ("true positive rate",),
}  # fmt: skip
