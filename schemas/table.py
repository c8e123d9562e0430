"""Declares tables: columns with type, unit, meaning and checks, in one place.

A `TableSpec` yields the Arrow schema (with unit and description as field metadata), the pandera
schema that validates the table, and the data dictionary. pandera, which takes half a second to
import, is imported by what checks values.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import pyarrow as pa

from schemas.invalid import InvalidTableError

if TYPE_CHECKING:
    import pandera.pyarrow as pp
    from pandera.errors import SchemaError, SchemaErrors

__all__ = ["KEY_PATTERN", "ColumnSpec", "InvalidTableError", "TableSpec"]

#: pandera loads parts of itself at its first validation, and two threads must not do so at once.
_VALIDATING = threading.Lock()
#: Pattern of `patient_key`, `study_key` and every other keyed pseudonym.
KEY_PATTERN = r"^[0-9a-f]{32}$"


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column: Arrow type, unit, meaning, and checks of its values.

    `codes` restricts the values to an enum class or strings; `pattern` is a regular expression;
    `ge` and `le` are inclusive bounds. Nulls are valid where `nullable`.
    """

    name: str
    type: pa.DataType
    description: str
    unit: str = ""
    nullable: bool = False
    unique: bool = False
    codes: type[StrEnum] | Iterable[str] | None = None
    pattern: str | None = None
    ge: float | None = None
    le: float | None = None

    @property
    def allowed(self) -> tuple[str, ...]:
        """Values that `codes` allows, in order; empty without `codes`."""
        return () if self.codes is None else tuple(str(code) for code in self.codes)

    def arrow_field(self) -> pa.Field:
        """Return the Arrow field, with `unit` and `description` in its metadata."""
        metadata = {"description": self.description, "unit": self.unit}
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)

    def pandera_column(self) -> pp.Column:
        """Return the pandera column with all checks."""
        import pandera.pyarrow as pp

        checks: list[pp.Check] = []
        if self.codes is not None:
            checks.append(pp.Check.isin(list(self.allowed)))
        if self.pattern is not None:
            checks.append(pp.Check.str_matches(self.pattern))
        if self.ge is not None:
            checks.append(pp.Check.ge(self.ge))
        if self.le is not None:
            checks.append(pp.Check.le(self.le))
        # Types are those of Arrow, see `has_type`: pandera 0.35 knows no zoned timestamps and no
        # bytes, and looks for an engine that is not installed at each column.
        return pp.Column(None, checks, nullable=self.nullable, unique=self.unique)

    def has_type(self, found: pa.DataType) -> bool:
        """Whether a column is of this type; timestamps and bytes are cast to it."""
        castable = pa.types.is_timestamp(self.type) or pa.types.is_binary(self.type)
        return bool(castable or found == self.type)


