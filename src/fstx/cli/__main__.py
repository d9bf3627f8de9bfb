"""``python -m fstx.cli``."""

from __future__ import annotations

import sys

from fstx.cli import main

if __name__ == "__main__":
    sys.exit(main())
