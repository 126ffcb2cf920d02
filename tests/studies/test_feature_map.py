"""Maps of features: the published UMAP settings reach umap, and a real one separates what is apart."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from protloc_jax.studies.feature_map import hpa_umap, settings_text, single_labels

pytestmark = pytest.mark.usefixtures("umap")


@pytest.fixture(name="umap", scope="module")
def _umap():
    """Imported by the process that needs it alone: it compiles for seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap's imports warn
        return pytest.importorskip("umap", reason="umap-learn draws the maps")


def test_published_settings_reach_umap(monkeypatch, umap):
    asked = []

    class Recorder:
        def __init__(self, **settings):
            asked.append(settings)

        def fit_transform(self, x):
            return x[:, :2]

    monkeypatch.setattr(umap, "UMAP", Recorder)
    for n in (400, 10):
        assert hpa_umap(np.zeros((n, 3))).shape == (n, 2)
    usual, tiny = asked
    expected = {"n_neighbors": 15, "metric": "euclidean", "min_dist": 0.1, "spread": 4.0, "n_epochs": 2600}
    assert {key: usual[key] for key in expected} == expected
    assert usual["init"] == "spectral" and usual["random_state"] == 42
    # Only what umap demands is changed for few images.
    assert tiny == usual | {"n_neighbors": 9}
    with pytest.raises(ValueError, match="three or more"):
        hpa_umap(np.zeros((2, 3)))
    assert "9 neighbours" in settings_text(10) and "2,600 epochs" in settings_text(10)


def test_a_small_map_keeps_far_groups_apart_and_is_reproducible(tmp_path):
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 20)
    np.save(tmp_path / "x.npy", rng.normal(size=(40, 5)) + 30 * group[:, None])
    code = (
        "import sys, numpy as np\nfrom protloc_jax.studies.feature_map import hpa_umap\n"
        "x = np.load(sys.argv[1] + '/x.npy', allow_pickle=False)\n"
        "np.save(sys.argv[1] + '/xy.npy', [hpa_umap(x, epochs=20) for _ in range(2)])"
    )
    # Without compilation, which would cost far more than the map of so few points.
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    xy, again = np.load(tmp_path / "xy.npy", allow_pickle=False)
    assert xy.shape == (40, 2) and np.isfinite(xy).all()
    centres = np.stack([xy[group == g].mean(axis=0) for g in (0, 1)])
    nearest = np.linalg.norm(xy[:, None] - centres, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, group)
    np.testing.assert_array_equal(again, xy)


def test_only_single_labels_have_a_colour():
    assert single_labels(["er", "er;golgi", "", ";golgi;", "a b"]) == ["er", "", "", "golgi", "a b"]
