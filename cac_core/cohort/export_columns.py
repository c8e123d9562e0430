"""Labels of columns and of coded values, as metadata of Arrow fields."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa

from schemas.table import TableSpec

#: Keys of the metadata: short label, labels of whole numbers, and codes of a text in their order.
_LABEL, _VALUES, _CODES = b"label", b"values", b"codes"
_NO_YES = {0: "no", 1: "yes"}


def annotated(
    table: pa.Table,
    labels: Mapping[str, str],
    values: Mapping[str, Mapping[int, str]],
) -> pa.Table:
    """Add labels of columns, and of the whole numbers in some of them."""
    fields = []
    for field in table.schema:
        metadata = dict(field.metadata or {})
        if field.name in labels:
            metadata[_LABEL] = labels[field.name].encode()
        if field.name in values:
            metadata[_VALUES] = json.dumps(values[field.name]).encode()
        fields.append(field.with_metadata(metadata))
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def annotated_as(table: pa.Table, spec: TableSpec) -> pa.Table:
    """Add the codes of texts and the meaning of 0 and 1 from the specification of a table."""
    fields = []
    for field, column in zip(table.schema, spec.columns, strict=True):
        metadata = dict(field.metadata or {})
        if column.allowed:
            metadata[_CODES] = json.dumps(column.allowed).encode()
        elif column.unit == "0/1":
            event = field.name.endswith("_event")
            values = {0: "censored", 1: "event"} if event else _NO_YES
            metadata[_VALUES] = json.dumps(values).encode()
        fields.append(field.with_metadata(metadata))
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def with_numbers(table: pa.Table) -> pa.Table:
    """For programs that label only numbers: true and false as 1 and 0, and coded texts twice.

    A text with known codes keeps its column; a column `<name>_n` with its number, from 0, follows
    at the end.
    """
    for at, field in enumerate(table.schema):
        if pa.types.is_boolean(field.type):
            metadata = {**(field.metadata or {}), _VALUES: json.dumps(_NO_YES).encode()}
            number = pa.field(field.name, pa.int8(), metadata=metadata)
            table = table.set_column(at, number, table[field.name].cast(pa.int8()))
    for field in table.schema:
        codes = json.loads((field.metadata or {}).get(_CODES, b"[]"))
        if codes:
            numbers = {code: number for number, code in enumerate(codes)}
            values = [numbers.get(value) for value in table[field.name].to_pylist()]
            metadata = {
                b"description": f"{field.name} as a number".encode(),
                _VALUES: json.dumps(dict(enumerate(codes))).encode(),
            }
            twin = pa.field(f"{field.name}_n", pa.int8(), metadata=metadata)
            table = table.append_column(twin, pa.array(values, pa.int8()))
    return table


def value_labels(field: pa.Field) -> dict[int | float, str]:
    """Labels of the whole numbers of a column; empty where it has none."""
    found = json.loads((field.metadata or {}).get(_VALUES, b"{}"))
    return {int(number): str(label) for number, label in found.items()}


def column_label(field: pa.Field) -> str:
    """The short label of a column, or its name with meaning and unit."""
    metadata: dict[str, str] = {
        key.decode(): value.decode() for key, value in (field.metadata or {}).items()
    }
    if "label" in metadata:
        return metadata["label"]
    unit = f" [{metadata['unit']}]" if metadata.get("unit") else ""
    described = metadata.get("description")
    return f"{field.name}: {described}{unit}" if described else str(field.name)
