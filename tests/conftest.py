"""How the tests compile, on how many threads and in which order they run; and timm and transformers, loaded with care.

A torchvision may not match a CPU torch.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from types import ModuleType

import pytest
from quick_compilation import append_quick_flags

append_quick_flags()
XLA_FLAGS = os.environ.get("XLA_FLAGS", "")
# Two processes share two cores: the second thread of a small product mostly waits, busily. What was imported before
# this file keeps its threads, but not in the processes that pytest-xdist and the tests start.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# Longest first, so that no process is left with one of them while the other has run out of files. The runs that
# multihost/ compares with are those of test_equivalence, hence its place.
LONG = (
    *("test_equivalence", "test_whole_path", "test_resume_after_kill", "test_every_preset", "test_views_multicrop"),
    *("test_supervised", "test_probe", "test_row_04_other_process_counts", "test_initial", "test_two_process_losses"),
    *("test_row_06_lost_process", "test_row_18_loss_spike", "test_row_27_data_workers"),
    *("test_simulated_difficulty", "test_study_command", "test_study_ws_dino", "test_loop", "test_bring_your_weights"),
    *("test_step", "test_ws_dino_weights"),
)


def pytest_configure(config: pytest.Config) -> None:
    # pytest-xdist would hand out the files with most tests first; those are quick ones.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # Commands that are called in this process add flags for training. This process has read its flags long ago; those
    # that it starts would compile to other last bits.
    os.environ["XLA_FLAGS"] = XLA_FLAGS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    # What the imports left stays to the end: each full collection would walk through all of it again, a tenth of a
    # second every few tests. Those that remain come when there is something to find.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 50)


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
