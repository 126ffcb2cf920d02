"""Configuration and presets: what is refused, and with which words."""

from __future__ import annotations

import pytest

from protloc_jax.config import ConfigError, with_overrides
from protloc_jax.simulate import PRESETS, SimConfig, class_names
from protloc_jax.simulate.organelles import BUILDERS
from protloc_jax.simulate.structures import SHARED


def test_default_is_the_level_to_report():
    config = SimConfig()
    assert (config.preset, config.difficulty, config.size, config.nuisance) == ("hpa_fov", "hard", 256, 1.0)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'opencell'"):
        SimConfig(preset="opencel")
    with pytest.raises(ConfigError, match="Did you mean 'hpa_fov'"):
        class_names("hpa-fov")


def test_every_bad_field_is_named_at_once():
    with pytest.raises(ConfigError) as error:
        SimConfig(difficulty="harder", n_proteins=0, size=8, nuisance=-1.0, tail=0.0)  # type: ignore[arg-type]
    for name in ("difficulty", "'hard'", "n_proteins", "size", "nuisance", "tail"):
        assert name in str(error.value)


@pytest.mark.parametrize("field", ["n_proteins", "fovs_per_protein", "size", "seed"])
def test_counts_must_be_integers(field):
    with pytest.raises(ConfigError, match=field):
        SimConfig(**{field: 64.0})


def test_fields_can_be_overridden_by_text():
    config = with_overrides(SimConfig(), ["preset=opencell", "size=64", "nuisance=0.5", "difficulty=easy"])
    assert config == SimConfig(preset="opencell", size=64, nuisance=0.5, difficulty="easy")


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_consistent(name):
    preset = PRESETS[name]
    assert len(class_names(name)) >= 16
    assert len(set(preset.classes.values())) == len(preset.classes)
    assert set(preset.classes.values()) <= set(BUILDERS)
    assert len(preset.channels) == len(preset.roles) == len(preset.optics)
    assert preset.roles.count("protein") == 1
    assert set(preset.roles) <= {"protein", "nucleus"} | set(SHARED)


def test_channels_and_depths_of_the_two_domains():
    assert PRESETS["hpa_fov"].channels == ("microtubules", "protein", "nucleus", "er")
    assert (PRESETS["hpa_fov"].bit_depth, PRESETS["hpa_fov"].um_per_pixel) == (8, 0.25)
    assert PRESETS["opencell"].channels == ("nucleus", "protein")
    assert (PRESETS["opencell"].bit_depth, PRESETS["opencell"].um_per_pixel) == (16, 0.2)
