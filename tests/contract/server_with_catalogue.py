# SPDX-License-Identifier: GPL-3.0-or-later
"""The real server with a catalogue of small weights; the released ones are too large for tests.

    python -m tests.contract.server_with_catalogue CATALOGUE.json serve ...
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from backend.cli import main
from backend.models import catalogue

if __name__ == "__main__":
    known = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    small = tuple(replace(file, **known[file.path]) for file in catalogue.FILES if file.path in known)
    vars(catalogue)["FILES"] = small
    sys.exit(main(sys.argv[2:]))
