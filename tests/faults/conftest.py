"""The fault tests train the tiny run of tests/train."""

from __future__ import annotations

import sys
from pathlib import Path

TRAIN = str(Path(__file__).parent.parent / "train")
if TRAIN not in sys.path:
    sys.path.append(TRAIN)
