"""A graph term around a method: its loss by hand, memory, prototypes, devices, and what it is told before step 1."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from equivalence_runs import environment
from small_graph import CLASSES, GRAPH_BATCHES, NODES, PLACE, graph, guided, ids_of
from small_step import CHANNELS, EXPERIMENT, as_float64
from small_supervised import experiment as supervised

from protloc_jax.config import ConfigError, from_mapping, to_dict
from protloc_jax.data import manifest as manifests
from protloc_jax.objective.graph import Nodes, graph_loss, node_means, usable_weights
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.graph_config import GraphConfig
from protloc_jax.train.labels import targets, with_labels
from protloc_jax.train.methods import make_method
from protloc_jax.train.methods.supervised import Supervised
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import make_step, step_function

QUICK = {"xla_backend_optimization_level": 0}


@pytest.fixture(scope="module", name="file")
def _file(tmp_path_factory):
    return graph().save(tmp_path_factory.mktemp("graph") / "graph.npz")


class Run:
    """Steps of a guided run in float64 on given crops, and what the loss was made of."""

    def __init__(self, experiment):
        self.experiment = experiment
        self.method = make_method(experiment, CHANNELS)
        self.state = init_state(experiment, CHANNELS, jax.random.key(1))
        if jax.config.jax_enable_x64:
            self.state = as_float64(self.state)
        step = step_function(
            experiment, self.method, Schedules(experiment, 2), lambda batch, *_: self._views(batch.image)
        )
        self.step = jax.jit(step, compiler_options=QUICK)

    @staticmethod
    def _views(image):
        from protloc_jax.views.multicrop import Views

        crop = jnp.asarray(image[:, None, :32, :32], float) / 255
        return Views(crop, crop[:, :0])

    def take(self, batch):
        """(metrics of a step, the inner method's features of the batch before it)."""
        features = self.inner.features(self.state.params, self._views(batch.image).global_).mean(1)
        self.state, metrics = self.step(self.state, batch)
        return metrics, features

    @property
    def inner(self):
        return getattr(self.method, "inner", self.method)


@pytest.mark.parametrize("memory", ["none", "epoch", "run"])
def test_the_loss_is_the_methods_plus_the_weighted_term(file, memory):
    with jax.enable_x64(True):
        with_term = Run(guided(file, weight=0.3, kind="contrastive", form="released", memory=memory))
        w = jnp.asarray(usable_weights(graph().dense(NODES)))
        kept: dict[int, np.ndarray] = {}
        for number, batch in enumerate(GRAPH_BATCHES):
            params = with_term.state.params
            metrics, features = with_term.take(batch)
            if memory == "epoch" and number % 2 == 0:  # two steps an epoch
                kept = {}
            nodes = node_means(features, jnp.asarray(ids_of(number)), len(NODES))
            means, present = np.array(nodes.means), np.array(nodes.present)
            for i, old in kept.items():
                if memory != "none" and not present[i]:
                    means[i], present[i] = old, True
            term = graph_loss(Nodes(jnp.asarray(means), jnp.asarray(present)), w, kind="contrastive", form="released")
            np.testing.assert_allclose(metrics["graph_term"], term, rtol=1e-6)
            plain = with_term.inner.loss(
                params, {}, {}, with_term._views(batch.image), batch=batch,
                keys=jax.random.split(jax.random.key(0), 16), scalars={},
            ).loss  # fmt: skip
            np.testing.assert_allclose(metrics["loss"], plain + 0.3 * term, rtol=1e-6)
            assert metrics["graph_nodes"] == present.sum()
            for i in np.flatnonzero(np.array(nodes.present)):
                new = np.array(nodes.means[i])
                kept[i] = 0.2 * kept[i] + 0.8 * new if i in kept else new
        if memory != "none":
            last = with_term.state.buffers["graph"]
            for i, value in kept.items():
                np.testing.assert_allclose(last["means"][i], value, rtol=1e-6)
            assert np.array(last["present"]).sum() == len(kept)


def test_training_with_the_term_lowers_it_more_than_training_without(file):
    w = jnp.asarray(usable_weights(graph().dense(NODES)))
    ends = []
    for weight in (0.0, 3.0):
        experiment = guided(file, weight=weight, kind="contrastive")
        optim = dataclasses.replace(experiment.optim, warmup_epochs=0, clip=0.0)
        run = Run(dataclasses.replace(experiment, optim=optim))
        for _ in range(10):
            run.take(GRAPH_BATCHES[0])
        _, features = run.take(GRAPH_BATCHES[0])
        nodes = node_means(features, jnp.asarray(ids_of(0)), len(NODES))
        ends.append(float(graph_loss(nodes, w, kind="contrastive", form="released")))
    assert ends[1] < ends[0] - 0.1, ends


def test_prototypes_are_the_classifiers_weight_vectors(file):
    experiment = guided(file, on="prototypes", nodes=CLASSES, weight=0.2)
    method = make_method(experiment, CHANNELS)
    params, _, buffers = method.init(jax.random.key(0))
    assert buffers["graph"]["weights"].shape == (5, 5)
    vectors = params["head"]["last"]["kernel"].T
    batch = GRAPH_BATCHES[0]
    output = method.loss(
        params, {}, buffers, Run._views(batch.image), batch=batch, keys=jax.random.split(jax.random.key(0), 16),
        scalars={"graph_weight": jnp.asarray(0.2)},
    )  # fmt: skip
    w = jnp.asarray(usable_weights(graph().dense(CLASSES)))
    term = graph_loss(Nodes(vectors, jnp.ones(5, bool)), w, kind="laplacian", form="released")
    np.testing.assert_allclose(output.means["graph_term"], term, rtol=1e-6)
    assert method.splits_over_micro_batches
    assert not make_method(guided(file), CHANNELS).splits_over_micro_batches


def test_without_weight_the_method_is_the_plain_one(file):
    assert type(make_method(guided(file, weight=0.0), CHANNELS)) is Supervised
    assert "graph_weight" not in Schedules(guided(file, weight=0.0), 4).curves
    assert Schedules(guided(file), 4)(3)["graph_weight"] == np.float32(0.1)


def test_accumulation_is_refused_where_features_are_compared_over_the_batch(file):
    experiment = guided(file)
    experiment = dataclasses.replace(experiment, optim=dataclasses.replace(experiment.optim, accumulation=2))
    with pytest.raises(ValueError, match=r"accumulation=2.*does not split"):
        make_step(experiment, CHANNELS, Schedules(experiment, 4))


def test_dino_gives_features_of_its_own_to_the_term(file):
    experiment = dataclasses.replace(
        EXPERIMENT,
        model=dataclasses.replace(EXPERIMENT.model, depth=1, drop_path=0.0),
        graph=GraphConfig(file=str(file), weight=0.5, nodes=NODES, place=PLACE),
    )
    method = make_method(experiment, CHANNELS)
    state = init_state(experiment, CHANNELS, jax.random.key(0))
    step = jax.jit(make_step(experiment, CHANNELS, Schedules(experiment, 4)).__wrapped__, compiler_options=QUICK)
    _, metrics = step(state, GRAPH_BATCHES[0])
    assert method.feature_dim == 32
    assert np.isfinite(metrics["graph_term"]) and metrics["graph_nodes"] == len(set(ids_of(0)) - {-1})


def test_eight_devices_take_the_steps_of_one(file):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).parent / "graph_on_devices.py"), str(file)],
        env=environment(devices=8),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name, (one, eight) in found["forms"].items():
        np.testing.assert_allclose(eight[0], one[0], rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(eight[1], one[1], rtol=1e-9, atol=1e-12, err_msg=name)
    assert len(found["forms"]) == 6
    for name in ("losses", "terms", "state"):
        np.testing.assert_allclose(found["eight"][name], found["one"][name], rtol=1e-8, atol=1e-10, err_msg=name)
    assert np.all(np.diff(found["one"]["terms"]) != 0)


def records(**columns):
    """Six images: two of s1, one each of s2 and s3 and s9, one without; the last row is unused."""
    table = pd.DataFrame(
        {
            "id": list("abcdef"),
            "split": ["train", "train", "train", "val", "test", "test"],
            "plate": ["p"] * 6,
            "perturbation": ["s1", "s1", "s2", "s3", None, "s9"],
            **columns,
        }
    )
    made = manifests.make(table, CHANNELS)
    if not columns:  # as a split file leaves it
        made = dataclasses.replace(made, table=made.table.assign(split=[*table["split"][:5], ""]))
    return made


def unfilled(file, **keys):
    base = guided(file, nodes=(), place=-1, **keys)
    return dataclasses.replace(base, method=dataclasses.replace(base.method, classes=(), place=-1, class_of=()))


def test_classes_and_nodes_come_from_the_records(file):
    experiment, notes = with_labels(unfilled(file), records())
    columns = list(records().group_columns)
    assert experiment.method.classes == ("s1", "s2", "s3")  # s9 stands in no part
    assert experiment.method.class_of == (0, 1, 2, -1)
    assert experiment.method.place == experiment.graph.place == columns.index("perturbation")
    assert experiment.graph.nodes == ("s1", "s2", "s3", "s9")
    assert experiment.graph.digest == graph().digest
    assert "1 of 3 classes have no training image: s3." in notes[0]
    assert notes[-1] == "graph: 2 of 2 values of 'perturbation' are joined, by 1 edges."
    np.testing.assert_array_equal(targets(experiment.method, records()).argmax(1)[:4], [0, 0, 1, 2])
    assert not targets(experiment.method, records())[4:].any()
    again, _ = with_labels(from_mapping(Experiment, to_dict(experiment)), records())
    assert again == experiment


def test_prototypes_take_the_classes_as_nodes(file):
    experiment, _ = with_labels(unfilled(file, on="prototypes"), records())
    assert experiment.graph.nodes == ("s1", "s2", "s3")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: dataclasses.replace(e, graph=dataclasses.replace(e.graph, column="perturbatio")),
         "graph.column=perturbatio: no such column.*perturbation"),
        (lambda e: dataclasses.replace(e, method=dataclasses.replace(e.method, label="perturbatio")),
         "method.label=perturbatio: no such column.*perturbation"),
        (lambda e: dataclasses.replace(e, graph=dataclasses.replace(e.graph, digest="other")),
         "is not the graph that this config was saved with"),
        (lambda e: dataclasses.replace(e, method=supervised().method,
                                       graph=dataclasses.replace(e.graph, on="prototypes")),
         "graph.on=prototypes needs a classifier of 'perturbation'|no labels"),
        (lambda e: dataclasses.replace(e, method=dataclasses.replace(e.method, classes=("s1", "s2"))),
         "method.classes lacks s3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(file, change, words):
    with pytest.raises(ConfigError, match=words):
        with_labels(change(unfilled(file)), records())


def test_a_graph_that_joins_nothing_is_refused_with_both_vocabularies(file, tmp_path):
    other = graph({("x1", "x2"): 0.5}, ("x1", "x2")).save(tmp_path / "other.npz")
    with pytest.raises(ConfigError, match=r"no two of the 2 values .* are joined.*named x1, x2; theirs s1, s2"):
        with_labels(unfilled(other), records())


def test_images_without_a_value_are_refused_unless_ignored(file):
    experiment = unfilled(file)
    table = records(split=["train"] * 6)
    strict = dataclasses.replace(experiment, method=dataclasses.replace(experiment.method, unlabelled="refuse"))
    with pytest.raises(ConfigError, match="1 of 6 training images have no label"):
        with_labels(strict, table)
    assert "1 of 6 training images have no label" in with_labels(experiment, table)[1][0]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"weight": 0.1}, "name the graph"),
        ({"weight": -1.0}, "weight=-1.0: must be at least 0"),
        ({"temperature": 0.0}, "temperature=0.0: must be above 0"),
        ({"on": "prototypes", "memory": "run"}, "memory=run: with on=prototypes"),
        ({"kind": "laplace"}, "laplacian"),
    ],
)
def test_settings_that_cannot_be_are_refused(keys, words):
    with pytest.raises(ValueError, match=words):
        GraphConfig(**keys)
