"""The whole path through the public commands, in miniature: simulate, pretrain, embed, evaluate, report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from protloc_jax.cli.main import main
from protloc_jax.data import read as records_file
from protloc_jax.eval.features import read

SMOKE = Path(__file__).parent.parent.parent / "configs" / "smoke.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with records, a run of a few steps and two feature tables."""
    out = tmp_path_factory.mktemp("path")
    records, run = out / "records", out / "run"
    simulate = "data pack simulated --preset opencell --difficulty easy --n-proteins 51 --fovs-per-protein 2 --size 64"
    assert main([*simulate.split(), "--out", str(records), "--quiet"]) == 0
    train = ["pretrain", "--config", str(SMOKE), f"data.records={records}", f"run.out={run}"]
    assert main([*train, "optim.steps=8", "run.compilation_cache=none"]) == 0
    for name, more in (("untrained", ["--untrained"]), ("trained", [])):
        embed = ["embed", "--weights", str(run), "--records", str(records), "--out", str(out / f"{name}.h5ad")]
        assert main([*embed, *more, "--batch", "16"]) == 0
    return out


def test_features_have_every_record_once_in_order(made):
    table = read(made / "trained.h5ad")
    with records_file.open(made / "records") as records:
        assert table.obs["id"].tolist() == list(records.manifest.ids)
        assert table.uns["data_sha256"] == records.info.digest
    assert table.uns["data_source"].startswith("simulated")
    assert not np.allclose(table.x, read(made / "untrained.h5ad").x)
    assert not list(made.glob("*.parts"))


def test_channel_plans(made):
    """`--plan`: one pass a channel, its features beside the others'."""
    from protloc_jax.eval.load import load

    encoder = load(made / "run")
    with records_file.open(made / "records") as records:
        images = np.stack([records[i] for i in range(4)])
    for plan, slots in (("replicate", images[..., [0, 0]]), ("per-channel", images * np.array([1, 0], images.dtype))):
        out = made / f"{plan}.h5ad"
        words = ["embed", "--weights", str(made / "run"), "--records", str(made / "records"), "--out", str(out)]
        assert main([*words, "--plan", plan, "--batch", "16"]) == 0
        table = read(out)
        assert table.x.shape[1] == 2 * encoder.dim
        assert plan.split("-")[0] in table.uns["channel_plan"].replace(" ", "-")
        np.testing.assert_allclose(table.x[:4, : encoder.dim], encoder.encode(slots).cls, atol=1e-5)


