"""A supervised run's own classifier: its probabilities are those of the training method, and of NumPy on features."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from protloc_jax.config import to_dict
from protloc_jax.eval import own_classifier
from protloc_jax.eval.own_classifier import load_own
from protloc_jax.model.classifier import ClassifierHead
from protloc_jax.train.experiment import Experiment


@pytest.mark.parametrize(("one", "last"), [(False, expit), (True, lambda z: softmax(z, axis=1))])
def test_probabilities_of_features_are_numpys(monkeypatch, one, last):
    rng = np.random.default_rng(0)
    widths = {"mlp_0": (6, 5), "mlp_1": (5, 4), "last": (4, 3)}
    params = {
        name: {"kernel": rng.normal(size=size).astype(np.float32), "bias": rng.normal(size=size[1]).astype(np.float32)}
        for name, size in widths.items()
    }
    head = ClassifierHead(classes=3, hidden=(5, 4), dropout=0.5)
    own = own_classifier.OwnClassifier(None, head, params, ("a", "b", "c"), "cls", one)
    monkeypatch.setattr(own_classifier, "_ROWS", 4)
    x = rng.normal(size=(10, 6)).astype(np.float32)
    h = np.asarray(x, np.float64)
    for name in ("mlp_0", "mlp_1"):
        h = np.maximum(h @ params[name]["kernel"] + params[name]["bias"], 0)
    wanted = last(h @ params["last"]["kernel"] + params["last"]["bias"])
    np.testing.assert_allclose(own.of_features(x), wanted, atol=1e-5)
    assert own.of_features(x[:0]).shape == (0, 3)


def test_weights_without_a_classifier_are_refused(monkeypatch, tmp_path):
    meta = {"config": to_dict(Experiment()), "channels": ["a"]}
    monkeypatch.setattr(own_classifier, "load_weights", lambda *_: ({}, meta))
    with pytest.raises(ValueError, match="trained by method dino, which has no classifier"):
        load_own(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="weights of another project"):
        load_own(tmp_path)
