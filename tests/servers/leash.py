"""Runs a command that must not outlive its owner: ``leash.py COMMAND ...``.

It ends when its standard input closes (also when the owner was killed) or on SIGTERM, and takes the
command with it. Otherwise a killed test run would leave servers behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_S = 10.0


def main(command: list[str]) -> None:
    """Run `command`; afterwards it has ended."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def end(*_: object) -> None:
        child.terminate()
        time.sleep(GRACE_S)  # the thread below ends this process as soon as the child has ended
        child.kill()
        time.sleep(GRACE_S)

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=lambda: os._exit(child.wait() & 0xFF), daemon=True).start()
    os.read(0, 1)  # returns at end of file only: nothing is ever written
    end()


if __name__ == "__main__":
    main(sys.argv[1:])
