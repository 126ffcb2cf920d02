"""README's "Bring your weights", command by command, on random weights under timm's names and random images."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
from safetensors.numpy import load_file, save_file

from protloc_jax.cli.main import main
from protloc_jax.eval.features import read

ROOT = Path(__file__).parent.parent.parent
# A budget of seconds, and no cache of programs that only a test compiles.
SMALL = [
    "model.dtype=float32",
    "optim.batch=4",
    "optim.steps=3",
    "optim.warmup_epochs=0",
    "init.freeze_backbone_epochs=0.2",
    "run.eval_every=0",
    "views.global_size=32",
    "views.local_size=16",
    "views.n_local=2",
    "method.out_dim=64",
    "method.hidden=32",
    "method.bottleneck=16",
    "run.compilation_cache=none",
]


def commands() -> list[list[str]]:
    section = (ROOT / "README.md").read_text().split("## Bring your weights")[1]
    block = re.search(r"```bash\n(.*?)```", section, re.S)
    assert block is not None
    lines = block[1].replace("\\\n", " ").splitlines()
    return [words[1:] for words in (shlex.split(line, comments=True) for line in lines) if words]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with what the commands name: the weight file, records, the configs."""
    out = tmp_path_factory.mktemp("weights")
    dim, depth, rng = 192, 12, np.random.default_rng(0)
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 197, dim), "patch_embed.proj.weight": (dim, 3, 16, 16)}
    shapes |= {"patch_embed.proj.bias": (dim,), "norm.weight": (dim,), "norm.bias": (dim,)}
    shapes |= {"head.weight": (1000, dim), "head.bias": (1000,)}
    maps = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    for i in range(depth):
        for name, shape in maps.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (dim,), f"blocks.{i}.{name}.bias": (dim,)}
    tensors = {name: (0.05 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, out / "vit_tiny_patch16_224.safetensors")
    lines = ["path,labels,field"]
    for i in range(24):
        tifffile.imwrite(out / f"{i}.tif", rng.integers(0, 256, (2, 64, 64), dtype=np.uint8), metadata={"axes": "CYX"})
        lines.append(f"{i}.tif,{'ab'[i % 2]},f{i // 2}")
    (out / "cells.csv").write_text("\n".join(lines) + "\n")
    pack = [
        "data",
        "pack",
        "folder",
        str(out / "cells.csv"),
        "--channels",
        "nucleus,gfp:protein",
        "--split-by",
        "field",
    ]
    assert main([*pack, "--out", str(out / "records" / "mine")]) == 0
    (out / "configs").symlink_to(ROOT / "configs")
    return out


def live(words) -> bool:
    return any(word.startswith("timm:") for word in words)


@pytest.mark.torch
@pytest.mark.parametrize("words", [c for c in commands() if live(c)], ids=lambda c: " ".join(c))
def test_the_live_check(timm, here, monkeypatch, words):
    monkeypatch.chdir(here)
    if not Path("runs/imagenet").exists():
        assert main(commands()[0]) == 0
    assert main(words) == 0


OFFLINE = [c for c in commands() if not live(c)]


@pytest.mark.parametrize("words", OFFLINE, ids=[" ".join(c[:2]) for c in OFFLINE])
def test_the_commands_run_in_order(here, words, monkeypatch, capsys):
    monkeypatch.chdir(here)
    if words[0] == "convert" and Path(words[words.index("--out") + 1]).exists():
        return  # the live check was before
    more = SMALL if words[0] == "pretrain" else []
    assert main([*words, *more]) == 0, capsys.readouterr().err


def test_what_the_commands_left(here):
    """The chain holds together: features of two passes, a continued run, and an export that is that run's."""
    assert read(here / "runs" / "imagenet" / "features.h5ad").x.shape == (24, 2 * 192)
    exported = load_file(here / "exported" / "model.safetensors")
    assert exported["patch_embed.proj.weight"].shape == (192, 2, 16, 16)
    assert "head.weight" not in exported
    modes = {p.stat().st_mode for p in (here / "exported").iterdir()}
    assert len(modes) == 1, "every file is as readable as the others"
    card = (here / "exported" / "README.md").read_text()
    assert "nucleus" in card and "gfp" in card
    assert {p.name for p in (here / "exported").iterdir()} >= {"encoder.onnx", "encoder.jaxexport", "encoder.json"}
