"""The StableHLO artefact, read back, is the encoder: bit for bit where the same compiler runs it."""

from __future__ import annotations

import subprocess
import sys

import jax.export
import numpy as np
import pytest
from small_encoders import CHANNELS, CONFIGS, DATASET, SELF, apart, encoder, images, together

from protloc_jax.channels import per_channel
from protloc_jax.convert.export_stablehlo import channels_of, read_stablehlo, write_stablehlo
from protloc_jax.convert.frozen import freeze
from protloc_jax.convert.refusal import ExportRefused


def check(made, path, *, size=(16, 16), pixels="uint8"):
    write_stablehlo(freeze(made, size=size, pixels=pixels), path / "encoder.jaxexport")
    program = read_stablehlo(path / "encoder.jaxexport")
    pictures = images(made.channels.names, size, batch=3, dtype=pixels)
    wanted = made.encode(together(pictures, made.channels))
    for batch in (1, 3):
        found = program({name: pixels[:batch] for name, pixels in pictures.items()})
        assert apart(found["cls"], wanted.cls[:batch]) < 1e-5
        assert apart(found["patches"], wanted.patches[:batch]) < 1e-5


@pytest.mark.parametrize("name", ["registers and LayerScale", "swiglu", "clip", "pooled norm"])
def test_read_back_it_is_the_encoder(name, tmp_path):
    check(encoder(**CONFIGS[name]), tmp_path)


def test_preprocessing_and_channel_plan_are_inside(tmp_path):
    made = encoder(DATASET)
    check(made.with_plan(per_channel(CHANNELS, CHANNELS), CHANNELS), tmp_path, size=(33, 42), pixels="uint16")


def test_channel_names_stand_in_the_input_tree(tmp_path):
    files = write_stablehlo(freeze(encoder(SELF)), tmp_path / "encoder.jaxexport")
    assert channels_of(files[0]) == ("gfp", "nucleus")
    program = read_stablehlo(files[0])
    with pytest.raises(ValueError, match="dna"):
        program(images(["gfp", "dna"], (16, 16)))


def test_it_is_made_for_three_platforms_and_any_batch(tmp_path):
    files = write_stablehlo(freeze(encoder()), tmp_path / "encoder.jaxexport")
    artefact = jax.export.deserialize(bytearray(files[0].read_bytes()))
    assert artefact.platforms == ("cpu", "cuda", "tpu")
    assert all(jax.export.is_symbolic_dim(aval.shape[0]) for aval in artefact.in_avals)
    text = files[1].read_text()
    assert "stablehlo.dot_general" in text
    assert "precision = [HIGHEST, HIGHEST]" in text
    assert "gfp" in text.splitlines()[0]
    assert files[1].stat().st_size < 400_000


def test_another_process_runs_it_with_jax_alone(tmp_path):
    made = encoder()
    write_stablehlo(freeze(made), tmp_path / "encoder.jaxexport")
    pictures = images(CHANNELS.names, (16, 16))
    np.savez(tmp_path / "in.npz", **pictures)
    code = (
        "import sys; sys.modules['protloc_jax'] = sys.modules['flax'] = None\n"
        "import numpy as np, jax.export\n"
        "f = jax.export.deserialize(bytearray(open('encoder.jaxexport', 'rb').read()))\n"
        "np.save('out.npy', f.call(dict(np.load('in.npz')))['cls'])\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    wanted = made.encode(together(pictures, CHANNELS)).cls
    assert apart(np.load(tmp_path / "out.npy", allow_pickle=False), wanted) < 1e-5


def test_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ExportRefused, match="onnx"):
        write_stablehlo(freeze(encoder()), tmp_path / "encoder.jaxexport", largest=1000)
    assert not list(tmp_path.iterdir())
