"""Maps of structures without optics: they are what the image shows, and asking for them changes no image."""

from __future__ import annotations

import numpy as np
import pytest

from protloc_jax.simulate import SimConfig, catalogue, densities, render, structure_names
from protloc_jax.simulate.stains import PARTS, STAINS

SCREEN = SimConfig(preset="bbbc021", difficulty="easy", size=96)
PROTEINS = SimConfig(preset="hpa_fov", difficulty="easy", size=96, n_proteins=4, fovs_per_protein=1)
CELLS = SimConfig(preset="hpa_sc", difficulty="easy", size=192, n_proteins=4, fovs_per_protein=1)


def blurred_like(image, map_):
    """Correlation of a channel with the map after a blur that stands for the optics."""
    import scipy.ndimage

    soft = scipy.ndimage.gaussian_filter(map_, 1.0)
    return np.corrcoef(image.astype(float).ravel(), soft.ravel())[0, 1]


@pytest.mark.parametrize("config", [SCREEN, PROTEINS, CELLS], ids=["bbbc021", "hpa_fov", "hpa_sc"])
def test_every_channel_shows_its_own_map(config):
    before = render(config, 1)
    maps = densities(config, 1)
    assert set(maps) <= set(structure_names(config))
    for index, channel in enumerate(config.domain.channels):
        assert maps[channel].dtype == np.float32 and maps[channel].shape == before.image.shape[:2]
        own = blurred_like(before.image[..., index], maps[channel])
        others = [blurred_like(before.image[..., index], maps[c]) for c in config.domain.channels if c != channel]
        assert own > 0.6 and own > max(others)
    np.testing.assert_array_equal(maps["nuclei"], before.nucleus_labels > 0)
    np.testing.assert_array_equal(maps["cells"], before.cell_labels > 0)
    np.testing.assert_array_equal(render(config, 1).image, before.image)


def test_parts_add_up_to_their_stain():
    maps = densities(SCREEN, 0)
    for channel, role in zip(SCREEN.domain.channels, SCREEN.domain.roles, strict=True):
        total = sum(maps[f"{channel}:{part}"].astype(np.float64) for part in PARTS[role])
        np.testing.assert_allclose(maps[channel], total, rtol=1e-5)
    protein = densities(PROTEINS, 2)
    classes = catalogue(PROTEINS)["classes"][2].split(";")
    assert {name for name in protein if ":" in name} == {f"protein:{name}" for name in classes}


def test_parts_of_every_stain_are_those_that_its_builder_makes():
    assert PARTS.keys() == STAINS.keys()
    for preset in ("rxrx1", "bbbc021"):
        config = SimConfig(preset=preset, size=64)
        made = [part for role in config.domain.roles for part in PARTS[role]]
        assert list(render(config, 0).density) == made


def test_a_row_a_position_and_a_key_are_the_same_image():
    table = catalogue(CELLS)
    by_position = densities(CELLS, 1)
    for row in (table.iloc[1], table["id"][1]):
        for name, map_ in densities(CELLS, row).items():
            np.testing.assert_array_equal(map_, by_position[name])
    given = densities(CELLS, 1, rendered=render(CELLS, 1))
    np.testing.assert_array_equal(given["protein"], by_position["protein"])
