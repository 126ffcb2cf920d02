"""A fixture: a folder of compiled programs for the runs of one file."""

from __future__ import annotations

import jax
import pytest


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """Every run of a file compiles the same few programs; all but the first read them from a folder."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], str(tmp_path_factory.mktemp("compiled")))
    jax.config.update(names[1], 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
