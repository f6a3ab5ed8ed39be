"""The tables of a store beside its features, as Arrow files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

_SCHEMAS = {
    "videos": pa.schema(
        [("id", pa.string()), ("subset", pa.string()), ("length", pa.int64()),
         ("duration_s", pa.float64()), ("stride_s", pa.float64()), ("offset_s", pa.float64()),
         ("group", pa.string())]
    ),
    "annotations": pa.schema(
        [("video", pa.int64()), ("start_s", pa.float64()), ("end_s", pa.float64()),
         ("label", pa.int64())]
    ),
    "points": pa.schema([("video", pa.int64()), ("time_s", pa.float64()), ("label", pa.int64())]),
}  # fmt: skip
TABLES = tuple(_SCHEMAS)
_OPTIONAL = "group"  # this column is left out where no row has a value


def write_table(folder: Path, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Writes `rows` of table `name` to `folder`/<name>.arrow."""
    schema = _SCHEMAS[name]
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
    table = pa.table(arrays, schema=schema)
    if _OPTIONAL in table.column_names and not any(table[_OPTIONAL].to_pylist()):
        table = table.drop_columns(_OPTIONAL)
    with (
        pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
