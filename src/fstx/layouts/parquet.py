"""Datasets of parquet files: parts with page checksums, and the ``_metadata`` file that names them.

``_metadata`` is parquet's own summary: the footers of all parts. A record of the batches that the parts hold
lies in its key-value metadata, so that a later call can tell what is there, and add to it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fstx.errors import UsageError

METADATA = "_metadata"
TAIL_BYTES = 64 << 10
"""Bytes at the end of a part that hold its footer, as a rule."""

FORMAT = 1
_KEY = b"fstx.batches"
_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class Part:
    """What is known of one batch: its bounds as planned, and what was written; no rows, no file."""

    start: int
    stop: int
    rows: int
    size_bytes: int = 0
    checksum: str = ""


@dataclass(frozen=True)
class DatasetRecord:
    """The batches of a dataset: in ``_metadata``, under ``fstx.batches``."""

    rows_per_batch: int
    totals: tuple[int, ...]  # rows that were asked for, one after the other
    fingerprint: tuple[str, int, str]
    readable: tuple[tuple[str, str], ...] = ()
    parts: Mapping[int, Part] = field(default_factory=dict)
    post: bool = False


def part_name(number: int) -> str:
    """Name of the file of one batch."""
    return f"part-{number:05d}.parquet"


def libraries() -> tuple[Any, Any]:
    """pyarrow and its parquet module; UsageError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("parquet needs pyarrow; run: pip install 'fstx[parquet]'") from error
    return pyarrow, pyarrow.parquet


def schema_of(schema: Any) -> Any:
    """A ``pyarrow.Schema`` of one, of names and types, or of what exports one (polars)."""
    pa, _ = libraries()
    if isinstance(schema, pa.Schema):
        return schema
    try:
        return pa.schema(schema)
    except (TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        raise UsageError(
            f"schema={schema!r:.200}: a pyarrow.Schema, or names and types, is needed ({error})"
        ) from error


def described(schema: Any) -> list[list[Any]]:
    """A schema in words, for fingerprints: names, types and whether null may be there."""
    return [[f.name, str(f.type), f.nullable] for f in schema]


def to_table(data: Any, schema: Any) -> Any:
    """`data` as a table of exactly `schema`.

    Takes a pyarrow Table or RecordBatch, an iterable of RecordBatches, a pandas DataFrame, what exports an
    Arrow stream (polars), a list of dictionaries, or a dictionary of columns.

    Raises
    ------
    UsageError
        Other columns, or values that don't fit; the message names them.
    """
    pa, _ = libraries()
    try:
        table = _table(pa, data, schema)
        if set(table.column_names) != set(schema.names):
            raise UsageError(
                f"the batch has columns {sorted(table.column_names)}, the schema {sorted(schema.names)}"
            )
        table = table.select(schema.names).cast(schema)
        empty = [f.name for f in schema if not f.nullable and table.column(f.name).null_count]
        if empty:
            raise UsageError(f"column {empty[0]} holds null, which the schema doesn't allow")
        return table
    except (pa.ArrowException, TypeError, ValueError, KeyError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"the batch doesn't fit the schema: {error}") from error


def _table(pa: Any, data: Any, schema: Any) -> Any:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if type(data).__module__.partition(".")[0] == "pandas":
        return pa.Table.from_pandas(data, preserve_index=False)
    if isinstance(data, Mapping):
        if set(data) != set(schema.names):
            return pa.table(dict(data))  # its columns are named in the error
        return pa.Table.from_pydict({name: data[name] for name in schema.names}, schema=schema)
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return pa.table(data)
    if not isinstance(data, Iterable):
        raise UsageError(
            f"a batch is a table, a DataFrame or a list of rows, not {type(data).__name__}"
        )
    rows = list(data)
    if rows and all(isinstance(row, pa.RecordBatch) for row in rows):
        return pa.Table.from_batches(rows)
    for row in rows:
        if not isinstance(row, Mapping) or set(row) - set(schema.names):
            raise UsageError(f"the row {row!r:.200} is no dictionary of the schema's columns")
    return pa.Table.from_pylist(rows, schema=schema)


def encode(table: Any, *, compression: str | None, level: int | None) -> memoryview:
    """A parquet file, with a checksum for each page."""
    pa, pq = libraries()
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression=compression or "none",
        compression_level=level,
        write_page_checksum=True,
    )
    return memoryview(sink.getvalue())


