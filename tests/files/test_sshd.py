"""Transactions over OpenSSH's own server."""

from __future__ import annotations

import errno

import pytest

import fstx
from support.emulators import FilePlace, Sshd
from support.filejobs import backend
from support.filetests import LeaseTests
from support.trees import plant, tree

pytestmark = pytest.mark.xdist_group("sshd")


class TestSshd(LeaseTests):
    """OpenSSH."""

    first, stride = 2, 9

    @pytest.fixture
    def place(self, sshd: Sshd) -> FilePlace:
        return sshd.place()

    def test_reasons(self, place: FilePlace) -> None:
        """FILES-22: a refusal for which OpenSSH has no code comes out with the errno of its reason."""
        plant(place.root, {"f": b"1", "g": b"2", "full/f": b"3", "empty/": b""})
        ops = self.calls(place)
        home = str(place.root)
        reasons = {
            errno.EEXIST: [
                lambda: ops.open_new(f"{home}/f"),
                lambda: ops.mkdir(f"{home}/full"),
                lambda: ops.rename_new(f"{home}/f", f"{home}/g"),
                lambda: ops.link_new(f"{home}/f", f"{home}/g"),
            ],
            errno.ENOTEMPTY: [
                lambda: ops.rmdir(f"{home}/full"),
                lambda: ops.rename(f"{home}/empty", f"{home}/full"),
            ],
            errno.EISDIR: [
                lambda: ops.unlink(f"{home}/full"),
                lambda: ops.replace_file(f"{home}/f", f"{home}/full"),
            ],
            errno.ENOTDIR: [
                lambda: ops.rmdir(f"{home}/f"),
                lambda: ops.rename(f"{home}/full", f"{home}/f"),
            ],
            errno.ENOENT: [
                lambda: ops.unlink(f"{home}/no"),
                lambda: ops.rename(f"{home}/no", f"{home}/new"),
                lambda: ops.open_new(f"{home}/no/f"),
            ],
        }
        for number, calls in reasons.items():
            for i, call in enumerate(calls):
                with pytest.raises(OSError) as raised:
                    call()
                assert raised.value.errno == number, (number, i, raised.value)
        assert tree(place.root) == {"f": b"1", "g": b"2", "full/f": b"3", "empty/": b""}

    def test_a_link_as_target(self, place: FilePlace) -> None:
        """FILES-18: where the target is a link, what it points to is the target."""
        plant(place.root, {"real/t/a": b"1"})
        (place.root / "link").symlink_to(place.root / "real" / "t")
        with fstx.begin(place.at("link"), mode="replace", **place.options) as tx:
            tx.stage("a", b"2")
        assert (place.root / "link").is_symlink()
        assert (place.root / "real" / "t" / "a").read_bytes() == b"2"

    def test_another_mount(self, place: FilePlace) -> None:
        """FILES-19: a target on another file system than its parent is refused before a byte is written."""
        found = backend(
            FilePlace("sshd", place.url.replace(str(place.root), ""), place.options, place.root, 0),
            "proc",
        )
        with pytest.raises((fstx.CapabilityError, fstx.StorageError)):
            found.begin(mode="update", durability="data", require=frozenset())
