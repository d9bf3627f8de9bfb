"""Writers of large objects on object stores: parts go up while the next one is being filled."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial

from fstx import seams
from fstx.stores import Answer
from fstx.stores.link import Link
from fstx.stores.services import Upload
from fstx.types import Buffer

_IN_FLIGHT = 4
_TRIES = 6
_GROWS_AFTER = 1000  # parts; services take 10000 at most, so later ones are larger


class RemoteWriter:
    """One object, put in parts; it appears whole at `close`, or never.

    Holds the part that is being filled and at most a few that are under way. The last part waits for
    `close`, so that an object of one part is one plain put.
    """

    def __init__(self, link: Link, key: str, place: str, *, part_bytes: int) -> None:
        self._link, self._key, self._place = link, key, place
        self._part_bytes = part_bytes
        self._buffer = bytearray()
        self._upload: Upload | None = None
        self._flying: list[Future[None]] = []
        self._number = 0
        self._open = True
        service = link.typed()
        self._most = 1 if service.ordered else _IN_FLIGHT
        self._grows = not getattr(link.service.fs, "fixed_upload_size", False)

    def write(self, data: Buffer, /) -> None:
        if not self._open:
            raise ValueError(f"the writer of {self._place} is closed")
        view = memoryview(data).cast("B")
        while view:
            size = self._size()
            if len(self._buffer) == size:
                self._send(last=False)
                continue
            taken = min(len(view), size - len(self._buffer))
            self._buffer += view[:taken]
            view = view[taken:]

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            if self._upload is None:
                service = self._link.typed()
                make = partial(service.put, self._key, self._buffer, "")
                size_bytes = len(self._buffer)
                self._link.wait(self._link.again(make, "put", self._place, size_bytes=size_bytes))
                return
            self._send(last=True)
            self._await(0)
            make = partial(self._link.typed().complete, self._upload)
            self._link.wait(self._link.again(make, "complete", self._place))
            self._upload = None
        except BaseException:
            self._give_up()
            raise

    def abort(self) -> None:
        if self._open:
            self._open = False
            self._give_up()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self._open = False
            self._give_up(wait=False)

    def _size(self) -> int:
        if not self._grows:
            return self._part_bytes
        return int(self._part_bytes * 2 ** (self._number // _GROWS_AFTER))

    def _send(self, *, last: bool) -> None:
        service = self._link.typed()
        if self._upload is None:
            self._begin()
        if self._upload is None:
            self._buffer = bytearray()
            return  # refused at the beginning: `close` tells
        self._await(self._most - 1)
        data, self._buffer = self._buffer, bytearray()
        part = partial(service.part, self._upload, self._number, data, last)
        self._upload.size_bytes += len(data)
        self._number += 1
        self._flying.append(
            self._link.submit(
                self._link.again(part, "put a part of", self._place, size_bytes=len(data))
            )
        )

    def _begin(self) -> None:
        make = partial(self._link.typed().begin, self._key)
        self._upload = self._link.wait(self._link.again(make, "begin", self._place))

    def _await(self, most: int) -> None:
        """Afterwards at most `most` parts are under way; the first failure is raised."""
        while len(self._flying) > most:
            self._link.result(self._flying[0])
            del self._flying[0]

    def _give_up(self, *, wait: bool = True) -> None:
        """Nothing is there afterwards, also no open upload, as far as the service can be reached."""
        self._buffer = bytearray()
        flying, self._flying = self._flying, []
        upload, self._upload = self._upload, None
        with contextlib.suppress(Exception):
            for future in flying:
                future.cancel()
            if upload is not None:
                make = partial(self._link.typed().abort, upload)
                work = self._link.again(make, "abort", self._place)
                if wait:
                    self._link.wait(work)
                else:
                    self._link.submit(work)


class ConditionalWriter(RemoteWriter):
    """As `RemoteWriter`, but `close` puts only on condition of what lies there, and gives the answer.

    Parameters
    ----------
    base
        Token of the object that may be replaced; "" for nothing.
    """

    def __init__(self, link: Link, key: str, place: str, *, part_bytes: int, base: str) -> None:
        super().__init__(link, key, place, part_bytes=part_bytes)
        self._base = base
        self._taken = False

    def write(self, data: Buffer, /) -> None:
        if not self._taken:
            super().write(data)

    def close(self) -> Answer:  # type: ignore[override]
        """DONE: it is there. TAKEN: something is, perhaps this, from a request whose answer was lost."""
        self._open = False
        try:
            answer = Answer.TAKEN if self._taken else self._finish()
        except BaseException:
            self._give_up()
            raise
        if answer is not Answer.DONE:
            self._give_up()
        return answer

    def _finish(self) -> Answer:
        service = self._link.typed()
        if self._upload is None:
            data = bytes(self._buffer)
            if self._base:
                return self._ask(lambda: service.swap(self._key, data, self._base), len(data))
            return self._ask(lambda: service.create(self._key, data), len(data))
        upload = self._upload
        self._await(0)
        last, self._buffer = self._buffer, bytearray()
        upload.size_bytes += len(last)
        if service.ordered:  # the last part completes it, and answers for all
            send = partial(service.part, upload, self._number, last, True)
            return self._ask(send, len(last))
        part = partial(service.part, upload, self._number, last, True)
        self._link.wait(self._link.again(part, "put a part of", self._place, size_bytes=len(last)))
        return self._ask(lambda: service.complete(upload), 0)

    def _ask(self, make: Callable[[], Awaitable[None]], size_bytes: int) -> Answer:
        answer = Answer.BUSY
        for turn in range(_TRIES):
            if turn:
                seams.pause(0.1 * 2**turn)
            try:
                answer = self._link.wait(self._link.once(make, "complete", self._place, size_bytes))
            except OSError:
                if not turn:
                    raise
                return Answer.TAKEN  # the upload is gone since the last try: see what lies there
            if answer in (Answer.DONE, Answer.TAKEN):
                return answer
        return answer

    def _begin(self) -> None:
        service = self._link.typed()

        async def begin() -> None:
            self._upload = await service.begin(self._key, self._base)

        answer = self._ask(begin, 0)
        self._taken = answer is Answer.TAKEN
        if self._upload is None and not self._taken:
            raise ConnectionError(f"an upload of {self._place} can't be begun ({answer.value})")


__all__ = ["ConditionalWriter", "RemoteWriter"]
