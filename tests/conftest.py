"""What all tests share: the environment of storage clients, and the servers of `support.servers`."""

from __future__ import annotations

import os

from support.emulators import ENVIRONMENT
from support.servers import (
    _proxies,
    azure,
    azure_server,
    fault_proxy,
    faulty_place,
    gcs,
    gcs_server,
    own_sftp,
    proxies,
    remote_place,
    s3,
    s3_faulty,
    s3_lossy,
    s3_racy,
    s3_server,
    s3_strip,
    server_logs,
    sftp,
    sftp_server,
)

os.environ.update(ENVIRONMENT)  # before any client is imported: some read it then

__all__ = [
    "_proxies",
    "azure",
    "azure_server",
    "fault_proxy",
    "faulty_place",
    "gcs",
    "gcs_server",
    "own_sftp",
    "proxies",
    "remote_place",
    "s3",
    "s3_faulty",
    "s3_lossy",
    "s3_racy",
    "s3_server",
    "s3_strip",
    "server_logs",
    "sftp",
    "sftp_server",
]
