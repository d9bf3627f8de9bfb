"""Stores over real servers: primitives, lost answers, servers that lie, nothing secret in texts."""

from __future__ import annotations

import asyncio
import datetime
import errno
import os
import pickle
import signal
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from fstx.errors import PathError
from fstx.stores import Answer, Store, Tidies, probe
from fstx.stores.generic import GenericStore
from fstx.stores.opening import open_store, store_of
from fstx.stores.remote import RemoteStore
from fstx_conformance.seams.proxy.control import FaultProxy, Rule
from support.servers import Place


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    probe.forget()
    yield
    probe.forget()


def _store(place: Place) -> RemoteStore:
    store = open_store(place.url, **place.options)
    assert isinstance(store, RemoteStore)
    return store


def _crc(data: bytes) -> str:
    crc32c = pytest.importorskip("google_crc32c")
    return f"c{crc32c.value(data):08x}"


# --- primitives --------------------------------------------------------------------------------


def test_objects_come_and_go(remote_place: Place) -> None:
    """Protects the primitives of each service, one by one."""
    store = _store(remote_place)
    assert isinstance(store, Store)
    assert list(store.list("")) == []
    assert store.put_new("log/1", b"one") is Answer.DONE
    assert store.put_new("log/1", b"two") is Answer.TAKEN
    assert store.get("log/1") == b"one"
    store.put("log/1", memoryview(b"hello"), checksum=_crc(b"hello"))
    assert store.get("log/1", 1, 3) == b"el"
    assert store.get("log/1", 3) == b"lo"
    assert store.get("log/1", 3, 99) == b"lo"
    assert store.get("log/1", -2) == b"lo"
    assert store.get("log/1", -99) == b"hello"
    assert store.get("log/1", 50, 60) == b""
    store.put("empty", bytearray())
    assert (store.get("empty"), store.get("empty", -5)) == (b"", b"")
    names = ["log/1", "a b/ü#?%", "a.b", "a-b", "a/b"]
    for name in names[1:]:
        store.put(name, name.encode())
    assert [i.key for i in store.list("")] == sorted([*names, "empty"])
    assert [i.key for i in store.list("a")] == sorted(n for n in names if n[0] == "a")
    assert [i.key for i in store.list("log/")] == ["log/1"]
    assert store.get("a b/ü#?%") == "a b/ü#?%".encode()
    info = store.info("log/1")
    assert info is not None
    assert info.size_bytes == 5
    assert abs((info.modified_s or 0) - time.time()) < 60
    assert [(i.key, i.size_bytes, i.token) for i in store.list("log/")] == [
        ("log/1", 5, info.token)
    ]
    assert store.below("log").get("1") == b"hello"
    store.delete([*names, "empty", "absent"])
    assert list(store.list("")) == []
    assert store.info("log/1") is None
    with pytest.raises(FileNotFoundError, match="log/1"):
        store.get("log/1")


def test_a_token_guards_a_replacement(remote_place: Place) -> None:
    """Protects compare-and-swap: the token of a listing holds, one of old does not."""
    store = _store(remote_place)
    assert store.replace_if("k", b"0", None) is Answer.DONE
    token = next(store.list("k")).token
    assert store.replace_if("k", b"1", token) is Answer.DONE
    assert store.replace_if("k", b"2", token) is Answer.TAKEN
    assert store.replace_if("k", b"2", None) is Answer.TAKEN
    assert store.get("k") == b"1"
    store.delete(["k"])
    assert store.replace_if("k", b"3", token) is Answer.TAKEN
    assert store.info("k") is None


def test_many_puts_need_no_threads(remote_place: Place) -> None:
    """Protects staging: uploads run beside each other on the file system's loop."""
    store = _store(remote_place)
    store.put("first", b"")
    before = threading.active_count()
    futures = [store.start_put(f"d/{n:03}", b"%d" % n) for n in range(200)]
    assert threading.active_count() <= before + 1
    for future in futures:
        future.result(60)
    assert len(list(store.list("d/"))) == 200
    store.delete([i.key for i in store.list("")])
    assert list(store.list("")) == []


