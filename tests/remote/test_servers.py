"""The servers keep the promises that later tests rely on, and the liars lie as they should."""

from __future__ import annotations

import asyncio
import socket

import asyncssh
import pytest

from fstx_conformance.seams.proxy.control import Rule
from support.emulators import HOST, Place
from support.rawhttp import Call, Objects, ask, burst, split, statuses, together

WRITERS = 32
BIG = 128 * 1024


def body_of(writer: int, size_bytes: int = 32) -> bytes:
    """Content that names its writer."""
    return f"{writer:08d}".encode() * (size_bytes // 8)


def winners(place: Place, name: str) -> list[int]:
    """The writers that were told that they had created `name`, of 32 at once."""
    objects = Objects(place)
    replies = burst(
        place.port,
        [objects.put(name, absent=True)] * WRITERS,
        [body_of(i) for i in range(WRITERS)],
    )
    assert {r.status for r in replies} <= {200, 201, 409, 412}, statuses(replies)
    return [i for i, r in enumerate(replies) if r.status in (200, 201)]


def test_clients_read_what_they_wrote(remote_place: Place) -> None:
    """Protects all tests through clients: content, listing and absence are seen at once."""
    fs, path = remote_place.fs, remote_place.path
    fs.pipe({f"{path}/a": b"x" * 1000, f"{path}/d/ü b#?%": b"y"})
    assert fs.cat_file(f"{path}/a", start=10, end=20) == b"x" * 10
    assert remote_place.names() == ["a", "d/ü b#?%"]
    fs.rm_file(f"{path}/a")
    assert not fs.exists(f"{path}/a")


def test_places_are_apart(remote_place: Place, request: pytest.FixtureRequest) -> None:
    """Protects tests from each other: a second place of the session is another, empty bucket."""
    emulator = request.getfixturevalue(f"{remote_place.kind}_server")
    ask(remote_place.port, Objects(remote_place).put("a"), b"first")
    with emulator.place() as other:
        assert other.bucket != remote_place.bucket
        assert ask(other.port, Objects(other).get("a")).status == 404
    assert ask(remote_place.port, Objects(remote_place).get("a")).body == b"first"


def test_one_of_many_creates(remote_place: Place) -> None:
    """Protects all tests of commits: of 32 that create an object at once one wins, with its content."""
    objects = Objects(remote_place)
    for turn in range(5):
        won = winners(remote_place, f"slot{turn}")
        assert len(won) == 1
        assert ask(remote_place.port, objects.get(f"slot{turn}")).body == body_of(won[0])


def test_one_of_many_half_sent_creates(remote_place: Place) -> None:
    """Protects against a server that checks the condition before the body has come."""
    call = Objects(remote_place).put("slot", absent=True)
    bodies = [body_of(i, BIG) for i in range(WRITERS)]
    found = split(remote_place.port, [call] * WRITERS, bodies)
    won = [i for i, status in enumerate(found) if status in (200, 201)]
    assert len(won) == 1, found
    assert ask(remote_place.port, Objects(remote_place).get("slot")).body == bodies[won[0]]


def test_no_update_is_lost(remote_place: Place) -> None:
    """Protects tests of conditional replacement: 8 writers that add 4 times each reach 32."""
    objects = Objects(remote_place)
    ask(remote_place.port, objects.put("count"), b"0")

    def add(writer: int) -> None:
        done = 0
        while done < 4:
            found = ask(remote_place.port, objects.get("count"))
            call = objects.put("count", token=objects.token(found))
            # the writer's name makes contents differ: the token of S3 is a hash of the content
            body = f"{int(found.body.split()[0]) + 1} {writer} {done}".encode()
            done += ask(remote_place.port, call, body).status in (200, 201)

    together(8, add)
    assert ask(remote_place.port, objects.get("count")).body.split()[0] == b"32"


def test_half_a_request_stores_nothing(remote_place: Place) -> None:
    """Protects tests that kill writers: a body that ends early leaves the old object as it was."""
    objects = Objects(remote_place)
    ask(remote_place.port, objects.put("a"), b"old")
    body = body_of(1, BIG)
    with socket.create_connection((HOST, remote_place.port), timeout=20) as connection:
        connection.sendall(objects.put("a").head(len(body)) + body[: BIG // 2])
    assert ask(remote_place.port, objects.get("a")).body == b"old"


def test_one_upload_in_parts_creates(s3: Place) -> None:
    """Protects tests of large objects on S3: of 8 uploads that complete if absent one wins."""
    path = f"/{s3.bucket}/big"

    def upload(writer: int) -> int:
        started = ask(s3.port, Call("POST", f"{path}?uploads"))
        number = started.body.split(b"<UploadId>")[1].split(b"</UploadId>")[0].decode()
        part = ask(s3.port, Call("PUT", f"{path}?partNumber=1&uploadId={number}"), body_of(writer))
        tag = part.headers["etag"]
        listed = f"<Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part>"
        order = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        call = Call("POST", f"{path}?uploadId={number}", {"If-None-Match": "*"})
        return ask(s3.port, call, order).status

    found = together(8, upload)
    assert found.count(200) == 1, found
    assert found.count(412) == 7, found


def test_clients_say_that_an_object_is_there(remote_place: Place) -> None:
    """Protects the stores' reading of errors: what each client raises for a refused create.

    s3fs knows the refusal only with a ``<Condition>`` in the answer, which ministack leaves out.
    """
    fs, path = remote_place.fs, f"{remote_place.path}/a"
    fs.pipe_file(path, b"first", mode="create")
    expected = OSError if remote_place.kind == "s3" else FileExistsError
    with pytest.raises(expected):
        fs.pipe_file(path, b"second", mode="create")
    assert fs.cat_file(path) == b"first"


def test_strip_makes_a_liar(s3_strip: Place) -> None:
    """Protects tests of the probe: with ``strip`` everybody is told that they created it."""
    assert len(winners(s3_strip, "slot")) == WRITERS


def test_racy_is_honest_with_one_writer(s3_racy: Place) -> None:
    """Protects tests of the probe: ``racy`` refuses one after another, and not at once."""
    objects = Objects(s3_racy)
    call = objects.put("alone", absent=True)
    assert [ask(s3_racy.port, call, b"x").status for _ in range(3)] == [200, 412, 412]
    tag = objects.token(ask(s3_racy.port, objects.get("alone")))
    assert ask(s3_racy.port, objects.put("alone", token='"other"'), b"y").status == 412
    assert ask(s3_racy.port, objects.put("alone", token=tag), b"y").status == 200
    assert ask(s3_racy.port, objects.put("absent", token=tag), b"y").status == 404
    assert len(winners(s3_racy, "slot")) > 1


def test_lossy_applies_what_it_does_not_answer(s3_lossy: Place, s3: Place) -> None:
    """Protects tests of lost answers: some are lost, and every put was done all the same."""
    objects = Objects(s3_lossy)
    lost = 0
    for i in range(20):
        try:
            ask(s3_lossy.port, objects.put(f"{i}", absent=True), b"x")
        except ConnectionError:
            lost += 1
        assert ask(s3.port, Objects(s3).get(f"{i}")).body == b"x"
    assert 0 < lost < 20


def test_lost_answer_looks_like_a_conflict(faulty_place: Place) -> None:
    """Protects the need for a nonce: clients repeat a create that was done, and call their own a conflict."""
    fs, path = faulty_place.fs, f"{faulty_place.path}/a"
    assert faulty_place.proxy is not None
    fs.exists(path)  # connects before the fault
    faulty_place.proxy.rules(Rule("reset_after", method="PUT,POST", times=1))
    with pytest.raises(OSError):
        fs.pipe_file(path, b"mine", mode="create")
    log = faulty_place.proxy.log()
    assert [e["do"] for e in log if e["method"] in ("PUT", "POST")][:2] == ["reset_after", None]
    assert fs.cat_file(path) == b"mine"


def test_sftp_creates_and_renames_exactly(sftp: Place) -> None:
    """Protects tests over SFTP: one of many creates, a plain rename refuses, a posix one replaces."""
    fs = sftp.fs
    fs.makedirs(sftp.path)
    fs.pipe_file(f"{sftp.path}/a", b"a" * 1000)
    assert sftp.names() == ["a"]

    async def scenario() -> None:
        options = {k: v for k, v in sftp.options.items() if k != "host"}
        async with (
            asyncssh.connect(sftp.options["host"], **options) as connection,
            connection.start_sftp_client() as client,
        ):

            async def create(name: str) -> bool:
                try:
                    async with client.open(f"{sftp.path}/{name}", "xb"):
                        return True
                except asyncssh.SFTPError:
                    return False

            assert sum(await asyncio.gather(*(create("x") for _ in range(WRITERS)))) == 1
            with pytest.raises(asyncssh.SFTPError):
                await client.rename(f"{sftp.path}/x", f"{sftp.path}/a")
            await client.posix_rename(f"{sftp.path}/x", f"{sftp.path}/a")
            with pytest.raises(asyncssh.SFTPError):
                await client.link(f"{sftp.path}/a", f"{sftp.path}/a")

    asyncio.run(scenario())
    assert sftp.names() == ["a"]
    assert fs.info(f"{sftp.path}/a")["size"] == 0
