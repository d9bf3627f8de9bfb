"""An SFTP server over a folder, without authentication: ``python -m servers.sftp_server PORT FOLDER``.

Exclusive creation, plain rename (refuses to replace) and hard links are exact, as with OpenSSH.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import asyncssh


class OpenServer(asyncssh.SSHServer):
    """Lets everybody in: it listens on the loopback address only."""

    def begin_auth(self, username: str) -> bool:
        return False


async def serve(port: int, folder: str) -> None:
    """Serve `folder` as the root directory until the process ends."""

    def files(channel: Any) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=folder.encode())

    await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        sftp_factory=files,
        server_factory=OpenServer,
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
