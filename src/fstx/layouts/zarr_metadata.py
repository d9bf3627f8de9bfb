"""The ``zarr.json`` document of an array, and the fill value in it, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fstx.errors import UsageError
from fstx.layouts.chunks import ChunkCodec
from fstx.types import Mode

Shape = tuple[int, ...]

DOCUMENT: str | None = "zarr.json"
OVERWRITE_MODE: Mode = "replace"


@dataclass(frozen=True)
class ZarrDirectory:
    """What the plan of a directory that is Zarr's says of it, whether it is an array or a group."""

    name: str

    @property
    def markers(self) -> tuple[str, ...]:
        """Files that make a directory a Zarr store; without one it is not overwritten."""
        return ("zarr.json", ".zgroup", ".zarray")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def entry(self) -> str | None:
        """None: readers open the directory, which is switched whole."""
        return None

    @property
    def document(self) -> str | None:
        """``zarr.json``: until it is there, nothing else is, whatever chunks are."""
        return f"{self.name}/{DOCUMENT}"

    @property
    def overwrite_mode(self) -> Mode:
        return OVERWRITE_MODE

    def replacing(
        self, existing: Sequence[str], /, *, keep_previous: bool = False
    ) -> tuple[Self, tuple[str, ...]]:
        return self, ()


def fill_bytes(value: object, dtype: np.dtype[Any]) -> bytes:
    little = dtype.newbyteorder("<")
    if value is None:
        return bytes(np.zeros((), little).tobytes())
    given = np.asarray(value)
    problem = UsageError(f"fill_value={value!r} is not a value of {dtype.name}")
    # Rank by numpy's kinds: a bool may not become a number, nor a float an integer, silently.
    allowed = {"b": "b", "i": "iu", "u": "iu", "f": "iuf", "c": "iufc"}[dtype.kind]
    if given.ndim or given.dtype.kind not in allowed:
        raise problem
    with np.errstate(all="ignore"):
        cast = given.astype(little)
    exact = dtype.kind not in "iu" or int(cast[()]) == int(given[()])
    if not exact or bool(np.isfinite(given)) != bool(np.isfinite(cast)):
        raise problem
    return bytes(cast.tobytes())


def fill_json(fill: bytes, dtype: np.dtype[Any]) -> object:
    """The fill value as ``zarr.json`` spells it, bit for bit."""
    if dtype.kind == "c":
        half = np.dtype(f"<f{dtype.itemsize // 2}")
        middle = len(fill) // 2
        return [fill_json(fill[:middle], half), fill_json(fill[middle:], half)]
    value = np.frombuffer(fill, dtype.newbyteorder("<"))[0]
    if dtype.kind == "b":
        return bool(value)
    if dtype.kind in "iu":
        return int(value)
    if np.isnan(value):
        plain = np.array(np.nan, dtype.newbyteorder("<")).tobytes()
        return "NaN" if fill == plain else "0x" + fill[::-1].hex()
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)


def array_metadata(
    shape: Shape, codec: ChunkCodec, shards: Shape | None, attributes: object, names: object
) -> bytes:
    codecs = codec.metadata()
    if shards is not None:
        configuration = {
            "chunk_shape": list(codec.shape),
            "codecs": codecs,
            "index_codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": configuration}]
    document: dict[str, object] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": codec.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": list(shards or codec.shape)},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_json(codec.fill, np.dtype(codec.dtype)),
        "codecs": codecs,
        "attributes": {},
    }
    if attributes is not None:
        if not isinstance(attributes, Mapping):
            raise UsageError(f"attributes={attributes!r} is no mapping of names to JSON values")
        document["attributes"] = dict(attributes)
    if names is not None:
        if (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or len(names) != len(shape)
            or not all(n is None or isinstance(n, str) for n in names)
        ):
            raise UsageError(
                f"dimension_names={names!r}: a string or None for each of the {len(shape)} axes"
            )
        document["dimension_names"] = list(names)
    try:
        return json.dumps(document, indent=2, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"attributes can't be written as JSON: {error}") from error