def test_listings_have_pages(s3: Place, gcs: Place) -> None:
    """Protects listings longer than one answer of the service."""
    for place in (s3, gcs):
        store = _store(place)
        futures = [store.start_put(f"d/{n:05}", b"") for n in range(1203)]
        for future in futures:
            future.result(60)
        assert [i.key for i in store.list("")] == [f"d/{n:05}" for n in range(1203)]
        store.delete(i.key for i in store.list(""))
        assert list(store.list("")) == []


@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_a_wrong_checksum_is_found(kind: str, request: pytest.FixtureRequest) -> None:
    """Protects data from damage on the way: the service compares the CRC32C itself."""
    store = _store(request.getfixturevalue(kind))
    with pytest.raises(OSError, match="can't put"):
        store.put("k", b"abc", checksum=_crc(b"abd"))
    store.put("k", b"abc", checksum=_crc(b"abc"))


def test_large_objects_appear_whole_or_never(remote_place: Place) -> None:
    """Protects readers from half an upload, and the bucket from open ones."""
    store = _store(remote_place)
    piece = bytes(range(256)) * 4096
    writer = store.open("big")
    for _ in range(19):
        writer.write(piece)
    assert store.info("big") is None
    writer.write(b"end")
    writer.close()
    writer.close()
    assert store.get("big") == piece * 19 + b"end"
    for size in (0, 3, 20 << 20):
        writer = store.open("gone")
        writer.write(b"x" * size)
        writer.abort()
        assert store.info("gone") is None
    writer = store.open("small")
    writer.write(b"tiny")
    writer.close()
    assert store.get("small") == b"tiny"
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")
    assert isinstance(store, Tidies)
    if remote_place.kind == "s3":
        service = store.link.service
        assert store.link.wait(service.open_uploads("")) == []


def test_uploads_that_were_left_open_are_found(s3: Place) -> None:
    """Protects the bill: `tidy` aborts uploads of killed writers, and only old ones."""
    store = _store(s3)
    writer = store.open("big")
    writer.write(b"x" * (9 << 20))
    assert store.tidy(3600) == 0
    assert store.below("other").tidy(-60) == 0
    assert store.tidy(-60) == 1
    writer.abort()


def test_nothing_is_cached(remote_place: Place) -> None:
    """Protects from stale listings: what another client writes or deletes is seen at once."""
    store, other = _store(remote_place), remote_place.fs
    head = remote_place.path
    assert list(store.list("")) == []
    other.pipe_file(f"{head}/a", b"1")
    assert [i.key for i in store.list("")] == ["a"]
    other.pipe_file(f"{head}/a", b"22")
    assert [(i.size_bytes) for i in store.list("")] == [2]
    assert store.get("a") == b"22"
    other.rm_file(f"{head}/a")
    assert list(store.list("")) == []
    assert store.info("a") is None


def test_an_instance_serves_as_well_as_a_url(remote_place: Place) -> None:
    """Protects callers that have a file system: also an asynchronous one; it is left as it was."""
    import fsspec

    protocol = remote_place.url.partition("://")[0]
    one = _store(remote_place)
    one.put("a", b"1")
    # an asynchronous adlfs instance can't be closed at exit
    options = {**remote_place.options, "asynchronous": remote_place.kind != "azure"}
    fs = fsspec.filesystem(protocol, skip_instance_cache=True, **options)
    two = store_of(fs, remote_place.path)
    assert two.get("a") == b"1"
    assert two.identity == one.identity
    assert two.url == one.url == remote_place.url


