"""Runs that begin with the weights of another: what they start from, a frozen backbone, resuming, refusals."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny
from quick_compilation import forced_devices

from protloc_jax.channels import parse
from protloc_jax.config import ConfigError
from protloc_jax.eval.load import load, untrained
from protloc_jax.model.config import VitConfig
from protloc_jax.plan.dry_run import plan_beginning
from protloc_jax.train.checkpoint import Checkpointer, load_weights
from protloc_jax.train.checkpoint_files import steps_in
from protloc_jax.train.experiment import Experiment, InitConfig
from protloc_jax.train.initial import (
    Initial,
    WeightsChanged,
    WeightsDoNotFit,
    began_with,
    compare_source,
    initial_of,
    read_initial,
    read_source,
    refuse_misfits,
)
from protloc_jax.train.initial_model import beginning, with_architecture
from protloc_jax.train.methods import METHODS
from protloc_jax.train.resume import ResumeRefused
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import step_function
from protloc_jax.views.multicrop import Views

# Six steps an epoch: the backbone moves from step 6 on.
FREEZE = "init.freeze_backbone_epochs=1"
SHORT = ("optim.steps=9", "run.checkpoint_every=4")
KEY = jax.random.key(0)


pytestmark = pytest.mark.usefixtures("compiled_once")


class Killed(Exception):
    """A crash at a place of the test's choosing."""


