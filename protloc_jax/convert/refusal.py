"""What the export says where it cannot do what was asked."""

from __future__ import annotations

import importlib
from types import ModuleType

from protloc_jax.convert.weight_file import WeightsRefused


class ExportRefused(WeightsRefused):
    """An encoder cannot be exported in this way; the message says what to change."""


def optional(module: str, *, why: str, extra: str) -> ModuleType:
    """An optional package; ExportRefused with the command that installs it where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportRefused(
            f"{why} needs the package '{module.split('.')[0]}' ({error}): pip install 'protloc-jax[{extra}]'."
        ) from error