def test_pickles_and_forks_work(remote_place: Place) -> None:
    """Protects workers: a store goes to other processes, by pickle and by fork."""
    store = _store(remote_place)
    store.put("a", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.identity == store.identity
    assert copy.get("a") == b"1"
    if not hasattr(os, "fork"):
        return
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            store.put("child", store.get("a"))
            store.start_put("later", b"2").result(20)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert [i.key for i in store.list("")] == ["a", "child", "later"]


# --- answers -----------------------------------------------------------------------------------

LOST = [
    Rule("reset_after", times=1),
    Rule("status_after", code=503, times=1),
    Rule("status_after", code=500, times=1),
    Rule("truncate", times=1),
    Rule("duplicate", answer=1, times=1),
    Rule("delay", wait_s=0.2, times=1),
    Rule("zombie", wait_s=0.1, times=1),
]


@pytest.mark.parametrize("rule", LOST, ids=lambda r: f"{r.do}{r.code or ''}")
def test_a_lost_answer_is_no_refusal(faulty_place: Place, rule: Rule) -> None:
    """Protects writers from being told that their own record is refused, or another's."""
    store, proxy = _store(faulty_place), faulty_place.proxy
    assert proxy is not None
    store.put("warm", b"")
    proxy.rules(replace(rule, method="PUT,POST", path="mine"))
    answer = store.put_new("mine", b"mine")
    assert answer in (Answer.DONE, Answer.TAKEN, Answer.UNKNOWN)
    proxy.clear()
    assert store.get("mine") == b"mine"
    assert store.put_new("mine", b"again") is Answer.TAKEN


@pytest.mark.parametrize("rule", [Rule("reset_before"), Rule("status", code=503)], ids=["r", "s"])
def test_a_request_that_was_lost_is_unknown(faulty_place: Place, rule: Rule) -> None:
    """Protects the question "did it land": without an answer nobody can tell, so nobody does."""
    store, proxy = _store(faulty_place), faulty_place.proxy
    assert proxy is not None
    proxy.rules(replace(rule, path="mine"))
    assert store.put_new("mine", b"mine") is Answer.UNKNOWN
    proxy.clear()
    assert store.info("mine") is None
    assert store.put_new("mine", b"mine") is Answer.DONE


def test_plain_puts_outlast_faults(faulty_place: Place) -> None:
    """Protects staging: requests that may be made twice are, also deletes, looks and parts."""
    store, proxy = _store(faulty_place), faulty_place.proxy
    assert proxy is not None
    proxy.rules(
        Rule("reset_after", method="PUT,POST", times=2),
        Rule("status", code=503, method="PUT,POST,DELETE", skip=1, times=2),
        Rule("truncate", method="GET", times=1),
        Rule("reset_before", method="GET", skip=1, times=1),
        Rule("status", code=500, skip=4, times=1),
    )
    for n in range(4):
        store.put(f"k/{n}", b"%d" % n)
    assert [store.get(f"k/{n}") for n in range(4)] == [b"0", b"1", b"2", b"3"]
    writer = store.open("big")
    writer.write(b"x" * (9 << 20))
    writer.close()
    assert len(list(store.list(""))) == 5
    store.delete([i.key for i in store.list("")])
    proxy.clear()
    assert list(store.list("")) == []


def test_an_upload_completes_though_the_answer_is_lost(faulty_place: Place) -> None:
    """Protects large objects: the completing request is settled by what is there."""
    store, proxy = _store(faulty_place), faulty_place.proxy
    assert proxy is not None
    writer = store.open("big")
    writer.write(b"x" * (9 << 20))
    proxy.rules(
        Rule("reset_after", method="POST", path="uploadId", times=1),
        Rule("reset_after", method="PUT", path="comp=blocklist|upload_id", times=1),
    )
    writer.close()
    proxy.clear()
    assert store.get("big") == b"x" * (9 << 20)


def test_a_conflict_of_requests_may_be_repeated(s3_faulty: Place, fault_proxy: FaultProxy) -> None:
    """Protects from giving up, or from waiting for another: AWS says so when two puts meet."""
    store = _store(s3_faulty)
    fault_proxy.rules(Rule("status", code=409, header="if-none-match", times=1))
    assert store.put_new("k", b"1") is Answer.BUSY
    assert store.put_new("k", b"1") is Answer.DONE


def test_a_client_that_repeats_is_no_witness(s3_faulty: Place, fault_proxy: FaultProxy) -> None:
    """Protects callers who let the client repeat: its last answer says nothing of its first attempt."""
    retries = {"retries": {"max_attempts": 3, "mode": "standard"}}
    store = open_store(s3_faulty.url, **s3_faulty.options, config_kwargs=retries)
    fault_proxy.rules(
        Rule("status_after", code=500, method="PUT", path="mine", times=1),
        Rule("status", code=403, method="PUT", path="mine", times=1),
    )
    assert store.put_new("mine", b"mine") is Answer.UNKNOWN
    assert store.get("mine") == b"mine"
    fault_proxy.rules(Rule("status", code=403, method="PUT", path="other", times=1))
    with pytest.raises(PermissionError):
        store.put_new("other", b"")


def test_refusals_are_raised(faulty_place: Place) -> None:
    """Protects from endless questions where nothing can have landed."""
    proxy = faulty_place.proxy
    assert proxy is not None
    nowhere = open_store(faulty_place.url.replace("//b", "//nob"), **faulty_place.options)
    for call in (
        lambda: nowhere.put_new("k", b""),
        lambda: nowhere.put("k", b""),
        lambda: nowhere.get("k"),
        lambda: list(nowhere.list("")),
        nowhere.probe,
    ):
        with pytest.raises(OSError, match="nob") as raised:
            call()
        assert raised.value.errno == errno.ENXIO or isinstance(raised.value, PermissionError)
        assert not isinstance(raised.value, FileNotFoundError)
    store = _store(faulty_place)
    proxy.rules(Rule("status", code=403))
    with pytest.raises(PermissionError):
        store.put_new("k", b"")
    with pytest.raises(PermissionError):
        store.get("k")


def test_a_server_that_is_not_there(s3: Place) -> None:
    """Protects from endless waiting: reading fails as a connection, a record's put is unknown."""
    options = {**s3.options, "endpoint_url": "http://127.0.0.1:9"}
    store = open_store(s3.url, **options)
    with pytest.raises(ConnectionError):
        store.get("k")
    assert store.put_new("k", b"") is Answer.UNKNOWN


def test_an_answer_that_never_comes(s3_faulty: Place, fault_proxy: FaultProxy) -> None:
    """Protects from hanging: an attempt has an end, and then nobody knows."""
    store = _store(s3_faulty)
    store.put("warm", b"")
    store.link._limit_s = 0.5
    fault_proxy.rules(Rule("stall", wait_s=30, path="mine"))
    assert store.put_new("mine", b"") is Answer.UNKNOWN


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs pthread_kill")
def test_an_interrupt_cancels_the_request(s3_faulty: Place, fault_proxy: FaultProxy) -> None:
    """Protects from writes after Ctrl-C: the coroutine has ended when the caller goes on."""
    store = _store(s3_faulty)
    store.put("warm", b"")
    fault_proxy.rules(Rule("hold", path="mine", wait_s=60))
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        store.put_new("mine", b"")
    timer.join()
    assert time.monotonic() - begun < 30
    loop = store.link.service.fs.loop
    for _ in range(100):
        names = [repr(t.get_coro()) for t in asyncio.all_tasks(loop)]
        if not any("once" in n for n in names):
            break
        time.sleep(0.02)
    assert not any("once" in n for n in names)
    fault_proxy.release()


# --- probe -------------------------------------------------------------------------------------


def test_an_honest_server_is_believed(remote_place: Place) -> None:
    """Protects users of good servers, and their buckets from what the probe writes."""
    store = _store(remote_place)
    proof = store.probe()
    assert proof.put_new, proof.put_new_reason
    assert "16 writers" in proof.put_new_reason
    assert proof.consistent
    assert proof.replace_if
    assert any("not on the list" in note for note in proof.notes)
    assert remote_place.names() == []
    assert store.below("x").probe() is proof


def test_a_server_that_ignores_conditions_is_found_out(s3_strip: Place) -> None:
    """Protects data from servers that accept a condition and overwrite."""
    proof = _store(s3_strip).probe()
    assert not proof.put_new
    assert "ignores the condition" in proof.put_new_reason
    assert not proof.replace_if
    assert proof.consistent
    assert s3_strip.names() == []


def test_a_server_that_races_is_found_out(s3_racy: Place) -> None:
    """Protects data from servers that keep a condition as long as nobody else writes."""
    proof = _store(s3_racy).probe()
    assert not proof.put_new
    assert "concurrent writers" in proof.put_new_reason
    assert not proof.replace_if


def test_a_lossy_network_is_no_lie(s3_lossy: Place) -> None:
    """Protects users of bad networks: lost answers are not taken for a lie, nor for a proof."""
    proof = _store(s3_lossy).probe()
    assert proof.put_new, proof.put_new_reason
    assert s3_lossy.names() == []


def test_a_server_that_refuses_conditions_is_named(
    s3_faulty: Place, fault_proxy: FaultProxy
) -> None:
    """Protects the message: refused is not ignored."""
    fault_proxy.rules(Rule("status", code=501, header="if-none-match"))
    proof = _store(s3_faulty).probe()
    assert not proof.put_new
    assert "refused" in proof.put_new_reason


def test_bare_etags_are_tried(s3_faulty: Place, fault_proxy: FaultProxy) -> None:
    """Protects radosgw: where the etag in quotes is refused, the bare one is tried and kept."""
    store = _store(s3_faulty)
    fault_proxy.rules(Rule("status", code=412, header="if-match", times=1))
    proof = store.probe()
    fault_proxy.clear()
    assert proof.replace_if
    store = _store(s3_faulty)
    store.put("k", b"1")
    info = store.info("k")
    assert info is not None
    assert store.replace_if("k", b"2", info.token) is Answer.DONE
    assert '"' not in fault_proxy.log()[-1]["headers"]["if-match"]
    store.link.service.other_quotes()


# --- secrets -----------------------------------------------------------------------------------


def _texts(call: Callable[[], Any]) -> str:
    import traceback

    import tblib.pickling_support

    tblib.pickling_support.install()  # as dask's workers do: causes and frames travel too
    try:
        call()
    except OSError as error:
        text = "".join(traceback.format_exception(error)) + repr(error)
        return text + repr(pickle.loads(pickle.dumps(error))) + str(pickle.dumps(error))
    raise AssertionError("nothing was raised")


def test_credentials_are_in_no_text(remote_place: Place) -> None:
    """Protects keys, tokens and connection strings: no URL, identity, error or pickled error shows them."""
    secret = "S3cr3tS3cr3tS3cr3tS3cr3tS3cr3t=="
    options = {
        "s3": {"key": "AKIDEXAMPLE123", "secret": secret, "token": f"t{secret}"},
        "gcs": {"session_kwargs": {"headers": {"Authorization": f"Bearer {secret}"}}},
        "azure": {},
    }[remote_place.kind]
    store = open_store(remote_place.url, **{**remote_place.options, **options})
    missing = open_store(
        remote_place.url.replace("//b", "//nob"), **{**remote_place.options, **options}
    )
    texts = [repr(store), store.url, store.identity, str(store.probe())]
    texts += [_texts(lambda: store.get("nope")), _texts(lambda: missing.put_new("k", b""))]
    texts += [_texts(lambda: missing.put("k", b"")), _texts(lambda: list(missing.list("")))]
    hidden = [secret, "AKIDEXAMPLE123", "AccountKey", "Bearer"]
    connection = remote_place.options.get("connection_string", "")
    hidden += [p.partition("=")[2] for p in connection.split(";") if p.startswith("AccountKey")]
    for text in texts:
        for value in hidden:
            assert value not in text


def test_a_shared_access_signature_is_in_no_text(azure: Place) -> None:
    """Protects SAS tokens, also in the endpoint's URL: they are credentials."""
    blob = pytest.importorskip("azure.storage.blob")
    given = dict(p.split("=", 1) for p in azure.options["connection_string"].split(";") if p)
    token = blob.generate_account_sas(
        given["AccountName"],
        given["AccountKey"],
        blob.ResourceTypes(service=True, container=True, object=True),
        blob.AccountSasPermissions(read=True, write=True, list=True, delete=True, create=True),
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
    )
    connection = f"BlobEndpoint={given['BlobEndpoint']};SharedAccessSignature={token}"
    store = open_store(azure.url, connection_string=connection)
    assert store.put_new("k", b"1") is Answer.DONE
    missing = open_store(azure.url.replace("//b", "//nob"), connection_string=connection)
    signature = token.partition("sig=")[2].partition("&")[0]
    assert len(signature) > 20
    texts = [repr(store), store.url, store.identity, str(store.probe())]
    texts += [_texts(lambda: store.get("nope")), _texts(lambda: missing.put_new("k", b""))]
    dead = connection.replace(f":{azure.port}", ":9")
    unreachable = open_store(azure.url, connection_string=dead)
    texts.append(_texts(lambda: unreachable.get("k")))
    assert not [t for t in texts if signature in t or urllib.parse.unquote(signature) in t]


# --- SFTP --------------------------------------------------------------------------------------


def _sftp(place: Place) -> GenericStore:
    store = open_store(place.url, **place.options)
    assert isinstance(store, GenericStore)
    return store


def test_sftp_objects_come_and_go(sftp: Place) -> None:
    """Protects the primitives over SFTP; no temporary file and no empty directory stays."""
    store = _sftp(sftp)
    assert isinstance(store, Store)
    assert list(store.list("")) == []
    assert store.put_new("log/1", b"one") is Answer.DONE
    assert store.put_new("log/1", b"two") is Answer.TAKEN
    store.put("log/1", b"hello")
    assert store.get("log/1") == b"hello"
    assert (store.get("log/1", 1, 3), store.get("log/1", 3)) == (b"el", b"lo")
    assert (store.get("log/1", -2), store.get("log/1", 3, 99)) == (b"lo", b"lo")
    writer = store.open("a/b/big")
    writer.write(b"x" * 100)
    assert store.info("a/b/big") is None
    writer.close()
    for future in [store.start_put(f"d/{n}", b"%d" % n) for n in range(20)]:
        future.result(60)
    assert len(list(store.list(""))) == 22
    assert [i.key for i in store.list("a")] == ["a/b/big"]
    assert pickle.loads(pickle.dumps(store)).get("log/1") == b"hello"
    store.delete([i.key for i in store.list("")])
    assert list(store.list("")) == []
    assert store.info("log/1") is None
    assert sftp.names() == []
    sftp.fs.pipe_file(f"{store._root}/d/.fstx-{'0' * 32}.tmp", b"left by a killed writer")
    assert list(store.list("")) == []
    assert (store.tidy(3600), store.tidy(-60)) == (0, 1)
    assert sftp.names() == []
    with pytest.raises(FileNotFoundError):
        store.get("log/1")
    with pytest.raises(OSError, match="condition"):
        store.replace_if("k", b"", "token")


def test_host_and_user_may_stand_in_the_url(sftp: Place) -> None:
    """Protects plain URLs: what fsspec takes out of one is taken, a password is shown nowhere."""
    host = f"test:sesame-open@127.0.0.1:{sftp.port}"
    store = open_store(f"ssh://{host}{sftp.path}", known_hosts=None)
    store.put("a", b"1")
    assert _sftp(sftp).get("a") == b"1"
    with pytest.raises(FileNotFoundError) as raised:
        store.get("b")
    for text in (repr(store), store.url, store.identity, str(raised.value)):
        assert "sesame" not in text
    with pytest.raises(PathError) as refused:
        open_store(f"tx::ssh://{host}/x")
    assert "sesame" not in str(refused.value)


def test_sftp_is_proven_by_its_rename(sftp: Place) -> None:
    """Protects SFTP users: the rename that refuses a taken name has one winner; the mode is not trusted."""
    proof = _sftp(sftp).probe()
    assert proof.put_new, proof.put_new_reason
    assert not proof.replace_if
    assert not proof.durable
    assert sftp.names() == []