def test_plans_by_text_are_listed_and_recorded(made, tmp_path, capsys):
    """`--plan list` shows every plan with its width; the wiring stands in the table, also of images at native size."""
    words = ["embed", "--weights", str(made / "run"), "--records", str(made / "records"), "--batch", "16"]
    assert main([*words, "--plan", "list"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"per-channel +64 +\(nucleus,0\) \(0,protein\)", said), said
    out = tmp_path / "permuted.parquet"
    assert main([*words, "--plan", "permuted:0", "--size", "native", "--out", str(out)]) == 0
    assert "passes    (protein,nucleus): 32 = 1 x 32 numbers" in capsys.readouterr().out
    told = read(out).uns
    assert (told["channel_passes"], told["image_size"]) == ("protein,nucleus", "native")
    assert main([*words, "--plan", "slots:protien=nucleus", "--out", str(out)]) == 2
    assert "no model slot 'protien' Did you mean 'protein'?" in capsys.readouterr().err
    assert main(words) == 2
    assert "--out FILE" in capsys.readouterr().err


def test_windows_of_images_become_one_feature(made, tmp_path, capsys):
    """`--windows`: each quarter encoded at its own size, the lower of the two middle values of the four."""
    from protloc_jax.eval.load import load

    out = tmp_path / "windows.h5ad"
    words = ["embed", "--weights", str(made / "run"), "--records", str(made / "records"), "--out", str(out)]
    assert main([*words, "--windows", "grid:2x2", "--combine", "lower-median", "--batch", "16"]) == 0
    assert "windows   4 of 64 x 64: 0:32,0:32; 0:32,32:64; 32:64,0:32; 32:64,32:64" in capsys.readouterr().out
    table = read(out)
    told = {key: table.uns[key] for key in ("windows", "combine", "image_size")}
    assert told == {"windows": "grid:2x2", "combine": "lower-median", "image_size": "native"}
    encoder = load(made / "run", size="native")
    with records_file.open(made / "records") as records:
        images = np.stack([records[i] for i in range(4)])
    quarters = [images[:, y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
    each = np.sort([encoder.encode(quarter).cls for quarter in quarters], 0)
    np.testing.assert_allclose(table.x[:4], each[1], atol=1e-5)
    assert main([*words, "--combine", "median"]) == 2 and main([*words, "--windows", "ws_dino", "--size", "32"]) == 2
    said = capsys.readouterr().err
    assert "give --windows as well" in said and "windows are parts of images at native size" in said
    assert main([*words, "--windows", "0:32,0:72"]) == 2
    assert "on images of 64 x 64 pixels: window 1 (0:32,0:72) leaves the image" in capsys.readouterr().err


def test_scores_and_page(made, capsys):
    scores, page = made / "metrics.json", made / "report.html"
    tables = [f"{name}={made / f'{name}.h5ad'}" for name in ("untrained", "trained")]
    evaluate = ["evaluate", *tables, "--records", str(made / "records"), "--out", str(scores)]
    assert main([*evaluate, "--set", "resamples=100", "--set", "l2=0.01,0.1"]) == 0
    printed = capsys.readouterr().out
    assert "SYNTHETIC" in printed
    systems = json.loads(scores.read_text())["systems"]
    assert list(systems) == ["intensity only", "hand-made texture", "untrained", "trained"]
    assert all(0 <= s["knn"]["macro_f1"]["estimate"] <= 1 for s in systems.values())
    report = ["report", str(scores), "--out", str(page), "--run", str(made / "run"), "--records", str(made / "records")]
    assert main(report) == 0
    text = page.read_text()
    assert "hand-made texture" in text
    assert "Where the class token looks" in text
    assert not re.search(r"<script|https?://", text)


def test_a_run_that_begins_with_anothers_weights(made, tmp_path, capsys):
    """The config says nothing of the model; the plan, the training and `--untrained` all take it from the weights."""
    bare = json.loads((made / "run" / "config.json").read_text())
    bare["model"] = {"remat": "block"}
    config = tmp_path / "bare.json"
    config.write_text(json.dumps(bare))
    words = ["--config", str(config), f"init.weights={made / 'run'}", f"run.out={tmp_path / 'run'}"]
    words += [
        "optim.steps=4",
        "optim.warmup_epochs=0",
        "init.freeze_backbone_epochs=0.01",
        "run.compilation_cache=none",
    ]
    assert main(["dry-run", *words]) == 0
    assert f"initial weights {made / 'run'}: teacher of step 8" in capsys.readouterr().out
    assert main(["pretrain", *words, "model.patch=16"]) == 2
    assert "model.patch: 16 asked for, 8 in the weights" in capsys.readouterr().err
    assert main(["pretrain", *words, "data.channels=protein,nucleus"]) == 2
    assert "the data have protein, nucleus" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["pretrain", *words]) == 0
    assert f"initial        {made / 'run'}: teacher of step 8" in capsys.readouterr().out
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["model"]
    assert (saved["dim"], saved["patch"], saved["remat"]) == (32, 8, "block")
    embed = ["embed", "--weights", str(tmp_path / "run"), "--untrained", "--records", str(made / "records")]
    assert main([*embed, "--batch", "16", "--out", str(tmp_path / "began.h5ad")]) == 0
    np.testing.assert_array_equal(read(tmp_path / "began.h5ad").x, read(made / "trained.h5ad").x)
    assert main(["pretrain", *words]) == 0
    assert "goes on; begun with" in capsys.readouterr().out


def test_export_tells_what_the_checkpoint_and_the_scores_record(made, capsys):
    """Weights for other programs, with a card that holds channels, training data, scores, and says synthetic."""
    scores, out = made / "exported.json", made / "exported"
    table = str(made / "trained.h5ad")
    quick = ["--set", "resamples=100", "--set", "l2=0.01", "--set", "evaluators=knn"]
    assert main(["evaluate", table, "--out", str(scores), *quick]) == 0
    export = ["export", str(made / "run"), "--out", str(out), "--format", "safetensors,stablehlo"]
    assert main([*export, "--metrics", str(scores), "--input-size", "64,64", "--licence", "mit"]) == 0
    said = capsys.readouterr().out
    assert "checked   encoder.jaxexport" in said
    record = json.loads((out / "encoder.json").read_text())
    with records_file.open(made / "records") as records:
        assert record["data"]["digest"] == records.info.digest
        assert [c["name"] for c in record["channels"]] == list(records.info.channel_set.names)
    card = (out / "README.md").read_text()
    estimate = json.loads(scores.read_text())["systems"]["trained"]["knn"]["macro_f1"]["estimate"]
    assert f"| trained | k-NN | {estimate:.3f} |" in card
    assert "Trained on synthetic images" in card
    assert main([*export]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_clear_refusals(made, capsys):
    scores = made / "scores.json"
    scores.write_text("{}")
    cases = [
        (
            ["embed", "--weights", str(made / "nowhere"), "--records", str(made / "records"), "--out", "x.h5ad"],
            "nowhere",
        ),
        (["embed", "--weights", str(made / "run"), "--records", str(made), "--out", "x.h5ad"], "dataset.json"),
        (["embed", "--weights", str(made / "run"), "--records", str(made / "records"), "--out", "x.csv"], ".h5ad"),
        (["evaluate", str(made / "trained.h5ad"), "--unit", "protien"], "Did you mean 'protein'"),
        (["evaluate", str(made / "trained.h5ad"), "--set", "kk=5"], "kk"),
        (["report", str(scores), "--out", str(made / "x.html")], "scores.json"),
        (["pretrain", "--config", str(SMOKE), "optim.epoch=3"], "optim.epochs"),
        (["pretrian"], "Did you mean 'pretrain'"),
    ]
    for arguments, word in cases:
        capsys.readouterr()
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert word in error, (arguments, error)
        assert "Traceback" not in error
    assert not list(Path().glob("x.*")), "a refused command leaves nothing behind"


@pytest.mark.parametrize("command", ["data", "pretrain", "embed", "export", "evaluate", "report", "demo", "dry-run"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert len(capsys.readouterr().out) > 200
