"""How the tests compile; and timm and transformers, which some machines load only with a hand.

torchvision may not match a CPU torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest
from quick_compilation import append_quick_flags

append_quick_flags()


def loaded(name: str) -> ModuleType:
    """A package built on PyTorch; skips with the reason where it cannot be loaded."""
    torch = pytest.importorskip("torch", reason=f"PyTorch and {name} are the oracle here")
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass
    except RuntimeError as error:
        # torchvision built for CUDA beside a CPU torch stops on operators that transformers never call: declare them.
        if "torchvision::" not in str(error):
            raise
        for module in [n for n in sys.modules if n.split(".")[0] in (name, "torchvision")]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")._operators_kept_alive = library  # type: ignore[attr-defined]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} is the oracle here: {error}")


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """The timm module."""
    return loaded("timm")


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """The transformers module."""
    return loaded("transformers")
