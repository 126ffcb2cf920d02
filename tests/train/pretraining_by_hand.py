"""The losses of the pretraining methods in float64 NumPy, the transformer and its heads written out once more."""

from __future__ import annotations

import jax
import numpy as np
from scipy.special import erf, logsumexp

HEADS = 2


def float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def normed(x, p, axis=-1, eps=1e-6):
    centred = x - x.mean(axis, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis, keepdims=True) + eps) * p["scale"] + p["bias"]


def mapped(x, p):
    return x @ p["kernel"] + p["bias"]


def cut(images, patch=4):
    """[N, S, S, C] to row-major patches [N, P, patch * patch * C]."""
    side = images.shape[1] // patch
    return np.stack(
        [images[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].reshape(len(images), -1)
         for r in range(side) for c in range(side)], axis=1)  # fmt: skip


def blocks(x, p):
    """Pre-norm blocks over tokens [N, T, D]."""
    for i in range(len(p["norm1"]["scale"])):
        b = jax.tree.map(lambda a, i=i: a[i], p)
        query, key, value = np.split(mapped(normed(x, b["norm1"]), b["attn"]["qkv"]), 3, -1)
        mixed = []
        for h in np.split(np.arange(x.shape[-1]), HEADS):
            score = query[..., h] @ np.swapaxes(key[..., h], 1, 2) / np.sqrt(len(h))
            weight = np.exp(score - score.max(-1, keepdims=True))
            mixed.append(weight / weight.sum(-1, keepdims=True) @ value[..., h])
        x = x + mapped(np.concatenate(mixed, -1), b["attn"]["proj"])
        x = x + mapped(gelu(mapped(normed(x, b["norm2"]), b["mlp"]["fc1"])), b["mlp"]["fc2"])
    return x


def encoded(p, images, kept=None, patch=4):
    """(class tokens [N, D], patch tokens [N, K, D]) of images [N, S, S, C], of the patches `kept` [N, K] alone."""
    stem = p["stem"]["kernel"].reshape(-1, p["cls"].shape[-1])
    x = cut(images, patch) @ stem + p["stem"]["bias"] + p["pos"][0, 1:]
    if kept is not None:
        x = np.stack([tokens[at] for tokens, at in zip(x, kept, strict=True)])
    first = np.broadcast_to(p["cls"][0] + p["pos"][0, :1], (len(x), 1, x.shape[-1]))
    x = normed(blocks(np.concatenate([first, x], 1), p["blocks"]), p["norm"])
    return x[:, 0], x[:, 1:]


def pooled(p, images):
    return encoded(p, images)[1].mean(1)


def head(p, x):
    """Linear, batch norm, GELU, linear of one view's features [B, D]."""
    return mapped(gelu(normed(mapped(x, p["fc1"]), p["norm"], axis=0, eps=1e-5)), p["fc2"])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def wsl(params, teacher, views, target, kept):
    features = pooled(params["backbone"], views[:, 0])
    logits = head(params["head"], features)
    rows = [logsumexp(z) - z[t] for z, t in zip(logits, target, strict=True) if t >= 0]
    return np.sum(rows) / len(target), features


def simclr(params, teacher, views, target, kept):
    e = [pooled(params["backbone"], views[:, v]) for v in range(2)]
    z = unit(np.concatenate([head(params["projector"], x) for x in e]))
    scores, count = z @ z.T / 0.1, len(views)
    np.fill_diagonal(scores, -np.inf)
    pairs = [(i, (i + count) % (2 * count)) for i in range(2 * count)]
    return np.mean([logsumexp(scores[i]) - scores[i, j] for i, j in pairs]), (e[0] + e[1]) / 2


def predicted_and_followed(params, teacher, views):
    """(features, predictions, keys) by view."""
    e = [pooled(params["backbone"], views[:, v]) for v in range(2)]
    q = [unit(head(params["predictor"], head(params["projector"], x))) for x in e]
    k = [unit(head(teacher["projector"], pooled(teacher["backbone"], views[:, v]))) for v in range(2)]
    return e, q, k


def byol(params, teacher, views, target, kept):
    e, q, k = predicted_and_followed(params, teacher, views)
    return np.mean([2 - 2 * (q[v] * k[1 - v]).sum(-1) for v in range(2)]), e[0]


def moco(params, teacher, views, target, kept):
    e, q, k = predicted_and_followed(params, teacher, views)
    losses = []
    for v in range(2):
        scores = q[v] @ k[1 - v].T  # temperature 1
        losses += [2 * (logsumexp(row) - row[i]) for i, row in enumerate(scores)]
    return np.mean(losses), e[0]


def mae(params, teacher, views, target, kept):
    images, p = views[:, 0], params["decoder"]
    cls, seen = encoded(params["backbone"], images, kept)
    pixels, losses = cut(images), []
    x = np.tile(p["mask"], (len(images), pixels.shape[1], 1))
    for i, at in enumerate(kept):
        x[i, at] = mapped(seen[i], p["embed"])
    x = np.concatenate([mapped(cls, p["embed"])[:, None], x], 1) + p["pos"]
    made = mapped(normed(blocks(x, p["blocks"]), p["norm"])[:, 1:], p["pixels"])
    for i, at in enumerate(kept):
        for place in set(range(pixels.shape[1])) - set(at.tolist()):
            patch = pixels[i, place]
            losses.append(((made[i, place] - (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)) ** 2).mean())
    return np.mean(losses), seen.mean(1)


METHODS = {"wsl": wsl, "simclr": simclr, "byol": byol, "moco": moco, "mae": mae}