@pytest.fixture(scope="module", autouse=True)
def saved_at_once():
    """Steps of no length would overtake the writing of checkpoints."""
    save = Checkpointer.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpointer, "save", lambda *args, **options: save(*args, **{**options, "wait": True}))
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A run whose student, teacher and centre have all gone ways of their own."""
    out = tmp_path_factory.mktemp("source")
    tiny.train(out, "optim.steps=8")
    return out


@pytest.fixture(scope="module")
def real_step():
    """The real step of a run that begins frozen, but for views that compile at once; made once for all tests."""
    experiment = tiny.experiment(Path("unused"), *SHORT, "init.weights=unused", FREEZE)

    def views(batch, keys, dtype):
        x = batch.image.astype(dtype) / 100 - 1
        return Views(jnp.stack([x, x[:, ::-1]], 1), x[:, None, 2:6, 2:6])

    dino = METHODS["dino"](experiment, tiny.CHANNELS)
    step = step_function(experiment, dino, Schedules(experiment, tiny.EXAMPLES // 4), views)
    return jax.jit(step, donate_argnums=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, source, real_step):
    """An uninterrupted run with a new head and one frozen epoch: its directory, outcome, and backbones by step."""
    out, seen = tmp_path_factory.mktemp("whole"), []

    def watched(state, batch):
        seen.append(jax.tree.map(np.array, {"params": state.params, "teacher": state.teacher}))
        return real_step(state, batch)

    outcome = tiny.train(out, *SHORT, f"init.weights={source}", FREEZE, step=watched)
    return (
        out,
        outcome,
        [*seen, jax.tree.map(np.array, {"params": outcome.state.params, "teacher": outcome.state.teacher})],
    )


def teacher_of(run: Path, part: str = "backbone"):
    return load_weights(run)[0][part]


def first_of(out: Path, *overrides: str, **options):
    """The state before the first step, seen by a step that takes none."""

    def stop(state, batch):
        caught.append(jax.tree.map(np.array, state))
        raise Killed

    caught: list = []
    with pytest.raises(Killed):
        tiny.train(out, *overrides, step=stop, **options)
    return caught[0]


def test_both_networks_begin_with_the_teachers_backbone_and_a_fresh_head(tmp_path, source):
    state = first_of(tmp_path, f"init.weights={source}")
    backbone = tiny.bits(teacher_of(source))
    assert tiny.bits(state.params["backbone"]) == tiny.bits(state.teacher["backbone"]) == backbone
    fresh = first_of(tmp_path / "fresh")
    assert backbone != tiny.bits(fresh.params["backbone"])
    # The head and everything else is that of a run from scratch with the same seed.
    assert tiny.bits(state.params["head"]) == tiny.bits(fresh.params["head"]) == tiny.bits(state.teacher["head"])
    assert tiny.bits((state.buffers, state.opt_state, state.key)) == tiny.bits(
        (fresh.buffers, fresh.opt_state, fresh.key)
    )


def test_features_before_the_first_step_are_the_sources(tmp_path, source):
    images = np.stack([tiny.image(n) for n in range(4)])
    state = first_of(tmp_path, f"init.weights={source}")
    encoder = load(source)
    for tree in (state.params, state.teacher):
        mine = dataclasses.replace(encoder, params=tree["backbone"])
        np.testing.assert_array_equal(mine.encode(images)[0], encoder.encode(images)[0])


def test_the_students_backbone_on_request(tmp_path, source):
    state = first_of(tmp_path, f"init.weights={source}", "init.which=params")
    student = load_weights(source, "params")[0]["backbone"]
    assert tiny.bits(state.params["backbone"]) == tiny.bits(state.teacher["backbone"]) == tiny.bits(student)
    assert tiny.bits(student) != tiny.bits(teacher_of(source))


def test_the_original_heads_and_centre_come_along(tmp_path, source):
    state = first_of(tmp_path, f"init.weights={source}", "init.head=original")
    assert tiny.bits(state.teacher) == tiny.bits(load_weights(source)[0])
    assert tiny.bits(state.params["head"]) == tiny.bits(load_weights(source, "params")[0]["head"])
    assert tiny.bits(state.params["head"]) != tiny.bits(state.teacher["head"])
    centre = load_weights(source, "buffers")[0]["centre"]
    assert np.any(centre) and tiny.bits(state.buffers["centre"]) == tiny.bits(centre)
    # So the teacher's logits are the source's.
    dino = METHODS["dino"](tiny.experiment(tmp_path), tiny.CHANNELS)
    images = jnp.asarray(np.random.default_rng(0).random((2, 3, 8, 8, 2)), jnp.float32)
    logits = jax.jit(lambda tree: dino._prototypes(tree, dino._encode(tree, images, None)))
    np.testing.assert_array_equal(logits(state.teacher), logits(load_weights(source)[0]))


def test_an_original_head_may_be_the_teachers_alone(source):
    read = read_source(InitConfig(weights=str(source), head="original"))
    alone = read._replace(items={"teacher": read.items["teacher"]})
    initial = initial_of(InitConfig(weights=str(source), head="original"), alone)
    assert tiny.bits(initial.params["head"]) == tiny.bits(read.items["teacher"]["head"]) and not initial.buffers
    bare = read._replace(items={"teacher": {"backbone": read.items["teacher"]["backbone"]}})
    with pytest.raises(WeightsDoNotFit, match=r"has no head .*init\.head=new"):
        initial_of(InitConfig(weights=str(source), head="original"), bare)


def test_the_backbone_rests_while_frozen_and_moves_after(whole, source):
    _, _, states = whole
    backbone = tiny.bits(teacher_of(source))
    for number, state in enumerate(states):
        moved = [tiny.bits(state[item]["backbone"]) != backbone for item in ("params", "teacher")]
        assert moved == [number > 6] * 2, f"before step {number}"
    heads = [tiny.bits(state["params"]["head"]["mlp_0"]) for state in states]
    # The learning rate is 0 at the first step.
    assert len(set(map(tuple, heads[1:]))) == len(heads) - 1
    updates = {name: int(n) for name, n in whole[1].state.opt_state.updates.items()}
    assert updates == {"main": 9, "last": 3, "backbone": 3}


def test_a_checkpoint_says_what_its_run_began_with(whole, source):
    out, _, _ = whole
    _, meta = load_weights(out)
    assert meta["init"] == {
        "weights": str(source),
        "checkpoint": str(source / "checkpoints" / "8"),
        "step": 8,
        "sha256": load_weights(source)[1]["weights_sha256"],
        "which": "teacher",
        "head": "new",
    }
    assert json.loads((out / "config.json").read_text())["init"]["weights"] == str(source)


@pytest.mark.parametrize("last", [2, 5, 7])
def test_a_run_killed_while_frozen_goes_on_bit_for_bit_without_its_source(tmp_path, source, whole, real_step, last):
    """Killed before the first checkpoint (of step 4), within the frozen epoch, and after it, the source being gone."""
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)

    def dying(state, batch):
        if int(state.step) == last:
            raise Killed
        return real_step(state, batch)

    run = tmp_path / "run"
    arguments = (run, *SHORT, f"init.weights={copy}", FREEZE)
    with pytest.raises(Killed):
        tiny.train(*arguments, step=dying)
    if last >= 4:
        shutil.rmtree(copy)
    outcome = tiny.train(*arguments, step=real_step)
    assert tiny.bits(outcome.state) == tiny.bits(whole[1].state)
    assert tiny.losses(run) == tiny.losses(whole[0])
    assert load_weights(run)[1]["init"]["sha256"] == load_weights(source)[1]["weights_sha256"]


def test_trees_in_hand_are_taken_and_read_only_by_a_run_that_begins(tmp_path, source):
    initial = read_initial(InitConfig(weights=str(source)))
    doubled = initial._replace(params=jax.tree.map(lambda x: 2 * x, initial.params))
    asked = []

    def make() -> Initial:
        asked.append(1)
        return doubled

    state = first_of(tmp_path, "run.checkpoint_every=1", initial=make)
    assert tiny.bits(state.params["backbone"]) == tiny.bits(doubled.params["backbone"])
    tiny.train(tmp_path, *SHORT, initial=make)
    assert len(asked) == 2 and compare_source({"weights": "elsewhere"}) == ""
    with pytest.raises(WeightsChanged, match=r"weights from no checkpoint .*elsewhere"):
        began_with({"weights": "elsewhere"})
    tiny.train(tmp_path, *SHORT, initial=make)
    assert len(asked) == 2


def test_other_weights_in_the_sources_place_stop_a_resumed_run(tmp_path, source):
    copy, run = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(source, copy)
    tiny.train(run, *SHORT, f"init.weights={copy}")
    record = load_weights(run)[1]["init"]
    assert compare_source(record) == ""
    tiny.train(tmp_path / "other", "optim.steps=8", loader_factory=lambda start: tiny.batches(start + 1))
    shutil.rmtree(copy)
    assert "gone" in compare_source(record)
    shutil.copytree(tmp_path / "other", copy)
    with pytest.raises(WeightsChanged, match=r"has other weights than those .* --force-resume"):
        tiny.train(run, *SHORT, f"init.weights={copy}")
    tiny.train(run, *SHORT, f"init.weights={copy}", force_resume=True)
    with pytest.raises(WeightsChanged, match="is not what the run began with"):
        began_with(record)
    with pytest.raises(ResumeRefused, match=r"init\.weights: .*copy -> .*elsewhere"):
        tiny.train(run, *SHORT, f"init.weights={tmp_path / 'elsewhere'}")


def test_a_source_that_trains_on_is_no_change(tmp_path, source):
    """Named is the run directory; meant, and remembered, is the checkpoint that it had then."""
    moving = tmp_path / "moving"
    shutil.copytree(source, moving)
    tiny.train(tmp_path / "run", *SHORT, f"init.weights={moving}")
    tiny.train(moving, "optim.steps=12", "run.keep_last=9", force_resume=True)
    assert max(steps_in(moving / "checkpoints")) == 12
    assert compare_source(load_weights(tmp_path / "run")[1]["init"]) == ""


def test_the_untrained_encoder_of_such_a_run_is_the_initial_one(tmp_path, source, whole):
    images = np.stack([tiny.image(n) for n in range(4)])
    began = untrained(whole[0])
    np.testing.assert_array_equal(began.encode(images)[0], load(source).encode(images)[0])
    assert began.provenance["weights"] == f"initial, {source / 'checkpoints' / '8'}"
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    tiny.train(tmp_path / "run", "optim.steps=2", "optim.warmup_epochs=0", f"init.weights={copy}")
    shutil.rmtree(copy)
    with pytest.raises(WeightsChanged, match=r"cannot be read again: .*copy"):
        untrained(tmp_path / "run")
    fresh = first_of(tmp_path / "fresh", "run.seed=3").params["backbone"]
    assert tiny.bits(untrained(tmp_path / "run", seed=3).params) == tiny.bits(fresh)


def test_every_misfit_is_named_before_anything_is_written(tmp_path, source):
    run = tmp_path / "run"
    with pytest.raises(WeightsDoNotFit) as refused:
        tiny.train(run, f"init.weights={source}", "model.dim=24", "model.registers=1", "model.depth=2")
    text = str(refused.value)
    shapes = jax.eval_shape(lambda: init_state(tiny.experiment(run), tiny.CHANNELS, KEY)).params["backbone"]
    names = {jax.tree_util.keystr(k, simple=True, separator="/") for k, _ in jax.tree.leaves_with_path(shapes)}
    assert all(f"backbone/{name}: float32" in text for name in names)
    assert "backbone/registers: missing in the weights" in text
    assert f"({len(names) + 1} differences)" in text
    assert not run.exists()
    with pytest.raises(WeightsDoNotFit, match=r"head/last/v: float32\[8, 8\] in the weights, float32\[8, 16\] here"):
        tiny.train(run, f"init.weights={source}", "init.head=original", "method.out_dim=16")
    other = tiny.facts(channels=parse("gfp,nucleus"))
    with pytest.raises(WeightsDoNotFit, match=r"reads the channels nucleus, gfp; the data have gfp, nucleus"):
        tiny.train(run, f"init.weights={source}", data=other)
    with pytest.raises(FileNotFoundError, match=r"init\.weights=/nowhere.* holds no checkpoint"):
        tiny.train(run, "init.weights=/nowhere")
    with pytest.raises(ValueError, match=r"would never be trained"):
        tiny.train(run, f"init.weights={source}", "init.freeze_backbone_epochs=4")
    assert not run.exists()


def test_half_precision_is_widened_and_double_refused(tmp_path, source):
    initial = read_initial(InitConfig(weights=str(source)))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), initial.params)
    state = first_of(tmp_path, initial=initial._replace(params=half))
    assert tiny.bits(state.params["backbone"]) == tiny.bits(
        jax.tree.map(lambda x: x.astype(np.float32), half["backbone"])
    )
    shapes = jax.eval_shape(lambda: init_state(tiny.experiment(tmp_path), tiny.CHANNELS, KEY))
    double = initial._replace(params=jax.tree.map(lambda x: x.astype(np.float64), initial.params))
    with pytest.raises(WeightsDoNotFit, match=r"backbone/cls: float64\[1, 1, 16\] in the weights, float32"):
        refuse_misfits(double, shapes, tiny.CHANNELS)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match=r"head=original: means nothing without weights"):
        InitConfig(head="original", freeze_backbone_epochs=1.0)
    with pytest.raises(ValueError, match=r"freeze_backbone_epochs=-1.*at least 0"):
        InitConfig(weights="x", freeze_backbone_epochs=-1.0)
    with pytest.raises(ConfigError, match="which"):
        InitConfig(weights="x", which="student")  # type: ignore[arg-type]


# The model of such a run.

WEIGHTS = VitConfig(size="custom", dim=16, depth=1, heads=1, patch=4, channels=2, image_size=8, position="hf")


def test_architecture_is_the_weights_and_execution_the_experiments():
    mine = VitConfig(dtype="bfloat16", scan=False, remat="block", drop_path=0.1, init="fan_in")
    found = with_architecture(mine, WEIGHTS)
    assert found == dataclasses.replace(
        WEIGHTS, dtype="bfloat16", scan=False, remat="block", drop_path=0.1, init="fan_in"
    )
    # Written otherwise, the same.
    assert with_architecture(VitConfig(size="S", mlp_ratio=4.0), VitConfig(size="custom", dim=384, depth=12, heads=6))
    assert with_architecture(VitConfig(layerscale=0.1), VitConfig(layerscale=1e-5)).layerscale == 1e-5


def test_what_was_asked_for_otherwise_is_listed_with_both_values():
    with pytest.raises(WeightsDoNotFit) as refused:
        with_architecture(
            VitConfig(size="B", patch=8, layerscale=0.1), WEIGHTS, given=("model.position", "optim.lr"), name="x"
        )
    text = str(refused.value)
    assert "init.weights=x is another model" in text
    for line in (
        "model.size: B asked for, custom in the weights",
        "model.patch: 8 asked for, 4 in the weights",
        "model.layerscale: 0.1 asked for, 0.0 in the weights",
        "model.position: dino asked for, hf in the weights",
    ):
        assert line in text
    assert text.count("asked for") == 4


def bare(out: Path, source: Path, *overrides: str) -> Experiment:
    """The tiny experiment without a word about the model."""
    experiment = tiny.experiment(out, f"init.weights={source}", *overrides)
    return dataclasses.replace(experiment, model=VitConfig(channels=2, dtype="bfloat16"))


def test_beginning_takes_the_model_and_tells(tmp_path, source):
    experiment = bare(tmp_path, source, FREEZE, "views.global_size=12", "views.normalise=none")
    begins = beginning(experiment, tiny.CHANNELS)
    saved = tiny.experiment(tmp_path).model
    assert begins.experiment.model == dataclasses.replace(saved, dtype="bfloat16")
    assert begins.initial is not None
    told = "\n".join(begins.words)
    digest = load_weights(source)[1]["weights_sha256"][:12]
    assert f"{source}: teacher of step 8, SHA-256 {digest}, with a new head" in told
    assert "frozen for 1 epoch" in told
    assert "position table for 8 pixels, resized on the fly to views of 12 (dino)" in told
    assert "normalisation differs:" in told and "none here" in told
    quiet = beginning(bare(tmp_path, source, "init.head=original"), tiny.CHANNELS).words
    assert len(quiet) == 2 and "with their head" in quiet[0]
    assert "from the first step" in beginning(bare(tmp_path, source), tiny.CHANNELS).words[2]
    assert beginning(tiny.experiment(tmp_path), tiny.CHANNELS) == (tiny.experiment(tmp_path), None, ())


def test_a_run_that_goes_on_needs_no_weights_for_its_model(tmp_path, source, whole):
    begins = beginning(bare(whole[0], tmp_path / "gone"), tiny.CHANNELS)
    assert begins.initial is None and begins.experiment.model.dim == 16
    with pytest.raises(WeightsDoNotFit, match=r"model\.depth: 0 asked for, 1 in the weights"):
        beginning(bare(whole[0], tmp_path / "gone"), tiny.CHANNELS, given=("model.depth",))


def test_channels_and_stems_point_to_conversion(tmp_path, source):
    with pytest.raises(WeightsDoNotFit, match=r"data\.channels=nucleus,gfp reads .*--to-channels gfp,nucleus --stem"):
        beginning(bare(tmp_path, source), parse("gfp,nucleus"))
    with pytest.raises(WeightsDoNotFit, match=r"data have nucleus, er\. protloc convert .*--to-channels nucleus,er"):
        beginning(bare(tmp_path, source), parse("nucleus,er"))


def test_a_dry_run_reads_and_compares_them(tmp_path, source):
    experiment, words = plan_beginning(bare(tmp_path, source), tiny.CHANNELS)
    assert experiment.model.dim == 16 and str(source) in words[0]
    with pytest.raises(WeightsDoNotFit, match=r"head/last/v"):
        plan_beginning(bare(tmp_path, source, "init.head=original", "method.out_dim=16"), tiny.CHANNELS)


def test_on_eight_devices(tmp_path, source):
    """Sharded parameters begin with the same bits, lie as the state's do, and train on."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).parent / "initial_on_devices.py"), str(tmp_path)],
        env=forced_devices(8),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
