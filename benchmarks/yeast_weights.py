"""Do released weights help on real cells? DINOv2 ViT-S/14 on yeast crops, beside no training and training from scratch.

Fixed before any run:

data        1,642 real crops of budding yeast (64 x 64 pixels, a GFP-tagged protein and a cytosolic marker), 5 genes of
            4 fields of view each: 2 fields of every gene train, 1 validates, 1 tests. Needs PROTLOC_DATA with
            yeast_gfp_single_cells and vit_small_patch14_dinov2.
systems     pretrained: those weights by `protloc convert`, position convention "hf" (the one that reproduces their
            stored activations), one pass a channel repeated into r, g and b, CLS vectors side by side (768 numbers),
            crops brought to 224 pixels. random: the same architecture with random parameters and LayerScale gains of
            1, seed 0. scratch: `configs/simulated_hard.py` (1,200 steps of 32, seed 0) trained on the training fields,
            its last checkpoint. initial: what scratch began with. intensity, texture: hand-made features.
statistic   macro-F1 over the 5 genes on held-out fields, k-NN and linear probe (k and strength by validation fields),
            95 % intervals by bootstrap over the 5 test fields, paired differences between all systems.
control     texture - intensity: if its interval is not above 0 the harness sees nothing.

Five test fields are few, genes of one compartment look alike, and two of the five are mitochondria's: a small check on
real images, not a benchmark of DINOv2. Run: `PROTLOC_DATA=DIR python -m benchmarks.yeast_weights --out FILE`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import tempfile
from pathlib import Path

from benchmarks.learning import CONFIG, protloc

SPLIT = ("--split-by", "field", "--split-stratify", "gene", "--split-fractions", "0.5,0.25,0.25")
WEIGHTS = ("--model", "vit_small_patch14_dinov2", "--position", "hf")
PLAN = ("--plan", "replicate", "--size", "224", "--batch", "32")


def random_features(weights: Path, records: Path, out: Path) -> None:
    """Features of the architecture of `weights` with random parameters, made as those of the weights are."""
    import jax
    import jax.numpy as jnp

    from protloc_jax.channels import replicate
    from protloc_jax.data import read
    from protloc_jax.eval.embed import embed
    from protloc_jax.eval.load import load
    from protloc_jax.model.vit import Vit

    encoder = load(weights, size=224)
    config = dataclasses.replace(encoder.config, layerscale=1.0)
    params = Vit(config).init(jax.random.key(0), jnp.zeros((1, 224, 224, config.channels)))["params"]
    facts = {**encoder.provenance, "weights": "random, seed 0", "weights_sha256": ""}
    encoder = dataclasses.replace(encoder, config=config, params=params, provenance=facts)
    with read.open(records) as opened:
        channels = opened.info.channel_set
        encoder = encoder.with_plan(replicate(config.channels, channels), channels)
        embed(encoder, opened, out, rows=opened.manifest.rows(None), batch=32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--work", type=Path, help="folder for records, runs and tables (default: a temporary one)")
    args = parser.parse_args()
    data = Path(os.environ["PROTLOC_DATA"])
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        records, weights, run = work / "records", work / "dinov2", work / "scratch"
        cells = data / "yeast_gfp_single_cells" / "cells.csv"
        if not records.exists():
            protloc(
                *("data", "pack", "folder", cells, "--channels", "gfp:protein,rfp:cytosol", "--out", records),
                *("--labels", "gene", *SPLIT),
            )
        if not weights.exists():
            file = data / "vit_small_patch14_dinov2" / "model_fp16.safetensors"
            protloc("convert", file, *WEIGHTS, "--out", weights)
        seconds = protloc("pretrain", "--config", CONFIG, f"data.records={records}", f"run.out={run}")
        tables = []
        random_features(weights, records, work / "random.h5ad")
        tables.append(f"random={work / 'random.h5ad'}")
        for name, source, more in (
            ("pretrained", weights, PLAN),
            ("initial", run, ["--untrained"]),
            ("scratch", run, []),
        ):
            table = work / f"{name}.h5ad"
            protloc("embed", "--weights", source, "--records", records, "--out", table, *more)
            tables.append(f"{name}={table}")
        scores = work / "scores.json"
        protloc("evaluate", *tables, "--records", records, "--unit", "field", "--out", scores)
        results = json.loads(scores.read_text())
    args.out.write_text(
        json.dumps(
            {
                "benchmark": "yeast_weights",
                "machine": platform.processor() or platform.machine(),
                "training_seconds": seconds,
                "task": {
                    k: results["task"][k] for k in ("rows", "test_rows", "test_units", "unit", "split", "support")
                },
                "systems": {
                    name: {key: entry[key]["macro_f1"] for key in ("knn", "probe")} | {"k": entry["knn"]["k"]}
                    for name, entry in results["systems"].items()
                },
                "differences": results["differences"],
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
