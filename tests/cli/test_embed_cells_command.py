"""Simulated yeast crops embedded by their masks through the command line, and heads that read new crops alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_predict_command import HEAD, supervised_run

from protloc_jax.cli.main import main
from protloc_jax.data import read as records_file
from protloc_jax.eval.features import read
from protloc_jax.eval.head_encoder import encoder_for
from protloc_jax.eval.head_file import load_heads, save_heads
from protloc_jax.eval.load import load

SEEN = ("--pooling", "centre", "--attend", "cell", "--input", "masked")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records of yeast cells with masks, a run, its features of the cells, and heads on those."""
    out = tmp_path_factory.mktemp("yeast")
    pack = "data pack simulated --preset yeast --difficulty easy --n-proteins 60 --fovs-per-protein 1 --size 128"
    assert main([*pack.split(), "--out", str(out / "records"), "--quiet"]) == 0
    supervised_run(out / "run", out / "records")
    embed = ["embed", "--weights", str(out / "run"), "--records", str(out / "records")]
    assert main([*embed, *SEEN, "--out", str(out / "cell.h5ad")]) == 0
    classify = ["classify", f"cell={out / 'cell.h5ad'}", "--head", "linear", "--out", str(out / "out"), "--quiet"]
    assert main([*classify, *(word for s in HEAD for word in ("--set", s))]) == 0
    return out


def test_features_are_the_encoder_s_of_images_and_masks(made):
    table = read(made / "cell.h5ad")
    with records_file.open(made / "records") as records:
        images, masks = (np.stack([of(i) for i in range(12)]) for of in (records.read, records.mask))
    assert set(np.unique(masks)) == {0, 1, 2}
    encoder = load(made / "run")
    alone = np.where(masks[..., None] == 1, images, 0).astype(images.dtype)
    wanted = encoder.for_cells(attend="cell").features(alone, masks, pooling="centre")
    np.testing.assert_allclose(table.x[:12], wanted, atol=1e-5)
    told = {key: table.uns[key] for key in ("pooling", "attend", "attend_min_share", "input")}
    assert told == {"pooling": "centre", "attend": "cell", "attend_min_share": 0.0, "input": "masked:0"}


def test_heads_read_new_crops_as_they_were_trained_and_refuse_others(made, tmp_path, capsys):
    head = ["predict", "--head", str(made / "out" / "heads" / "cell")]
    records = ["--weights", str(made / "run"), "--records", str(made / "records"), "--split", "test"]
    assert main([*head, *records, "--out", str(tmp_path / "p.csv")]) == 0
    table, again = read(made / "cell.h5ad"), read(tmp_path / "p.features.h5ad")
    np.testing.assert_allclose(again.x, table.x[table.obs["split"] == "test"], atol=1e-5)
    whole = dataclasses.replace(table, uns={k: v for k, v in table.uns.items() if k not in ("attend", "input")})
    whole.write(tmp_path / "whole.h5ad")
    assert main([*head, "--features", str(tmp_path / "whole.h5ad"), "--out", str(tmp_path / "no.csv")]) == 2
    said = capsys.readouterr().err
    assert "attend: cell in the head, (none) in" in said and "input: masked:0 in the head, (none) in" in said
    # What a head's file says of it is checked like an option.
    heads = load_heads(made / "out" / "heads" / "cell")
    save_heads(dataclasses.replace(heads, features={**heads.features, "input": "maskd:0"}), tmp_path / "odd")
    with pytest.raises(ValueError, match="masked:0"):
        encoder_for(load_heads(tmp_path / "odd"), made / "run", load(made / "run").channels)
