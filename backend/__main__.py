# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m backend`: the command line."""

from __future__ import annotations

import sys

from backend.cli import main

if __name__ == "__main__":
    sys.exit(main())
