"""What a step is said to exchange against what its compiled program exchanges, to the byte."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from quick_compilation import forced_devices

HERE = Path(__file__).parent
TRAIN = HERE.parent / "train"
sys.path.insert(0, str(TRAIN))

from compiled_step import CHANNELS, experiment_of  # noqa: E402

from protloc_jax.devices import MIN_SHARDED_ELEMENTS  # noqa: E402
from protloc_jax.plan.traffic import Collective, totals  # noqa: E402
from protloc_jax.plan.volumes import step_volumes  # noqa: E402
from protloc_jax.train.byol_config import ByolConfig  # noqa: E402

# Data parallel with micro-batches and half precision; parameters split over four of eight devices.
QUICK = ("1:2:bfloat16", "4:1:float32")
# At 64 devices; and at eight with a transformer and a head of real size, split as a run would split them.
LONG = {64: ("1:1:float32", "8:2:bfloat16", "64:1:float32"), 8: ("1:1:bfloat16:S", "4:1:bfloat16:S")}


def programs(devices: int, layouts: tuple[str, ...], topology: str = "") -> dict[str, list[Collective]]:
    """The exchanges of each layout's program, compiled for CPU devices or the described TPU slice."""
    environment = {**forced_devices(devices), "PROTLOC_TOPOLOGY": topology}
    # Only a description is wanted of libtpu: no metadata of a machine, and no lock on chips.
    environment |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), str(TRAIN), os.environ.get("PYTHONPATH", "")])
    environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, "-W", "error", str(HERE / "compiled_step.py"), *layouts]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {layout: [Collective(*one) for one in all_] for layout, all_ in found.items()}


def check(devices: int, layouts: tuple[str, ...], topology: str = "") -> None:
    for layout, found in programs(devices, layouts, topology).items():
        experiment, fsdp, floor = experiment_of(layout)
        data = devices // fsdp
        said: Counter[tuple[str, int]] = Counter()
        for volume in step_volumes(
            experiment, CHANNELS, data=data, fsdp=fsdp, min_elements=floor or MIN_SHARDED_ELEMENTS
        ):
            if not volume.own_program:
                said[volume.kind, {"data": data, "fsdp": fsdp, "all": devices}[volume.axis]] += volume.bytes
        assert totals(found) == dict(said), layout
        # Once a step: nothing waits for other devices inside the loops over blocks and micro-batches.
        assert {one.times for one in found} == {1}, layout
        # And no half precision on the wire, whatever the products are computed in.
        assert {dtype for one in found for dtype, _ in one.arrays} <= {"f32", "pred"}, layout


def test_eight_devices_exchange_what_is_said():
    check(8, QUICK)


@pytest.mark.slow  # minutes of compilation; the quick form is the same on fewer devices and smaller tensors
@pytest.mark.parametrize("devices", LONG)
def test_more_devices_and_tensors_of_real_size_exchange_what_is_said(devices):
    check(devices, LONG[devices])


@pytest.mark.slow  # needs libtpu, which describes slices to compile for; the quick form compiles for the CPU
def test_a_described_tpu_slice_exchanges_what_is_said():
    """Data parallel only: with split parameters libtpu gathers some of them halved and in pieces inside fusions."""
    pytest.importorskip("libtpu", reason="libtpu compiles for TPU slices: pip install 'jax[tpu]'")
    check(16, ("1:2:bfloat16", "1:1:bfloat16:S"), "v5e:4x4")


def test_one_device_exchanges_nothing_and_methods_that_are_not_modelled_are_refused():
    experiment = experiment_of("1:1:float32")[0]
    assert step_volumes(experiment, CHANNELS, data=1, fsdp=1) == []
    whole = dataclasses.replace(experiment.views, n_local=0)
    other = dataclasses.replace(experiment, method=ByolConfig(), views=whole)
    with pytest.raises(ValueError, match=r"method\.name=byol: only dino is modelled.*GFLOP an image"):
        step_volumes(other, CHANNELS, data=8, fsdp=1)
    balanced = dataclasses.replace(experiment, method=dataclasses.replace(experiment.method, centring="sinkhorn"))
    with pytest.raises(ValueError, match="sinkhorn and koleo exchange inside the loss"):
        step_volumes(balanced, CHANNELS, data=8, fsdp=1)
