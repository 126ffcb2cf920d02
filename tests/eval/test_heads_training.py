"""Training of heads against PyTorch and scikit-learn, members alone, and draws counted by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.preprocessing import StandardScaler

from protloc_jax.eval import head_network as network
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.eval.head_draws import draw_tables, draws
from protloc_jax.eval.head_training import member_keys, scaler, train_heads

SMALL = HeadConfig(hidden=(12, 7), n_units=9, batch=16, epochs=3, lr=3e-3, seeds=(4, 11))
FOLDS = (np.arange(0, 37), np.arange(10, 60), np.arange(30, 75))


def rows(seed=0, n=80, dim=6, classes=4, single=False):
    rng = np.random.default_rng(seed)
    x = 3 * rng.normal(size=(n, dim)) + rng.normal(size=dim)
    label = rng.integers(0, classes, n)
    hot = np.eye(classes, dtype=bool)[label]
    return x, hot if single else hot | (rng.random((n, classes)) < 0.2)


def keys_of(seed, fold):
    return member_keys(jnp.asarray([seed]), jnp.asarray([fold]))


def drawn(config, seed, fold, hot, folds, steps):
    """Batches of a member, one step after another: row numbers that count."""
    tables = jax.tree.map(jnp.asarray, draw_tables(hot, folds))
    key = keys_of(seed, fold).draws[0]
    one = jax.jit(lambda step: draws(tables, key, fold, step, batch=config.batch, kind=config.draw))
    found = jax.vmap(one)(jnp.arange(steps))
    return [np.asarray(r)[np.asarray(counts)] for r, counts in zip(*found, strict=True)]


def masks_of(config, seed, fold, step):
    """Dropout masks of one step; float32 holds the 2 of dropout 0.5 exactly."""
    key = jax.random.fold_in(keys_of(seed, fold).dropout[0], step)
    return [np.asarray(m) for m in network.dropout_masks(key, config, config.batch, jnp.float32)]


def by_torch(torch, config, x, hot, folds, seed, fold, steps):
    """The classifier training of DINO4Cells in PyTorch (float64): weights by name after all steps, and the losses."""
    functional = torch.nn.functional
    x = torch.tensor(StandardScaler().fit(x[folds[fold]]).transform(x))
    target = torch.tensor(hot, dtype=torch.float64)
    start = network.first_weights(keys_of(seed, fold).weights[0], config, x.shape[1], hot.shape[1], jnp.float64)
    layer = {}
    for name, own in start.items():
        layer[name] = torch.nn.Linear(*own["kernel"].shape).double()
        layer[name].weight.data = torch.tensor(np.asarray(own["kernel"])).T.contiguous()
        layer[name].bias.data = torch.tensor(np.asarray(own["bias"]))

    def network_of(h, masks):
        if config.arch == "simple":
            for i in range(len(config.hidden)):
                h = functional.relu(layer[f"hidden_{i}"](h))
                h = h * torch.tensor(masks[i][: len(h)]) if masks else h
        if config.arch == "residual":
            h = functional.relu(layer["first"](h))
            for i in range((config.n_layers - 2) // 2):
                inner = functional.relu(layer[f"block_{i}_fc1"](h))
                h = functional.relu(layer[f"block_{i}_fc2"](inner) + h)
        return layer["out"](h)

    def loss_of(z, y):
        if config.loss == "cross_entropy":
            return functional.cross_entropy(z, y.argmax(dim=1))
        if config.loss == "bce":
            return functional.binary_cross_entropy_with_logits(z, y)
        p = torch.sigmoid(z)
        p = torch.where(y > 0, p, 1 - p)
        return (-((1 - p) ** config.focal_gamma) * torch.log(p)).mean()

    optimiser = torch.optim.AdamW(
        [p for own in layer.values() for p in own.parameters()],
        lr=config.lr * config.batch / 256,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses = []
    for step, batch in enumerate(drawn(config, seed, fold, hot, folds, steps)):
        optimiser.zero_grad()
        loss = loss_of(network_of(x[batch], masks_of(config, seed, fold, step)), target[batch])
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    weights = {n: (own.weight.detach().numpy().T, own.bias.detach().numpy()) for n, own in layer.items()}
    with torch.no_grad():
        z = network_of(x, None)
        p = torch.softmax(z, dim=1) if config.loss == "cross_entropy" else torch.sigmoid(z)
    return weights, losses, p.numpy()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("changes", "double"),
    [
        ({"arch": "simple", "dropout": 0.5}, True),
        ({"arch": "simple", "dropout": 0.5}, False),
        ({"arch": "simple", "dropout": 0.0, "draw": "shuffled", "loss": "focal"}, True),
        ({"arch": "residual", "n_layers": 4}, False),
        ({"arch": "residual", "loss": "cross_entropy", "decision": "argmax"}, True),
        ({"arch": "linear", "draw": "shuffled"}, False),
    ],
    ids=str,
)
def test_weights_after_all_steps_are_those_of_pytorch(changes, double):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    config = dataclasses.replace(SMALL, **changes)
    x, hot = rows(single=config.loss == "cross_entropy")
    with jax.enable_x64(double):
        heads = train_heads(x if double else x.astype(np.float32), hot, FOLDS, config)
        ours = heads.probabilities(x, seed=1, fold=0)
    assert heads.mean.dtype == (np.float64 if double else np.float32)
    assert heads.steps.tolist() == [9, 12, 9]
    with jax.enable_x64(True):
        weights, losses, p = by_torch(torch, config, x, hot, FOLDS, config.seeds[1], 0, 9)
    close = 1e-10 if double else 1e-5
    for name, (kernel, bias) in weights.items():
        np.testing.assert_allclose(heads.params[name]["kernel"][1, 0], kernel, rtol=0, atol=close)
        np.testing.assert_allclose(heads.params[name]["bias"][1, 0], bias, rtol=0, atol=close)
    np.testing.assert_allclose(heads.loss[1, 0, :9], losses, rtol=0, atol=close)
    assert np.isnan(heads.loss[1, 0, 9:]).all()
    np.testing.assert_allclose(ours, p, rtol=0, atol=close)


def test_members_together_are_members_alone():
    x, hot = rows(1)
    config = dataclasses.replace(SMALL, draw="shuffled")
    told = []
    together = train_heads(x, hot, FOLDS, config, progress=lambda *facts: told.append(facts))
    alone = train_heads(x, hot, FOLDS, config, at_once=1)
    for one, two in zip(jax.tree.leaves(together.params), jax.tree.leaves(alone.params), strict=True):
        assert one.shape[:2] == (2, 3)
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)
    assert not np.allclose(together.params["out"]["bias"][0], together.params["out"]["bias"][1])
    # The last turn of three members in twos is filled up with a copy, which is dropped.
    in_turns = train_heads(x, hot, FOLDS, dataclasses.replace(config, seeds=(4,)), at_once=2)
    np.testing.assert_allclose(in_turns.params["out"]["bias"], together.params["out"]["bias"][:1], rtol=0, atol=1e-6)
    done, total, loss = told[-1]
    assert done == total == 12
    assert np.isfinite(loss)


def test_a_fold_by_itself_draws_the_same_rows():
    """The padding of other folds' tables moves nothing: a fold's draws depend on its own rows, seed, fold and step."""
    _, hot = rows(2)
    for draw in ("class_balanced", "shuffled"):
        config = dataclasses.replace(SMALL, draw=draw)
        many = drawn(config, 3, 0, hot, FOLDS, 9)
        lone = drawn(config, 3, 0, hot, FOLDS[:1], 9)
        assert [r.tolist() for r in many] == [r.tolist() for r in lone]


def test_shuffled_epochs_hold_every_training_row_once():
    _, hot = rows(2)
    config = dataclasses.replace(SMALL, draw="shuffled")
    steps = drawn(config, 3, 1, hot, FOLDS, 12)
    assert [len(r) for r in steps] == [16, 16, 16, 2] * 3
    epochs = [np.concatenate(steps[i : i + 4]) for i in (0, 4, 8)]
    for epoch in epochs:
        assert sorted(epoch) == FOLDS[1].tolist()
    assert epochs[0].tolist() != epochs[1].tolist() != epochs[2].tolist()


def test_class_balanced_draws_have_the_frequencies_of_the_rule():
    """Rows 0..9: class 0 on rows 0-7, class 1 on rows 7 and 8, class 2 never; row 9 has no label.

    A class comes with probability 1/2, then one of its rows: rows 0-6 with 1/16 each, row 7 with 1/16 + 1/4, row 8
    with 1/4, row 9 never.
    """
    hot = np.zeros((10, 3), bool)
    hot[:8, 0] = hot[7:9, 1] = True
    config = dataclasses.replace(SMALL, batch=10)
    found = np.concatenate(drawn(config, 0, 0, hot, [np.arange(10)], 1600))
    wanted = np.array([1 / 16] * 7 + [5 / 16, 1 / 4, 0])
    seen = np.bincount(found, minlength=10)
    assert seen[9] == 0
    assert stats.chisquare(seen[:9], 16000 * wanted[:9]).pvalue > 1e-3


def test_two_stages_by_hand():
    """Classes a, b in group g, class c in group h; a row of a alone: outputs a, b, g, h count, c does not.

    Logits are log odds: a 3/4, b 1/4, c 1/2, g 9/10, h 1/5. P = (3/4 9/10, 1/4 9/10, 1/2 1/5); the loss is
    -(log 3/4 + log 3/4 + log 9/10 + log 4/5) / 5.
    """
    config = dataclasses.replace(SMALL, groups=("g", "g", "h"))
    z = jnp.log(jnp.asarray([[3.0, 1 / 3, 1.0, 9.0, 1 / 4]]))
    np.testing.assert_allclose(network.probabilities(z, config), [[0.675, 0.225, 0.1]], rtol=1e-6)
    found = network.loss(z, jnp.asarray([[1.0, 0, 0]]), jnp.ones(1), config)
    np.testing.assert_allclose(found, -np.log(9 / 16 * 9 / 10 * 4 / 5) / 5, rtol=1e-6)
    assert network.layout(config, 6, 3)["out"] == (7, 5)
    x, hot = rows()
    with pytest.raises(ValueError, match="one is needed for each of 4 classes"):
        train_heads(x, hot, FOLDS, config)
    with pytest.raises(ValueError, match="products of sigmoids"):
        HeadConfig(groups=("g",), loss="cross_entropy", decision="argmax")


def test_dropout_keeps_its_share_and_differs_by_step_and_layer():
    config = dataclasses.replace(SMALL, dropout=0.25, hidden=(40, 40), batch=500)
    first, second = masks_of(config, 0, 0, 0)
    np.testing.assert_allclose(np.unique(first), [0, 4 / 3], rtol=1e-6)
    for mask in (first, second):
        assert stats.binomtest(int((mask > 0).sum()), mask.size, 0.75).pvalue > 1e-3
    assert 0.5 < (first == second).mean() < 0.75
    assert 0.5 < (first == masks_of(config, 0, 0, 1)[0]).mean() < 0.75


def test_scaler_is_that_of_scikit_learn():
    x, _ = rows(3)
    x[:, 2] = 1e6 + 0.1  # constant
    fitted = StandardScaler().fit(x[FOLDS[0]])
    mean, scale = scaler(x[FOLDS[0]])
    np.testing.assert_allclose(mean, fitted.mean_)
    np.testing.assert_allclose(scale, fitted.scale_)


def test_only_training_rows_are_looked_at():
    x, hot = rows(4)
    other = x.copy()
    other[75:] = np.nan
    heads = train_heads(x, hot, FOLDS, SMALL)
    again = train_heads(other, hot, FOLDS, SMALL)
    for one, two in zip(jax.tree.leaves(heads.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(one, two)


def test_refusals_name_rows_folds_and_fields():
    x, hot = rows(5)
    bad = x.copy()
    bad[[3, 5]] = np.nan
    with pytest.raises(ValueError, match="not finite: 3, 5"):
        train_heads(bad, hot, FOLDS, SMALL)
    softmax = dataclasses.replace(SMALL, loss="cross_entropy", decision="argmax")
    with pytest.raises(ValueError, match="not exactly one class"):
        train_heads(x, hot, FOLDS, softmax)
    with pytest.raises(ValueError, match="labelled training row: 1"):
        train_heads(x, hot, [np.arange(5), np.arange(0)], SMALL)
    with pytest.raises(ValueError, match=r"outside 0\.\.79"):
        train_heads(x, hot, [np.arange(70, 90)], SMALL)
    with pytest.raises(ValueError, match=r"n_layers=3.*dropout=1.5.*decision=argmax"):
        HeadConfig(n_layers=3, dropout=1.5, loss="cross_entropy")
