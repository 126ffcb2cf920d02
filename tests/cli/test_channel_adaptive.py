"""One backbone for images of 2, 3, 4 and 6 channels: pretrained on four with channel sampling, embedding all."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from protloc_jax.channels import parse
from protloc_jax.cli.main import main
from protloc_jax.config import with_overrides
from protloc_jax.data import manifest as manifests
from protloc_jax.data import read as records_file
from protloc_jax.data import records
from protloc_jax.data.batch import Batch
from protloc_jax.eval.features import read
from protloc_jax.eval.head_encoder import encoder_for
from protloc_jax.eval.load import load
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial_model import beginning
from protloc_jax.train.loop import fit
from protloc_jax.train.methods import METHODS
from protloc_jax.train.resume import DataFacts
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.step import step_function
from protloc_jax.views.multicrop import Views

SETS = {
    2: "dapi,gfp",
    3: "protein,tubulin,brightfield",
    4: "microtubules,protein,nucleus,er",
    6: "nucleus,er,actin,rna,mitochondria,golgi",
}
SETTINGS = (
    *("model.size=custom", "model.dim=16", "model.depth=1", "model.heads=1", "model.patch=4", "model.image_size=8"),
    *("model.stem=channels", "model.channel_sampling=hierarchical", "views.recipe=dino", "views.jitter=0"),
    *("views.blur=0", "views.solarise=0", "views.interpolation=bilinear", "views.global_size=8", "views.local_size=4"),
    *("views.n_local=1", "views.normalise=self", "method.out_dim=8", "method.hidden=8", "method.bottleneck=8"),
    *("method.layers=2", "optim.batch=4", "optim.steps=2", "optim.warmup_epochs=0", "optim.freeze_last_layer_epochs=0"),
    *("run.compilation_cache=none", "data.workers=0", "model.scan=false"),
    "model.channel_names=nucleus,protein,microtubules,er,actin,other",
)


def picture(channels: int, row: int) -> np.ndarray:
    return np.random.default_rng([channels, row]).integers(0, 256, (12, 12, channels), np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Records of every set, a run on those with four channels, and a feature table of each."""
    out = tmp_path_factory.mktemp("adaptive")
    for count, names in SETS.items():
        table = pd.DataFrame({"id": [f"c{i}" for i in range(8)], "source": "", "split": ["train"] * 6 + ["val"] * 2})
        table["labels"] = [["a"], ["b"]] * 4
        manifest = manifests.make(table, parse(names))
        records.write(out / f"records{count}", manifest, partial(picture, count), workers=0)
    four = parse(SETS[4])
    asked = with_overrides(Experiment(), [*SETTINGS, "model.channels=4", f"run.out={out / 'run'}"])
    experiment = beginning(asked, four).experiment
    method, schedules = METHODS["dino"](experiment, four), Schedules(experiment, 2)
    step = jax.jit(step_function(experiment, method, schedules, cheap_views), donate_argnums=0)
    assert fit(experiment, batches, DataFacts(8, four, name="noise"), step=step).exit == 0
    for count in SETS:
        assert embedded(out, count, "natural", out / f"{count}.parquet") == 0
    return out


def cheap_views(batch, keys, dtype):
    """Views that compile at once; the real ones are a matter of other tests (and of the long one below)."""
    x = batch.image.astype(dtype) / 128 - 1
    return Views(jnp.stack([x[:, 2:10, 2:10], x[:, 9:1:-1, 2:10]], 1), x[:, None, 2:6, 2:6])


def batches(start):
    while True:
        numbers = np.arange(start, start + 4)
        image = np.stack([picture(4, n % 8) for n in numbers])
        yield Batch(image, np.stack([numbers // 8, numbers % 8], 1).astype(np.int32))
        start += 4


def embedded(out: Path, count: int, plan: str, table: Path) -> int:
    words = ["embed", "--weights", str(out / "run"), "--records", str(out / f"records{count}"), "--out", str(table)]
    return main([*words, "--plan", plan, "--batch", "8"])


@pytest.mark.parametrize("count", SETS)
def test_one_backbone_embeds_images_of_any_number_of_channels(made, count):
    table = read(made / f"{count}.parquet")
    assert table.x.shape == (8, 16) and np.isfinite(table.x).all() and table.x.std(0).min() > 0
    encoder = load(made / "run").for_channels(parse(SETS[count]))
    with records_file.open(made / f"records{count}") as opened:
        images = np.stack([opened[i] for i in range(8)])
    np.testing.assert_allclose(table.x, encoder.encode(images).cls, atol=1e-5)
    assert table.uns["channel_plan"] == encoder.provenance["channel_plan"]
    # Heads that learnt on this table read new images in the same way.
    heads = SimpleNamespace(features=table.uns, check_provenance=lambda told, where: None)
    again = encoder_for(heads, made / "run", parse(f"{SETS[count]},lipid"))
    assert again.channels == encoder.channels and again.provenance["channel_plan"] == table.uns["channel_plan"]
    told = {
        2: "nucleus=dapi, protein=gfp",
        3: "protein=protein, microtubules=tubulin, other=brightfield; rows that this run did not train: other",
        4: "microtubules=microtubules, protein=protein, nucleus=nucleus, er=er",
        6: "other=golgi; rows that this run did not train: actin, other",
    }
    assert table.uns["channel_plan"].endswith(told[count])


def test_plans_that_fill_slots_are_refused_and_others_are_listed(made, tmp_path, capsys):
    for plan in ("replicate", "natural+copy:gfp"):
        assert embedded(made, 2, plan, tmp_path / "no.parquet") == 2
        assert f"channel plan '{plan}' fills slots" in capsys.readouterr().err
    assert embedded(made, 2, "list", tmp_path / "no.parquet") == 0
    listed = capsys.readouterr().out
    assert re.search(r"per-channel +32 +\(dapi,0,0,0,0,0\) \(0,gfp,0,0,0,0\)", listed), listed
    assert "replicate" not in listed and "copy" not in listed
    assert embedded(made, 2, "slots:protein=gfp", tmp_path / "one.parquet") == 0
    told = read(tmp_path / "one.parquet").uns
    assert told["channel_plan"].endswith("empty slots without tokens")
    heads = SimpleNamespace(features=told, check_provenance=lambda told, where: None)
    again = encoder_for(heads, made / "run", parse(SETS[2]))
    assert again.plan.passes == ((None, "gfp", None, None, None, None),)
    assert again.provenance["channel_plan"] == told["channel_plan"]


def test_a_vocabulary_without_the_records_channels_is_refused_before_anything(made, tmp_path, capsys):
    train = ["pretrain", f"data.records={made / 'records4'}", f"run.out={tmp_path / 'run'}", *SETTINGS]
    assert main([*train, "model.channel_names=nucleus,proteins:other,er"]) == 2
    said = capsys.readouterr().err
    for words in ("no row for 'microtubules' (microtubules)", "'protein' (protein) Did you mean 'proteins'?"):
        assert words in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_public_command_trains_scores_and_goes_on(made, tmp_path, capsys):
    train = ["pretrain", f"data.records={made / 'records4'}", f"run.out={tmp_path / 'run'}", *SETTINGS[:-1]]
    assert main([*train, "run.eval_every=2", "optim.accumulation=2"]) == 0
    said = capsys.readouterr().out
    assert "2 x 17 + 1 x 5 an image" in said and "knn_macro_f1" in said
    assert load(tmp_path / "run").config.channel_names == ("microtubules", "protein", "nucleus", "er")
    assert main([*train, "model.channel_names=nucleus,protein,microtubules,er"]) == 2
    assert "model.channel_names" in capsys.readouterr().err
