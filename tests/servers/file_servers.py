"""Configurations of a real sshd and a real smbd: all on the loopback address, nothing in /etc.

Each function writes into a folder and returns the command that serves a port.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SMB_USER, SMB_PASSWORD = "root", "not-a-secret"

_SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host
AuthorizedKeysFile {home}/authorized_keys
PidFile {home}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 200
MaxSessions 200
Subsystem sftp internal-sftp
LogLevel ERROR
"""

_SMBD = """\
[global]
  server role = standalone server
  interfaces = 127.0.0.1/8
  bind interfaces only = yes
  smb ports = {port}
  disable netbios = yes
  disable spoolss = yes
  load printers = no
  private dir = {home}/private
  lock directory = {home}/lock
  state directory = {home}/state
  cache directory = {home}/cache
  pid directory = {home}/run
  ncalrpc dir = {home}/ncalrpc
  log file = {home}/log.%m
  passdb backend = tdbsam:{home}/private/passdb.tdb
  map to guest = never
[share]
  path = {share}
  read only = no
"""


def sshd(home: Path, port: int) -> list[str]:
    """An sshd that lets in whoever has the key ``user`` in `home`; the whole file system is served."""
    home.mkdir(parents=True, exist_ok=True)
    for name in ("host", "user"):
        if not (home / name).exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name))
    shutil.copy(home / "user.pub", home / "authorized_keys")
    (home / "authorized_keys").chmod(0o600)
    (home / "sshd_config").write_text(_SSHD.format(port=port, home=home))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # built into sshd; empty, and only root needs it
    return [_program("sshd"), "-D", "-e", "-f", str(home / "sshd_config")]


def smbd(home: Path, port: int, share: Path) -> list[str]:
    """An smbd with `share` as the share of that name; `SMB_USER` is let in."""
    for name in ("private", "lock", "state", "cache", "run", "ncalrpc"):
        (home / name).mkdir(parents=True, exist_ok=True)
    share.mkdir(parents=True, exist_ok=True)
    conf = home / "smb.conf"
    conf.write_text(_SMBD.format(port=port, home=home, share=share))
    password = f"{SMB_PASSWORD}\n{SMB_PASSWORD}\n"
    _run("smbpasswd", "-c", str(conf), "-s", "-a", SMB_USER, typed=password)
    return [_program("smbd"), "-F", "--no-process-group", "-s", str(conf)]


def _program(name: str) -> str:
    """Daemons lie where a user's PATH does not lead."""
    path = (
        os.environ.get("PATH", "") + os.pathsep + os.pathsep.join(("/usr/sbin", "/usr/local/sbin"))
    )
    found = shutil.which(name, path=path)
    if found is None:
        raise RuntimeError(f"{name} is not there; `nox -s files` installs it")
    return found


def _run(*command: str, typed: str = "") -> None:
    command = (_program(command[0]), *command[1:])
    done = subprocess.run(command, input=typed, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
