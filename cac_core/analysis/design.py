"""Columns of patients as terms of a model: numbers, levels, splines, populations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cac_core.analysis.plan import Condition, Population, Term
from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Bools, Floats, Ints

#: Largest valid reading; squares and sums of smaller values do not overflow.
LARGEST = 1e50
#: Quantiles of the knots of restricted cubic splines, by number of knots (Harrell, Regression
#: Modeling Strategies, 2nd ed., table 2.3).
_KNOTS = {
    3: (0.10, 0.5, 0.90),
    4: (0.05, 0.35, 0.65, 0.95),
    5: (0.05, 0.275, 0.5, 0.725, 0.95),
    6: (0.05, 0.23, 0.41, 0.59, 0.77, 0.95),
    7: (0.025, 0.1833, 0.3417, 0.5, 0.6583, 0.8167, 0.975),
}


@dataclass(frozen=True)
class Patients:
    """Columns of `linked`, each (n,): float64 with NaN, or texts with None, if missing."""

    columns: Mapping[str, Floats | NDArray[np.object_]]
    n: int

    @classmethod
    def from_table(cls, table: pa.Table) -> Patients:
        """From an Arrow table; columns other than numbers and texts are left out."""
        columns: dict[str, Floats | NDArray[np.object_]] = {}
        for field in table.schema:
            column = table[field.name]
            if pa.types.is_string(field.type):
                columns[field.name] = np.array(column.to_pylist(), dtype=object)
            elif pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
                numbers = column.cast(pa.float64()).to_pandas().to_numpy(dtype=np.float64)
                columns[field.name] = numbers
        return cls(columns, table.num_rows)

    def numbers(self, name: str) -> Floats:
        """A numeric column, NaN if missing.

        Raises
        ------
        NotEstimableError
            If there is no such column, or it has texts or impossible values.
        """
        column = self._column(name)
        if column.dtype == object:
            raise NotEstimableError(f"column `{name}` holds texts, not numbers")
        values = np.asarray(column, np.float64)
        absurd = int((np.abs(values) > LARGEST).sum())
        if absurd:
            raise NotEstimableError(
                f"column `{name}` holds {absurd} values that are infinite or beyond {LARGEST:g}: "
                "a reading that cannot be, or a code for a missing one"
            )
        return values

    def texts(self, name: str) -> NDArray[np.object_]:
        """A column of texts, None if missing."""
        column = self._column(name)
        if column.dtype != object:
            raise NotEstimableError(f"column `{name}` holds numbers, not texts")
        return np.asarray(column, dtype=object)

    def present(self, name: str) -> Bools:
        """Which patients have a value."""
        column = self._column(name)
        if column.dtype == object:
            return np.array([value is not None for value in column], np.bool_)
        return np.asarray(~np.isnan(self.numbers(name)))

    def present_in(self, name: str, keep: Bools) -> bool:
        """Whether all the marked patients have a value."""
        return name in self.columns and bool(self.present(name)[keep].all())

    def chosen(self, keep: Bools) -> Patients:
        """The marked patients, in the same order."""
        return Patients(
            {name: values[keep] for name, values in self.columns.items()}, int(keep.sum())
        )

    def _column(self, name: str) -> Floats | NDArray[np.object_]:
        if name not in self.columns:
            raise NotEstimableError(f"there is no column `{name}`")
        return self.columns[name]


def members(patients: Patients, population: Population) -> Bools:
    """Patients of a population, shape (n,)."""
    keep = np.ones(patients.n, np.bool_)
    for condition in population.where:
        keep &= _holds(patients, condition)
    return keep


def _holds(patients: Patients, condition: Condition) -> Bools:
    present = patients.present(condition.column)
    if condition.among is not None or isinstance(condition.equals, str):
        wanted = condition.among or (str(condition.equals),)
        return present & np.isin(patients.texts(condition.column).astype(str), wanted)
    values = patients.numbers(condition.column)
    keep = present.copy()
    with np.errstate(invalid="ignore"):
        if condition.equals is not None:
            keep &= values == float(condition.equals)
        if condition.below is not None:
            keep &= values < condition.below
        if condition.at_least is not None:
            keep &= values >= condition.at_least
    return keep


def levels_of(patients: Patients, term: Term) -> Ints:
    """Index of each patient's level, -1 if missing, shape (n,).

    A binary term has the levels 0 and 1; texts other than `positive` and `negative` are missing.

    Raises
    ------
    NotEstimableError
        If values are outside the levels, with column and count, or if the plan does not say which
        of several texts is 0.
    """
    if term.cuts:
        values = patients.numbers(term.source)
        level = np.searchsorted(np.asarray(term.cuts), values, side="right").astype(np.int64)
        return np.where(np.isfinite(values), level, -1)
    if term.kind == "binary" and term.positive is None:
        values = patients.numbers(term.source)
        present = np.isfinite(values)
        _refuse(term, present & ~np.isin(values, (0, 1)))
        return np.where(present, np.nan_to_num(values), -1).astype(np.int64)
    present = patients.present(term.source)
    texts = patients.texts(term.source)
    if term.kind == "binary":
        known = present & ((texts == term.positive) | (texts == _negative(term, texts)))
        return np.where(known, texts == term.positive, -1).astype(np.int64)
    position = {name: at for at, name in enumerate(term.levels)}
    position |= {name: position[into] for name, into in term.merge.items() if into in position}
    level = np.array([position.get(value, -1) for value in texts], np.int64)
    _refuse(term, present & (level < 0))
    return level


def level_names(term: Term) -> tuple[str, ...]:
    """Names of the levels of a binary or categorical term."""
    return term.levels or ("0", "1")


def numbers_of(patients: Patients, term: Term) -> Floats:
    """Values of a numeric term in units of `per`, NaN if missing, shape (n,)."""
    return np.asarray(patients.numbers(term.source) / term.per)


def has_term(patients: Patients, term: Term) -> Bools:
    """Which patients have a value of a term, shape (n,); other texts of a binary term have none."""
    if term.kind == "binary" and term.positive is not None:
        return np.asarray(levels_of(patients, term) >= 0)
    return patients.present(term.source)


def spline_basis(values: Floats, knots: int) -> Floats:
    """Restricted cubic spline, shape (n, knots - 1): the value, then the truncated cubes.

    Linear beyond the outer knots; knots at Harrell's quantiles, cubes divided by the square of the
    outer knots' distance (R's `rms::rcs`).

    Raises
    ------
    NotEstimableError
        If ties make two knots coincide.
    """
    at = np.quantile(values, _KNOTS[knots])
    if np.min(np.diff(at)) <= 0:
        raise NotEstimableError("knots of the spline coincide: too few different values")
    last, before = at[-1], at[-2]

    def cube(knot: float) -> Floats:
        return np.asarray(np.maximum(values - knot, 0) ** 3)

    columns = [values]
    for knot in at[:-2]:
        columns.append(
            (
                cube(knot)
                - cube(before) * (last - knot) / (last - before)
                + cube(last) * (before - knot) / (last - before)
            )
            / (last - at[0]) ** 2
        )
    return np.stack(columns, axis=1)


def indicators(level: Ints, levels: Sequence[int]) -> Floats:
    """A 0/1 column per level, shape (n, len(levels))."""
    wanted = np.asarray(levels, np.int64)
    return np.asarray(level[:, None] == wanted[None, :], np.float64)


def _negative(term: Term, texts: NDArray[np.object_]) -> str | None:
    """The text that counts as 0."""
    if term.negative is not None:
        return term.negative
    others = sorted({text for text in texts if text is not None} - {term.positive})
    if len(others) > 1:
        raise NotEstimableError(
            f"column `{term.source}` holds {len(others)} texts beside `{term.positive}`; "
            f"`negative` of the term `{term.name}` in the plan says which of them is 0"
        )
    return others[0] if others else None


def _refuse(term: Term, unknown: Bools) -> None:
    if unknown.any():
        raise NotEstimableError(
            f"column `{term.source}` holds {int(unknown.sum())} values that are none of its levels"
        )
