"""Forecasts of memory against the compiler's account of the real step, and what is suggested where it is too much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from quick_compilation import forced_devices

from protloc_jax.channels import parse
from protloc_jax.cli.main import main
from protloc_jax.config import with_overrides
from protloc_jax.plan.compiled import Compiled, Exchanged, exchanged
from protloc_jax.plan.fits import verdict
from protloc_jax.plan.memory import BAND, BATCHES, GIB, MEMORY_GIB, Capacity, capacity, forecast, layout, read_mesh
from protloc_jax.plan.smaller import needed, suggest
from protloc_jax.train.experiment import Experiment
from protloc_jax.xla_flags import append_cpu_flags

CHANNELS = parse("nucleus,gfp:protein")
ROOT = Path(__file__).parents[2]


def made(**keys):
    return with_overrides(Experiment(), [f"{k}={v}" for k, v in keys.items()])


def of(*, image_shape=(256, 256), **keys):
    return layout(made(**keys), CHANNELS, image_shape=image_shape)


def parts(found):
    return {part.name: part.bytes for part in (*found.held, *found.made)}


@pytest.mark.parametrize(
    ("devices", "fsdp", "accumulation"), [pytest.param(4, 2, 2), pytest.param(8, 8, 1, marks=pytest.mark.slow)]
)
def test_the_compiler_agrees(devices, fsdp, accumulation):
    """Arguments to the byte; temporaries within the band that is told. Slow: a second mesh compiles."""
    program = (
        "import json, jax; from protloc_jax.channels import parse; from protloc_jax.config import with_overrides\n"
        "from protloc_jax.devices import make_mesh; from protloc_jax.train.experiment import Experiment\n"
        "from protloc_jax.plan.memory import forecast, layout; from protloc_jax.plan.compiled import compile_step\n"
        f"e = with_overrides(Experiment(), {SMALL!r} + ['run.mesh_fsdp={fsdp}', 'optim.accumulation={accumulation}'])\n"
        "of = layout(e, parse('nucleus,gfp:protein'), image_shape=(96, 96), image_bytes=2)\n"
        f"mesh = make_mesh(-1, {fsdp}); m, c = forecast(of, mesh), compile_step(of, mesh)\n"
        "print(json.dumps([m.arguments, c.arguments, m.temporary, c.temporary, c.aliased, m.state, c.outputs,"
        " {k.kind: k.bytes for k in c.exchanged}, dict(m=[list(p) for p in m.made])]))"
    )
    environ = forced_devices(devices) | {"PYTHONPATH": str(ROOT)}
    append_cpu_flags(environ)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    forecast_arguments, arguments, temporary, compiled, aliased, state, outputs, sent, _ = json.loads(
        done.stdout.splitlines()[-1]
    )
    assert forecast_arguments == arguments
    assert BAND[0] < compiled / temporary < BAND[1], (compiled, temporary)
    # The whole state is donated: what comes out of a step takes its place.
    assert aliased == state and outputs - aliased < 4096
    assert sent["all-gather"] > 0 and sent["all-reduce"] > 0


SMALL = [
    *("model.size=custom", "model.dim=128", "model.depth=3", "model.heads=2", "model.image_size=96", "model.patch=8"),
    *("model.channels=2", "model.remat=selective", "views.global_size=96", "views.local_size=48", "views.n_local=4"),
    *("method.out_dim=4096", "method.hidden=256", "optim.batch=32"),
]


def test_state_is_counted_by_the_shardings_of_training():
    """By hand: only tensors of 65,536 numbers and more whose axes 4 divides are split."""
    layout_of = of(**{"model.size": "Ti", "model.depth": 1, "method.out_dim": 4096})
    whole, split = (forecast(layout_of, read_mesh(made(**{"run.mesh_fsdp": n}), 4)) for n in (1, 4))
    dim = 192
    stem = 2 * 16 * 16 * dim
    # In blocks: qkv, proj (36,864 numbers: whole) and the two maps of the MLP.
    cut = [stem, 3 * dim * dim, 4 * dim * dim, 4 * dim * dim, dim * 2048, 2048 * 2048, 2048 * 256, 256 * 4096]
    saved = 4 * sum(n - n // 4 for n in cut)
    assert parts(whole)["params"] - parts(split)["params"] == saved
    assert parts(whole)["opt_state"] - parts(split)["opt_state"] == 2 * saved
    assert parts(split)["gathered parameters"] == 2 * 4 * sum(cut)
    assert parts(whole)["gradients"] == parts(split)["gradients"]
    assert parts(whole)["batches"] == parts(split)["batches"] == BATCHES * 64 // 4 * (256 * 256 * 2 + 8)
    assert parts(whole)["gradients"] == parts(whole)["params"]


def test_mae_pays_for_visible_patches_only():
    keys = {"method.name": "mae", "views.n_global": 1, "views.n_local": 0, "model.size": "Ti"}
    little, much = (
        parts(forecast(o, read_mesh(o.experiment, 1)))
        for o in (of(**keys, **{"method.mask_ratio": 0.75}), of(**keys, **{"method.mask_ratio": 0.25}))
    )
    # 50 and 148 tokens of 197; attention weights grow with their square.
    assert 0.2 < little["activations"] / much["activations"] < 50 / 148
    assert little["params"] == much["params"]


def test_what_is_suggested_is_the_mildest_of_each_kind_and_fits():
    big = of(**{"model.size": "B", "optim.batch": 256, "model.dtype": "bfloat16"})
    now = needed(big, 4)
    room = int(now * 0.6)
    found = suggest(big, 4, room)
    keys = [change.keys for change in found]
    assert ("model.remat=selective",) in keys and ("optim.accumulation=2",) in keys and ("optim.batch=128",) in keys
    assert all(change.bytes <= room for change in found)
    assert [change.updates for change in found][-1] == "others, a new run"
    # A tenth is reached by a far smaller batch, or with every update as it was by several keys together.
    together, alone = suggest(big, 4, now // 10)
    assert len(together.keys) > 1 and together.updates == "unchanged" and together.bytes <= now // 10
    assert [key.split("=")[0] for key in alone.keys] == ["optim.batch"] and alone.updates != "unchanged"
    assert suggest(big, 4, 10**6) == []


def test_a_method_that_compares_its_batch_is_not_told_to_split_it():
    contrastive = of(**{"method.name": "simclr", "views.n_local": 0, "model.size": "S", "optim.batch": 256})
    found = suggest(contrastive, 2, needed(contrastive, 2) // 2)
    assert found and not any("accumulation" in key for change in found for key in change.keys)


def test_the_verdict_knows_how_far_forecasts_were_off():
    small = of(**{"model.size": "S", "optim.batch": 64})
    memory = forecast(small, read_mesh(small.experiment, 1))
    least, most = (memory.total + round((band - 1) * memory.temporary) for band in BAND)

    def word(room):
        return verdict(small, memory, 1, Capacity(room, "a device"))[0].split(": ")[0].removeprefix("memory").strip()

    assert word(most) == "fits" and word(most - 1) == "probably fits"
    assert word(memory.total) == "probably fits" and word(memory.total - 1) == "probably does not fit"
    assert word(least) == "probably does not fit" and word(least - 1) == "does not fit"
    assert any("would fit" in line for line in verdict(small, memory, 1, Capacity(least - 1, "")))
    assert "nothing smaller" in verdict(small, memory, 1, Capacity(1, ""))[1]


def test_memory_by_number_and_by_name(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert capacity("24").bytes == 24 * GIB
    assert capacity("v5e").bytes == 16 * GIB == MEMORY_GIB["v5e"] * GIB
    # jax leaves a quarter of a GPU alone unless it is told otherwise.
    assert capacity("H100").bytes == 60 * GIB
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert capacity("h100").bytes == 72 * GIB
    with pytest.raises(ValueError, match=r"--memory h10: neither a number of GiB nor one of .*Did you mean 'h100'"):
        capacity("h10")
    with pytest.raises(ValueError, match="above 0"):
        capacity("0")


def test_exchanges_are_summed_by_kind():
    text = """ENTRY %main (p: f32[4]) -> f32[4] {
  %a = f32[8,16]{1,0} all-gather(f32[1,16]{1,0} %p), replica_groups={{0,1}}, dimensions={0}
  %b = (f32[4]{0}, bf16[2,3]{1,0}) all-reduce(f32[4]{0} %x, bf16[2,3]{1,0} %y), replica_groups={{0,1}}, to_apply=%sum
  %c = (f32[4]{0}, f32[32]{0}) all-gather-start(f32[4]{0} %x), replica_groups={{0,1}}, dimensions={0}
  ROOT %d = f32[] add(%e, %f)
}
"""
    found = {e.kind: (e.operations, e.bytes) for e in exchanged(text)}
    assert found == {"all-gather": (2, 4 * 128 + 4 * 32), "all-reduce": (1, 16 + 12)}
    assert "not the text of a compiled program" in exchanged("")


def test_the_command_prints_the_account_of_the_compiler_beside_the_forecast(capsys, monkeypatch):
    """The compilation itself is checked above; here, what is asked for and what is told of it."""
    asked = []

    def compiled(of, mesh):
        asked.append((of.experiment.model.size, dict(mesh.shape)))
        return Compiled(100, 90, 2**30, 80, (Exchanged("all-gather", 3, 5 * 10**6),), 2.0, "1 x cpu")

    monkeypatch.setattr("protloc_jax.plan.fits.compile_step", compiled)
    words = ["dry-run", "--config", str(ROOT / "configs/dino_vits16_hpa_fov.py"), "--examples", "100000", "--compile"]
    assert main([*words, "model.dtype=bfloat16"]) == 0
    told = capsys.readouterr().out
    assert asked == [("S", {"data": 1, "fsdp": 1})]
    assert "100 compiled" in told and "1.1 GB compiled" in told and "3 all-gather (5.0 MB)" in told
    assert "CPUs compute bfloat16 in float32" in told
    # This process has begun to compute with one device.
    assert main([*words, "--devices", "64"]) == 2
    assert "use a process of its own" in capsys.readouterr().err


def test_the_command_says_whether_it_fits_and_what_would(capsys):
    words = ["dry-run", "--config", str(ROOT / "configs/dino_vitl16_hpa_sc.py"), "--examples", "100000"]
    assert main([*words, "--devices", "8", "--memory", "v5e"]) == 0
    told = capsys.readouterr().out
    assert "does not fit" in told and "v5e, 16 GiB" in told
    assert "would fit" in told and "optim.accumulation=" in told
    assert main([*words, "--devices", "8", "--memory", "h200"]) == 0
    assert "memory       fits" in capsys.readouterr().out
    assert main([*words, "--memory", "v5"]) == 2
