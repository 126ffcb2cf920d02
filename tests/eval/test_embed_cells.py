"""Feature tables of single cells by their masks: as the encoder makes them, and what is left out or refused."""

from __future__ import annotations

import csv

import jax
import numpy as np
import pandas as pd
import pytest

from protloc_jax.channels import Channel, ChannelSet
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.data.info import RecordsError
from protloc_jax.eval.embed import embed, left_out, skipped_file
from protloc_jax.eval.feature_origin import differences
from protloc_jax.eval.features import read
from protloc_jax.model.config import VitConfig
from protloc_jax.model.encoder import Encoder
from protloc_jax.model.flops import parameter_shapes
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

CHANNELS = ChannelSet((Channel("gfp", "protein"),))
CONFIG = VitConfig(size="custom", dim=8, depth=1, heads=2, patch=8, channels=1, image_size=24)
EMPTY = (1, 4, 5, 6)  # with batches of 3: in the first one, all of the second, and the padded last one


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 24, 24, 1)).astype(np.uint8)


def masks() -> np.ndarray:
    found = np.zeros((7, 24, 24), np.uint8)
    found[:, :4] = 2
    for i in set(range(7)) - set(EMPTY):
        found[i, 6:13, 4 + i : 12 + i] = 1
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records with masks, of which some show no cell; the same without masks; and a small encoder."""
    out = tmp_path_factory.mktemp("cells")
    manifest = manifests.make(pd.DataFrame({"id": [f"cell{n}" for n in range(7)]}), CHANNELS)
    records.write(out / "masked", manifest, lambda i: (pixels()[i], masks()[i]), workers=0)
    records.write(out / "bare", manifest, pixels().__getitem__, workers=0)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: 0.3 * rng.normal(size=a.shape).astype(np.float32), parameter_shapes(CONFIG))
    facts = {"weights": "random", "which": "initial", "channel_plan": "each channel in its own slot"}
    return out, Encoder(CONFIG, CHANNELS, params, PrepareConfig(Normalisation("none")), provenance=facts)


def test_a_table_is_what_the_encoder_makes_of_the_cells(made, tmp_path):
    out, plain = made
    encoder = plain.for_cells(attend="cell", input="masked:median")
    with records.open(out / "masked") as opened:
        table = embed(encoder, opened, tmp_path / "f.h5ad", pooling="cls+centre", batch=3, bad="skip", max_bad=0.6)
        whole = embed(plain, opened, tmp_path / "w.h5ad", batch=3)
    good = [0, 2, 3]
    wanted = encoder.features(pixels()[good], masks()[good], pooling="cls+centre")
    np.testing.assert_allclose(table.x, wanted, atol=1e-6)
    assert table.obs["id"].tolist() == ["cell0", "cell2", "cell3"]
    told = read(tmp_path / "f.h5ad").uns
    assert (told["pooling"], told["attend"], told["attend_min_share"]) == ("cls+centre", "cell", 0)
    assert (told["input"], told["left_out"]) == ("masked:median", 4)
    assert left_out(told) == "4 images that are damaged or do not show their cell"
    with skipped_file(tmp_path / "f.h5ad").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["cell1", "cell4", "cell5", "cell6"]
    assert {row["reason"] for row in rows} == {"the cell covers no patch of the image"}
    # Masks are there, but nobody asked for them.
    assert len(whole.x) == 7 and not {"attend", "attend_min_share", "input", "left_out"} & set(whole.uns)
    unlike = differences(whole.uns, told, owner="the head", where="the table")
    assert {line.partition(":")[0] for line in unlike} == {"attend", "attend_min_share", "input", "pooling"}


def test_images_without_their_cell_stop_a_table_by_id(made, tmp_path):
    out, encoder = made
    with records.open(out / "masked") as opened, pytest.raises(RecordsError) as caught:
        embed(encoder, opened, tmp_path / "f.h5ad", pooling="centre", batch=3)
    said = str(caught.value)
    assert "4 of the 7 images are damaged or do not show their cell" in said
    assert all(f"id 'cell{i}': the cell covers no patch of the image" in said for i in EMPTY)
    assert not (tmp_path / "f.h5ad").exists()


def test_records_without_masks_and_windows_are_refused_by_name(made, tmp_path):
    out, encoder = made
    with records.open(out / "bare") as opened:
        with pytest.raises(RecordsError, match="bare: these records have no masks, which pooling=centre needs"):
            embed(encoder, opened, tmp_path / "f.h5ad", pooling="centre")
        with pytest.raises(RecordsError, match="which input=masked:0 needs"):
            embed(encoder.for_cells(input="masked"), opened, tmp_path / "f.h5ad")
    with records.open(out / "masked") as opened, pytest.raises(ValueError, match="whole single-cell crops"):
        embed(encoder, opened, tmp_path / "f.h5ad", pooling="centre", windows="grid:1x1")
    assert not list(tmp_path.iterdir())
