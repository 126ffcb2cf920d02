"""One device, eight devices, sharded parameters and micro-batches: the same run, and no needless communication."""

from __future__ import annotations

import numpy as np
import pytest
from equivalence_runs import runs as run_once


@pytest.fixture(name="runs", scope="session")
def _runs(tmp_path_factory):
    return lambda precision: run_once(tmp_path_factory, precision)


@pytest.mark.parametrize("layout", ["eight", "accumulated", "fsdp"])
def test_float64_losses_agree_to_1e_8_over_20_steps(runs, layout):
    one, other = runs("float64")["one"], runs("float64")[layout]
    assert one["dtype"] == other["dtype"] == "float64"
    assert len(one["losses"]) == 20
    np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-8)
    np.testing.assert_allclose(other["entropies"], one["entropies"], rtol=1e-8)
    np.testing.assert_allclose(other["params"], one["params"], atol=1e-8 * np.abs(one["params"]).max())
    assert other["position"] == one["position"] == [0, 20 * one["batch"]]


@pytest.mark.parametrize("layout", ["eight", "accumulated"])
def test_float32_losses_agree_to_1e_5_at_step_1_and_1e_4_at_step_5(runs, layout):
    one, other = runs("float32")["one"], runs("float32")[layout]
    assert one["dtype"] == other["dtype"] == "float32"
    difference = np.abs(np.divide(other["losses"], one["losses"]) - 1)
    assert difference[0] < 1e-5
    assert difference[:5].max() < 1e-4


def test_the_runs_that_agree_are_not_trivially_equal(runs):
    losses = np.array(runs("float64")["one"]["losses"])
    assert np.all(np.diff(losses) != 0)
    assert np.abs(losses - np.log(64)).max() > 0.01


def test_eight_devices_exchange_sums_only(runs):
    """No all-gather, all-to-all or permutation of anything: activations and images stay where they are."""
    for precision in ("float32", "float64"):
        kinds = {kind for kind, *_ in runs(precision)["eight"]["collectives"]}
        assert kinds == {"all-reduce"}


def test_sharded_parameters_are_gathered_and_nothing_else_is(runs):
    result = runs("float64")["fsdp"]
    assert result["split_leaves"] > 5
    assert runs("float64")["eight"]["split_leaves"] == 0
    gathered = [(dtype, shape) for kind, dtype, shape in result["collectives"] if kind == "all-gather"]
    assert gathered
    sizes = {"0": 0}
    for dtype, shape in gathered:
        assert dtype == "f64", f"{dtype}[{shape}] is gathered"
        sizes[shape] = int(np.prod([int(n) for n in shape.split(",")]))
    batch, tokens, width = result["batch"], 17, 32
    activations = batch * 2 * tokens * width
    assert max(sizes.values()) < activations, sizes
    # Prototypes [16, 64] stay where they are: features of 16 numbers of the 4 examples of a group go to them.
    assert "16,64" not in sizes and {"4,2,16", "4,4,16"} <= set(sizes)
