"""Transactions over Samba: the rules of Windows, from a real server."""

from __future__ import annotations

import errno
import pickle
import subprocess
import sys
from typing import Any

import pytest
import smbclient

import fstx
from support.emulators import FilePlace, Smbd
from support.filejobs import backend, begin
from support.filetests import FileTests
from support.trees import plant, tree

pytestmark = pytest.mark.xdist_group("smbd")


class TestSmbd(FileTests):
    """Samba."""

    first, stride = 3, 15

    @pytest.fixture
    def place(self, smbd: Smbd) -> FilePlace:
        return smbd.place()

    @pytest.mark.parametrize("mode", ["replace", "update"])
    def test_a_reader_holds_the_target(self, place: FilePlace, mode: fstx.types.Mode) -> None:
        """FILES-20: a file that a client holds open stops the commit by TargetBusyError; nothing changed."""
        plant(place.root, {"t/a": b"old", "t/b": b"old"})
        unc = f"\\\\127.0.0.1\\share\\{place.root.name}\\t\\b"
        options = {k: v for k, v in place.options.items() if k != "patience_s"}
        cache: dict[str, object] = {}
        reader = smbclient.open_file(
            unc, "rb", share_access="rw", port=place.port, connection_cache=cache, **options
        )
        try:
            tx = begin(backend(place, "t", ops=self.calls(place)), mode)
            tx.stage("a", b"new")
            tx.stage("b", b"new")
            with pytest.raises(fstx.TargetBusyError):
                tx.commit()
            assert tree(place.root) == {"t/a": b"old", "t/b": b"old"}
        finally:
            reader.close()
            smbclient.reset_connection_cache(connection_cache=cache)
        with fstx.begin(place.at("t"), mode=mode, **place.options) as tx:
            tx.stage("b", b"new")
        assert (place.root / "t" / "b").read_bytes() == b"new"

    def test_a_worker_logs_in_by_settings(self, place: FilePlace) -> None:
        """FILES-25: a stager works in a process whose `smbclient.ClientConfig` holds the password of its
        user, and not where it holds that of another one."""
        tx = begin(backend(place, "t", ops=self.calls(place)))
        code = (
            "import pickle, sys, smbclient\n"
            "user, password, stager = pickle.load(sys.stdin.buffer)\n"
            "smbclient.ClientConfig(username=user, password=password)\n"
            "sys.stdout.buffer.write(pickle.dumps(stager.stage('a', b'far')))"
        )

        def staged(user: str) -> subprocess.CompletedProcess[bytes]:
            told: Any = (user, place.options["password"], tx.stager())
            command = [sys.executable, "-c", code]
            return subprocess.run(
                command, input=pickle.dumps(told), capture_output=True, timeout=60, check=False
            )

        done, refused = staged(place.options["username"]), staged("somebody")
        assert b"does not let this user in" in refused.stderr
        assert done.returncode == 0, done.stderr
        tx.adopt([pickle.loads(done.stdout)])
        tx.commit()
        assert tree(place.root) == {"t/a": b"far"}

    def test_a_new_file_where_a_directory_is(self, place: FilePlace) -> None:
        """FILES-26: a name that a directory has is taken, as on every other system."""
        plant(place.root, {"d/x": b"1"})
        ops = self.calls(place)
        folder = place.url.partition(f":{place.port}")[2]
        with pytest.raises(FileExistsError) as raised:
            ops.open_new(f"{folder}/d")
        assert raised.value.errno == errno.EEXIST

    def test_names_of_windows(self, place: FilePlace) -> None:
        """FILES-21: a name that Windows can't hold is refused before a byte is written."""
        with fstx.begin(place.at("t"), **place.options) as tx:
            with pytest.raises(fstx.PathError, match="Windows"):
                tx.stage("aux.txt", b"1")
            tx.stage("a", b"1")
        assert tree(place.root) == {"t/a": b"1"}