@dataclass(frozen=True)
class TableSpec:
    """A table of the warehouse: its name, meaning, columns and row-level rules.

    A new nullable column needs no migration: it is null in older files. Any other change of the
    columns does: `migrations` holds one function per version after the first, which turns a table
    of that version into one of the next.
    """

    name: str
    description: str
    columns: tuple[ColumnSpec, ...]
    unique_together: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    migrations: tuple[Callable[[pa.Table], pa.Table], ...] = ()

    @property
    def version(self) -> int:
        """Version of the schema, in the metadata of its files; none means the first."""
        return 1 + len(self.migrations)

    @property
    def arrow_schema(self) -> pa.Schema:
        """Arrow schema with unit and description of every column."""
        metadata = {
            "table": self.name,
            "description": self.description,
            "schema_version": str(self.version),
            **self.metadata,
        }
        return pa.schema([column.arrow_field() for column in self.columns], metadata=metadata)

    @property
    def pandera_schema(self) -> pp.DataFrameSchema:
        """The pandera schema: types, ranges, codes, uniqueness, and exactly these columns."""
        import pandera.pyarrow as pp

        return pp.DataFrameSchema(
            {column.name: column.pandera_column() for column in self.columns},
            strict=True,
            unique=list(self.unique_together) or None,
            name=self.name,
        )

    def empty(self) -> pa.Table:
        """Return a table without rows."""
        return self.arrow_schema.empty_table()

    def from_rows(self, rows: Iterable[Mapping[str, object]]) -> pa.Table:
        """Build a checked table from dictionaries; a missing key becomes null.

        Raises
        ------
        InvalidTableError
            If a key is not a column of this table, or a check fails.
        """
        materialised = list(rows)
        self._check_names({c.name for c in self.columns}.union(*materialised))
        columns = {
            column.name: [row.get(column.name) for row in materialised] for column in self.columns
        }
        try:
            table = pa.table(columns, schema=_relaxed(self.arrow_schema))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InvalidTableError(
                self.name, (type(error).__name__ + " while typing rows",)
            ) from None
        return self.validate(table)

    def validate(self, table: pa.Table) -> pa.Table:
        """Check all rules, and return the table with the declared Arrow schema.

        Raises
        ------
        InvalidTableError
            With one line per failed column and check, and the number of invalid values.
        """
        from pandera.errors import SchemaErrors

        self._check_columns(table.schema)
        if table.num_rows:
            try:
                with _VALIDATING:
                    self.pandera_schema.validate(table.cast(_relaxed(table.schema)), lazy=True)
            except SchemaErrors as errors:
                raise InvalidTableError(self.name, _summary(errors)) from None
        return table.select([c.name for c in self.columns]).cast(self.arrow_schema)

    def completed(self, table: pa.Table) -> pa.Table:
        """Bring a table of an earlier version to this one; missing nullable columns become null.

        Raises
        ------
        InvalidTableError
            If a later version of the program wrote the table.
        """
        written = int((table.schema.metadata or {}).get(b"schema_version", b"1"))
        if written > self.version:
            text = f"it has version {written}, and this program reads up to {self.version}"
            raise InvalidTableError(self.name, (text,))
        for migrate in self.migrations[written - 1 :]:
            table = migrate(table)
        for column in self.columns:
            if column.nullable and column.name not in table.column_names:
                values = pa.nulls(table.num_rows, column.type)
                table = table.append_column(column.arrow_field(), values)
        return table

    def failures(self, table: pa.Table) -> list[tuple[int, str, str]]:
        """List every value that fails a check of its column: row, column, check.

        For external tables, whose invalid rows go to quarantine.

        Raises
        ------
        InvalidTableError
            If columns are missing or unknown.
        """
        from pandera.errors import SchemaErrors

        self._check_columns(table.schema)
        try:
            self.pandera_schema.validate(table.cast(_relaxed(table.schema)), lazy=True)
        except SchemaErrors as errors:
            return [case for error in errors.schema_errors for case in self._cases(error, table)]
        return []

    def _cases(self, error: SchemaError, table: pa.Table) -> list[tuple[int, str, str]]:
        """Rows of one failed check; pandera 0.35 reports values of Arrow tables, not rows."""
        import pyarrow.compute as pc
        from pandera.errors import SchemaErrorReason

        if error.reason_code not in (
            SchemaErrorReason.DATAFRAME_CHECK,
            SchemaErrorReason.SERIES_CONTAINS_NULLS,
        ):
            raise InvalidTableError(self.name, (str(error.reason_code),))
        column = str(error.schema.name)
        values = error.failure_cases[column].combine_chunks().unique()
        at = pc.indices_nonzero(pc.is_in(table[column], values.cast(table[column].type)))
        name = error.check if isinstance(error.check, str) else error.check.error
        return [(index, column, str(name)) for index in at.to_pylist()]

    def _check_columns(self, schema: pa.Schema) -> None:
        self._check_names(schema.names)
        failures = [
            f"{column.name}: has the type {found}, not {column.type}"
            for column in self.columns
            if not column.has_type(found := schema.field(column.name).type)
        ]
        if failures:
            raise InvalidTableError(self.name, tuple(failures))

    def _check_names(self, found: Iterable[str]) -> None:
        names, known = set(found), {column.name for column in self.columns}
        failures = [
            f"{what} columns {', '.join(sorted(columns))}"
            for what, columns in (("unknown", names - known), ("missing", known - names))
            if columns
        ]
        if failures:
            raise InvalidTableError(self.name, tuple(failures))


def _relaxed(schema: pa.Schema) -> pa.Schema:
    """Make every field nullable, so that nulls reach the checks and are reported."""
    return pa.schema([item.with_nullable(True) for item in schema], metadata=schema.metadata)


def _summary(errors: SchemaErrors) -> tuple[str, ...]:
    """Failures as `column: check (n values)`, without values, which may identify patients."""
    counts: dict[tuple[str, str], int] = {}
    for case in errors.failure_cases.to_pylist():
        key = (str(case["column"]), str(case["check"]))
        counts[key] = counts.get(key, 0) + 1
    return tuple(f"{column}: {check} ({n})" for (column, check), n in sorted(counts.items()))
