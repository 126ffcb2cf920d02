"""Loading timm, which some machines can only do with a hand: its torchvision may not match a CPU-only torch.

transformers need the same; a test that uses them asks for this fixture first.
"""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(scope="session")
def timm():
    """The timm module; skips with the reason where it cannot be loaded."""
    torch = pytest.importorskip("torch", reason="PyTorch and timm are the oracle here")
    try:
        import timm
    except ImportError as error:
        pytest.skip(f"timm is the oracle here: {error}")
    except RuntimeError as error:
        # torchvision built for CUDA beside a CPU torch stops on operators that transformers never call: declare them.
        if "torchvision::" not in str(error):
            raise
        for name in [n for n in sys.modules if n.split(".")[0] in ("timm", "torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import timm

        timm._operators_kept_alive = library
    return timm
