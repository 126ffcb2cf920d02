"""The oracles of other packages, where they can be loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# One definition of how timm is loaded; it stands beside the model's own tests.
_place = Path(__file__).parent.parent / "model" / "conftest.py"
_spec = importlib.util.spec_from_file_location("model_conftest", _place)
assert _spec is not None and _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
timm = _module.timm
