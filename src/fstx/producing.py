"""Producing the chunks of one shard: streamed one by one, or kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, TypeAlias

from fstx.errors import UsageError
from fstx.plan import Index

Extras: TypeAlias = Mapping[str, Any]


def process_chunks(
    produce: Callable[[Index], Any],
    indices: Iterable[Index],
    *,
    write_chunk: Callable[..., Any] | None = None,
    accumulate: MutableMapping[Index, Any] | None = None,
    ragged_out: MutableMapping[Index, Extras] | None = None,
    chunks_per_shard: int = 1,
) -> dict[Index, Any]:
    """Produce the chunks of one shard and hand each on before the next one is made.

    Parameters
    ----------
    produce
        Called with each index; returns a chunk, or a tuple of a chunk and its extras.
    indices
        The shard's chunks; with ``chunks_per_shard=1`` the shard itself.
    write_chunk
        Streams: called as ``write_chunk(index, chunk, extras)``, and nothing is kept.
    accumulate
        Keeps: receives every chunk.
    ragged_out
        Receives the extras of every chunk that has some; only without `write_chunk`.
    chunks_per_shard
        How many chunks there must be.

    Returns
    -------
    dict
        Index to chunk where there is no sink (a single chunk); empty otherwise.

    Raises
    ------
    UsageError
        Both sinks, `write_chunk` with `ragged_out`, several chunks without a sink, or another
        number of indices than `chunks_per_shard`: all before a chunk is produced.
    """
    wanted = list(indices)
    if write_chunk is not None and accumulate is not None:
        raise UsageError("write_chunk and accumulate are two sinks; pass one of them")
    if write_chunk is not None and ragged_out is not None:
        raise UsageError("write_chunk streams extras too; ragged_out would keep them: pass one")
    if chunks_per_shard < 1:
        raise UsageError(f"chunks_per_shard={chunks_per_shard}: at least 1 is needed")
    if chunks_per_shard > 1 and write_chunk is None and accumulate is None:
        raise UsageError(
            f"chunks_per_shard={chunks_per_shard} needs a sink: pass write_chunk or accumulate"
        )
    if len(wanted) != chunks_per_shard or len(set(wanted)) != len(wanted):
        raise UsageError(
            f"{len(set(wanted))} different chunks were named, chunks_per_shard={chunks_per_shard}"
        )
    kept: dict[Index, Any] = {}
    for index in wanted:
        if write_chunk is not None:
            _stream(produce, index, write_chunk)
        else:
            chunk, extras = _split(produce(index))
            target = kept if accumulate is None else accumulate
            target[index] = chunk
            if ragged_out is not None and extras is not None:
                ragged_out[index] = extras
    return kept


def _stream(produce: Callable[[Index], Any], index: Index, write: Callable[..., Any]) -> None:
    """In a frame of its own, so that no name outlives the chunk's turn."""
    write(index, *_split(produce(index)))


def _split(made: Any) -> tuple[Any, Extras | None]:
    return made if isinstance(made, tuple) else (made, None)
