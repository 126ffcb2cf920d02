"""Weights with tokens of every channel: StableHLO holds them, other formats refuse them by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_encoders import CHANNELS, DATASET, PLAIN, apart, encoder, images, together

from protloc_jax.channel_plans import plan_of
from protloc_jax.convert.export_onnx import onnx_model
from protloc_jax.convert.export_stablehlo import read_stablehlo, write_stablehlo
from protloc_jax.convert.export_timm import timm_tensors
from protloc_jax.convert.frozen import freeze
from protloc_jax.convert.refusal import ExportRefused

BASE = dataclasses.replace(PLAIN, stem="channels", channel_names=("er", "gfp", "dapi"))


def test_stablehlo_read_back_is_the_encoder(tmp_path):
    made = encoder(DATASET, base=BASE)
    write_stablehlo(freeze(made), tmp_path / "encoder.jaxexport")
    pictures = images(made.channels.names, (16, 16))
    found = read_stablehlo(tmp_path / "encoder.jaxexport")(pictures)
    wanted = made.encode(together(pictures, made.channels))
    assert np.asarray(wanted.cls).std() > 0.1
    assert apart(found["cls"], wanted.cls) < 1e-5
    assert apart(found["patches"], wanted.patches) < 1e-5


def test_formats_without_such_tokens_refuse_them():
    made = encoder(base=BASE)
    for refused, name in ((timm_tensors, "timm"), (lambda frozen: onnx_model(frozen, facts={}), "onnx")):
        with pytest.raises(ExportRefused, match=rf"{name} has no form for .*model\.stem=channels.*stablehlo"):
            refused(freeze(made))
    with pytest.raises(ExportRefused, match="without a channel plan"):
        freeze(made.with_plan(plan_of("natural", made.slots, CHANNELS), CHANNELS))
