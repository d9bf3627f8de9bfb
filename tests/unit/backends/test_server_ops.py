"""What calls of a server are before they connect: pickles, URLs, refusals of bad ones."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from fstx.backends import remotefs
from fstx.errors import PathError, UsageError
from fstx.ops import smb
from fstx.ops.sftp import SftpOps
from fstx.ops.smb import SmbOps


@pytest.mark.parametrize("kind", [SftpOps, SmbOps])
def test_no_secret_in_a_pickle(kind: Any) -> None:
    """BACKEND-44: password, passphrase and keys themselves stay; what else was given arrives, once."""
    secrets = {"password": "hidden-1", "passphrase": "hidden-2"} if kind is SftpOps else {
        "password": "hidden-1"
    }  # fmt: skip
    more = {"client_keys": [b"hidden-3"]} if kind is SftpOps else {}
    ops = kind("host", username="me", port=77, **secrets, **more)
    text = pickle.dumps(ops)
    assert b"hidden" not in text
    assert "hidden" not in repr(ops)
    copy = pickle.loads(text)
    assert copy._options == {"username": "me", "port": 77}
    assert copy.place == ops.place
    assert pickle.loads(text) is copy


def test_paths_of_keys_travel() -> None:
    """BACKEND-12: a worker finds the key by its path."""
    ops = SftpOps("host", client_keys=["/home/me/key"], lease_s=60)
    copy = pickle.loads(pickle.dumps(ops))
    assert copy._options == {"client_keys": ["/home/me/key"]}
    assert copy._locks.lease_s == 60


def test_urls() -> None:
    """FILES-23: user, port and escapes of a URL are read; where it lies is told without the user."""
    server, paths = remotefs._parse(["sftp://me%40x:p%3Aw@Host:2022/d/a b?#/../t"], {"port": 1})
    assert server == {"host": "host", "port": 2022, "username": "me@x", "password": "p:w"}
    assert paths == ["/d/t"]
    assert remotefs._parse(["sftp://h//d/e%20f/"], {})[1] == ["/d/e%20f"]
    assert SftpOps("h", port=22).place == "sftp://h"
    assert SmbOps("h", port=9).place == "smb://h:9"


@pytest.mark.parametrize(
    ("urls", "kind", "said"),
    [
        (["sftp:///d/t"], PathError, "names no host"),
        (["sftp://h"], PathError, "names no path"),
        (["sftp://h:x/d"], PathError, "no number"),
        (["sftp://h/d/t", "sftp://g/d/u"], UsageError, "one server"),
        (["sftp://h/d/t", "sftp://me@h/d/u"], UsageError, "one user"),
    ],
)
def test_urls_that_are_refused(urls: list[str], kind: type[Exception], said: str) -> None:
    """FILES-23: what names no place on one server is refused before anything connects."""
    with pytest.raises(kind, match=said):
        remotefs.open_sftp(urls, joined=len(urls) > 1)


def test_a_share_is_no_target() -> None:
    """FILES-23: a share has no parent to stage in."""
    with pytest.raises(PathError, match="is a share"):
        remotefs.open_smb(["smb://h/share"])


def test_settings_log_in_their_user_alone() -> None:
    """What `smbclient.ClientConfig` holds logs in who was named, or whom it names; never another one."""
    smbclient = pytest.importorskip("smbclient")
    config = smbclient.ClientConfig()
    before = {"username": config.username, "password": config.password}
    try:
        smbclient.ClientConfig(username="me", password="secret")
        assert smb._settings("me") == {"username": "me", "password": "secret"}
        assert smb._settings(None) == smb._settings("me")
        assert smb._settings("you") == {}
        smbclient.ClientConfig(username="me", password=None)
        assert smb._settings("me") == {}
    finally:
        smbclient.ClientConfig(**before)
