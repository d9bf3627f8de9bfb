"""A Zarr v3 array that is there, as its ``zarr.json`` tells: what is needed to write more of it.

Only what `fstx.layouts.chunks` writes bit for bit is taken; anything else is refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fstx.errors import UsageError
from fstx.layouts.chunks import DTYPES, ChunkCodec, check_compression, shuffle_of

Shape = tuple[int, ...]

_KNOWN = frozenset(
    {"zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding"}
    | {"fill_value", "codecs", "attributes", "dimension_names", "storage_transformers"}
)
_DAMAGED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


@dataclass(frozen=True)
class ExistingArray:
    """An array that is there.

    Parameters
    ----------
    shape, codec, shards
        Of the array; the codec has the chunk's shape.
    names
        Of its dimensions; None for one that has none.
    document
        Its ``zarr.json``.
    """

    shape: Shape
    codec: ChunkCodec
    shards: Shape | None
    names: tuple[str | None, ...]
    document: Mapping[str, Any]

    @property
    def unit(self) -> Shape:
        """What one stored object covers: the shard, else the chunk."""
        return self.shards or self.codec.shape

    def grown(self, shape: Shape) -> bytes:
        """The document of the same array with another shape."""
        return json.dumps({**self.document, "shape": list(shape)}, indent=2).encode()


def read_document(name: str, data: bytes) -> ExistingArray:
    """The array `name` of which `data` is the ``zarr.json``.

    Raises
    ------
    UsageError
        It is damaged, no array of Zarr v3, or stored in a way that isn't written here.
    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            raise TypeError("no JSON object")
        _check_kind(name, document)
        return _array(name, document)
    except UsageError:
        raise
    except _DAMAGED as error:
        raise UsageError(
            f"{name}/zarr.json can't be understood: {type(error).__name__}: {error}"
        ) from error


def _check_kind(name: str, document: dict[str, Any]) -> None:
    if document.get("zarr_format") != 3 or document.get("node_type") not in ("array", "group"):
        raise UsageError(f"{name}/zarr.json is not of Zarr v3")
    if document["node_type"] == "group":
        raise UsageError(
            f"{name} is a Zarr group; name an array in it (with layout='zarr'), or write the group by "
            "xarray's to_zarr through tx::"
        )
    odd = [
        key
        for key, value in document.items()
        if key not in _KNOWN
        and not (isinstance(value, dict) and value.get("must_understand") is False)
    ]
    if odd or document.get("storage_transformers"):
        raise _refusal(name, f"{(odd or ['storage_transformers'])[0]!r}")


def _refusal(name: str, what: str) -> UsageError:
    return UsageError(
        f"{name} is stored with {what}, which region= and append_dim= can't write; write it by zarr or "
        "xarray through tx:: or TransactionStore"
    )


def _array(name: str, document: dict[str, Any]) -> ExistingArray:
    shape = _shape(document["shape"], least=0)
    dtype = document["data_type"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _refusal(name, f"data type {dtype!r}")
    grid, keys = document["chunk_grid"], document["chunk_key_encoding"]
    if grid["name"] != "regular":
        raise _refusal(name, f"a chunk grid {grid['name']!r}")
    if keys["name"] != "default" or keys.get("configuration", {}).get("separator", "/") != "/":
        raise _refusal(name, f"chunk keys {keys!r}")
    outer = _shape(grid["configuration"]["chunk_shape"], least=1)
    names = document.get("dimension_names") or [None] * len(shape)
    codecs, inner, shards = document["codecs"], outer, None
    if len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed":
        how = codecs[0]["configuration"]
        sums = [_plain(codec) for codec in how["index_codecs"]]
        if how.get("index_location", "end") != "end" or sums != [_LITTLE, {"name": "crc32c"}]:
            raise _refusal(name, "another index of its shards")
        inner, shards, codecs = _shape(how["chunk_shape"], least=1), outer, how["codecs"]
    if not len(shape) == len(outer) == len(inner) == len(names):
        raise UsageError(f"{name}/zarr.json names different numbers of axes")
    if any(o % i for o, i in zip(outer, inner, strict=True)):
        raise UsageError(f"{name}/zarr.json has shards of {outer} and chunks of {inner}")
    fill = fill_from_json(document["fill_value"], np.dtype(dtype))
    codec = ChunkCodec(inner, dtype, fill, *_compression(name, dtype, codecs))
    if math.prod(inner) * codec.storage_dtype.itemsize >= 2**31 - 16:
        raise _refusal(name, f"chunks of {inner}, 2 GiB or more")
    return ExistingArray(shape, codec, shards, tuple(names), document)


def _shape(value: object, *, least: int) -> Shape:
    if not isinstance(value, list) or any(type(n) is not int or n < least for n in value):
        raise TypeError(f"{value!r} is no shape")
    return tuple(value)


def _plain(codec: Mapping[str, Any]) -> dict[str, Any]:
    """A codec without an empty configuration."""
    return {key: value for key, value in codec.items() if value != {}}


def _compression(name: str, dtype: str, codecs: list[Mapping[str, Any]]) -> tuple[str | None, int]:
    first, *rest = (_plain(codec) for codec in codecs)
    single = np.dtype(dtype).itemsize == 1
    if first != _LITTLE and not (single and first["name"] == "bytes"):
        raise _refusal(name, f"codec {first!r}")
    if not rest:
        return None, 0
    codec, how = rest[0]["name"], dict(rest[0].get("configuration", {}))
    plain = {
        "zstd": not how.get("checksum", False),
        "gzip": True,
        "blosc": how.get("cname") == "zstd" and how.get("shuffle") == shuffle_of(dtype),
    }
    if len(rest) > 1 or not plain.get(codec, False):
        raise _refusal(name, f"codec {rest[-1]!r}")
    return check_compression(codec, how["clevel" if codec == "blosc" else "level"])


def fill_from_json(value: object, dtype: np.dtype[Any]) -> bytes:
    """The fill value of ``zarr.json`` as it lies in memory, little-endian: one element.

    Raises
    ------
    ValueError, TypeError, OverflowError
        It is no value of `dtype`.
    """
    if dtype.kind == "c":
        if not isinstance(value, list) or len(value) != 2:
            raise TypeError(f"fill_value {value!r} is no complex number")
        half = np.dtype(f"<f{dtype.itemsize // 2}")
        return b"".join(fill_from_json(part, half) for part in value)
    little = dtype.newbyteorder("<")
    if dtype.kind == "f" and isinstance(value, str):
        if value.startswith("0x"):
            bits = bytes.fromhex(value[2:])[::-1]
            if len(bits) != dtype.itemsize:
                raise ValueError(f"fill_value {value!r} is not of {dtype.name}")
            return bits
        if value not in ("NaN", "Infinity", "-Infinity"):
            raise ValueError(f"fill_value {value!r} is no number")
        return np.array(float(value), little).tobytes()
    kinds: dict[str, Any] = {"b": bool, "i": int, "u": int, "f": (int, float)}
    if not isinstance(value, kinds[dtype.kind]) or (dtype.kind != "b" and isinstance(value, bool)):
        raise TypeError(f"fill_value {value!r} is not of {dtype.name}")
    return np.array(value, little).tobytes()