def check_compression(compression: str | None, level: int | None) -> None:
    """Raise `UsageError` for a codec or a level that this pyarrow can't write."""
    pa, _ = libraries()
    table = pa.table({"a": [0]})
    try:
        encode(table, compression=compression, level=level)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise UsageError(f"compression={compression!r}, level={level!r}: {error}") from error


def footer(tail: bytes) -> Any:
    """The footer of a part from its last bytes; None where more of them are needed.

    Raises
    ------
    ValueError
        This is no end of a parquet file.
    """
    pa, pq = libraries()
    if len(tail) < 12 or tail[-4:] != _MAGIC:
        raise ValueError("no parquet footer")
    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if needed > len(tail):
        return None
    try:
        return pq.read_metadata(io.BytesIO(_MAGIC + tail[-needed:]))
    except (pa.ArrowException, OSError, EOFError) as error:
        raise ValueError(f"a damaged parquet footer: {error}") from error


def metadata_file(
    schema: Any, footers: Sequence[tuple[str, Any]], record: DatasetRecord
) -> memoryview:
    """The ``_metadata`` file of parts, each with its footer."""
    pq = libraries()[1]
    named = {**(schema.metadata or {}), _KEY: _encode(record)}
    head = io.BytesIO()
    pq.ParquetWriter(head, schema.with_metadata(named)).close()
    whole = pq.read_metadata(io.BytesIO(head.getvalue()))
    for path, one in footers:
        one.set_file_path(path)
        whole.append_row_groups(one)
    sink = io.BytesIO()
    whole.write_metadata_file(sink)
    return sink.getbuffer()


def _encode(record: DatasetRecord) -> bytes:
    algorithm, version, digest = record.fingerprint
    return json.dumps(
        {
            "format": FORMAT,
            "rows_per_batch": record.rows_per_batch,
            "totals": list(record.totals),
            "fingerprint": {"algorithm": algorithm, "version": version, "digest": digest},
            "readable": [list(pair) for pair in record.readable],
            "batches": [
                [n, p.start, p.stop, p.rows, p.size_bytes, p.checksum]
                for n, p in sorted(record.parts.items())
            ],
            "post": record.post,
        },
        separators=(",", ":"),
    ).encode()


def read_record(data: bytes) -> DatasetRecord | None:
    """The record in the bytes of a ``_metadata`` file; None where there is none of ours.

    Raises
    ------
    ValueError
        It is damaged, or from a newer version; the message says which.
    """
    pa, pq = libraries()
    try:
        found = pq.read_metadata(io.BytesIO(data)).metadata or {}
    except (pa.ArrowException, OSError, EOFError) as error:
        raise ValueError(f"no parquet metadata: {error}") from error
    if _KEY not in found:
        return None
    value = json.loads(found[_KEY])
    if value.get("format") != FORMAT:
        raise ValueError(
            f"its record of batches has format {value.get('format')!r}, this version reads {FORMAT}"
        )
    try:
        print_ = value["fingerprint"]
        return DatasetRecord(
            value["rows_per_batch"],
            tuple(value["totals"]),
            (print_["algorithm"], print_["version"], print_["digest"]),
            tuple((str(a), str(b)) for a, b in value["readable"]),
            {n: Part(*rest) for n, *rest in value["batches"]},
            value["post"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"its record of batches is damaged: {error!r}") from error


__all__ = [
    "FORMAT",
    "METADATA",
    "TAIL_BYTES",
    "DatasetRecord",
    "Part",
    "check_compression",
    "described",
    "encode",
    "footer",
    "libraries",
    "metadata_file",
    "part_name",
    "read_record",
    "schema_of",
    "to_table",
]
