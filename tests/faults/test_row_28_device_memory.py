"""A device that runs out of memory: what was asked of it, what would fit, exit status 78, and an intact checkpoint."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jax
import pytest

sys.path.append(str(Path(__file__).parent.parent / "train"))
import tiny_training as tiny

from protloc_jax.cli.main import main
from protloc_jax.config import with_overrides
from protloc_jax.plan.exhausted import explained
from protloc_jax.plan.memory import forecast, layout, read_mesh
from protloc_jax.train import loop as loop_module
from protloc_jax.train.checkpoint_files import load_weights, steps_in
from protloc_jax.train.device_memory import is_out_of_memory
from protloc_jax.train.exits import Exit

# In the words of XLA's GPU allocator.
WORDS = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes."


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "records"
    pack = "data pack simulated --preset opencell --difficulty easy --n-proteins 24 --fovs-per-protein 1 --size 32"
    assert main([*pack.split(), "--out", str(out), "--quiet"]) == 0
    return out


def failing_at(number, words=WORDS):
    """In place of `make_step`: a step that runs out of memory when it is to take step `number`."""

    def make(*_):
        step = tiny.cheap_step()

        def failing(state, batch):
            if int(state.step) + 1 == number:
                raise jax.errors.JaxRuntimeError(words)
            return step(state, batch)

        return failing

    return make


def pretrain(records, out):
    return main(["pretrain", *tiny.SETTINGS, f"data.records={records}", "data.split=all", f"run.out={out}"])


def test_at_the_first_step(tmp_path, monkeypatch, capsys, records):
    monkeypatch.setattr(loop_module, "make_step", failing_at(1))
    assert pretrain(records, tmp_path / "run") == Exit.DEVICE_MEMORY == 78
    told = capsys.readouterr().err
    assert WORDS in told
    assert "4 images on 1 device(s), data 1 x fsdp 1: 4 at once on each" in told
    assert "custom: 1 blocks of width 16, 1 heads, patch 4, remat=none, float32" in told
    assert re.search(r"forecast .*activations .*params ", told)
    assert re.search(r"would fit +optim\.batch=\d ", told)
    assert "there is none yet" in told
    assert steps_in(tmp_path / "run" / "checkpoints") == []


def test_in_the_middle_and_gone_on_from(tmp_path, monkeypatch, capsys, records):
    out = tmp_path / "run"
    monkeypatch.setattr(loop_module, "make_step", failing_at(8))
    assert pretrain(records, out) == 78
    newest = load_weights(out)[1]["step"]
    assert newest in (3, 6)  # a save is left out while the one before is still being written
    assert f"step {newest} is intact; the same command goes on from it" in capsys.readouterr().err
    monkeypatch.setattr(loop_module, "make_step", failing_at(-1))
    assert pretrain(records, out) == 0
    assert sorted(tiny.losses(out)) == list(range(1, 21))


def test_other_errors_of_a_device_are_not_explained_away(tmp_path, monkeypatch, records):
    monkeypatch.setattr(loop_module, "make_step", failing_at(1, "INTERNAL: the device fell off the bus"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="fell off the bus"):
        pretrain(records, tmp_path / "run")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (jax.errors.JaxRuntimeError(WORDS), True),
        # Compilation for a TPU, and an allocation between programs.
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in hbm"),
            True,
        ),
        (jax.errors.JaxRuntimeError("INTERNAL: Failed to allocate: Out of memory allocating 12 bytes"), True),
        # A full disk, as Orbax passes it on, and the host's own memory.
        (ValueError("RESOURCE_EXHAUSTED: Error writing file: No space left on device"), False),
        (MemoryError("out of memory"), False),
        (jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: barrier timed out"), False),
    ],
)
def test_what_counts_as_a_device_out_of_memory(error, expected):
    assert is_out_of_memory(error) == expected


def test_what_is_suggested_fits_by_the_same_forecast():
    keys = ["model.size=B", "optim.batch=512", "model.dtype=bfloat16"]
    of = layout(with_overrides(tiny.Experiment(), keys), tiny.CHANNELS)
    told = explained(of, 8, reason=WORDS, limit=20 * 2**30, steps=(10, 20))
    changes = re.findall(r"would fit +((?:[\w.]+=\w+ ?)+)", told)
    assert len(changes) >= 3 and "step 20 is intact" in told
    for text in changes:
        changed = with_overrides(of.experiment, text.split())
        assert forecast(of, read_mesh(changed, 8), changed).total <= 20 * 2**30
    assert forecast(of, read_mesh(of.experiment, 8)).total > 20 * 2**30
