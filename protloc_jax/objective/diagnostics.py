"""Signs of collapse, and a verdict on them in words.

A self-distilled model can cheat in two ways (Caron et al. 2021, section 5.3): the teacher says the same, uniform thing
of every image (entropy ln K), or always names one prototype (entropy 0). In both its answer tells nothing about the
image, and the divergence from teacher to student vanishes, because a constant is easy to imitate. Entropy alone would
accuse a teacher that is sure and right, so the information in its answer decides: the entropy of the mean answer less
the mean entropy of the answers. A third way out hides behind a good loss: features that vary along hardly any
direction. At the start every run looks uniform, so nothing is judged before the warm-up is over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

# Share of ln K: less information in the teacher's answer, and less divergence from it, is none.
NOTHING = 0.01
# Share of ln K above which an uninformative answer is the uniform one.
NEAR_UNIFORM = 0.98
# Prototypes in use (exponential of the entropy of the mean answer) below which they are one; four images can tell.
ONE_PROTOTYPE = 1.5
# Standard deviation of layer-normed features over images: 0.3 to 1 in a healthy model of whatever size.
CONSTANT_FEATURES = 0.02
# Participation ratio of the feature covariance: 1 means that all images lie on one line.
FLAT_RANK = 1.5
# The metrics of a step that `judge` reads.
JUDGED = ("loss", "teacher_entropy", "prototype_entropy", "kl", "feature_std", "effective_rank", "centre_norm")


def entropy(probabilities: jax.Array) -> jax.Array:
    """Entropy in nats over the last axis; zeros count as 0."""
    return jax.scipy.special.entr(probabilities).sum(-1)


def feature_moments(features: jax.Array) -> dict[str, jax.Array]:
    """Means over examples and views of features [B, V, D] and of their outer products [D, D].

    Both are linear in the examples, so micro-batches and devices add up without gathering features anywhere.
    """
    x = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    second = jnp.einsum("bvd,bve->de", x, x, precision="highest") / (x.shape[0] * x.shape[1])
    return {"feature_mean": x.mean((0, 1)), "feature_second": second}


def feature_spread(moments: Mapping[str, jax.Array]) -> jax.Array:
    """Mean over dimensions of the features' standard deviation over the batch."""
    variance = jnp.diagonal(moments["feature_second"]) - jnp.square(moments["feature_mean"])
    return jnp.sqrt(jnp.maximum(variance, 0)).mean()


def effective_rank(moments: Mapping[str, jax.Array]) -> jax.Array:
    """Number of directions that carry the features' variance: tr(C)^2 / tr(C^2), the participation ratio.

    Between 1 and min(D, rows - 1); 0 for constant features. Needs no eigenvalues, unlike the entropy form of
    Roy & Vetterli (2007), which is never smaller.
    """
    mean = moments["feature_mean"]
    covariance = moments["feature_second"] - jnp.outer(mean, mean)
    square = jnp.square(covariance).sum()
    trace = jnp.trace(covariance)
    return jnp.where(square > 0, jnp.square(trace) / jnp.where(square > 0, square, 1), 0)


State = Literal[
    "warming up",
    "healthy",
    "uniform collapse",
    "single-prototype collapse",
    "constant teacher",
    "flat features",
    "not finite",
]


class Verdict(NamedTuple):
    """What the numbers of a step say about the run."""

    state: State
    words: str

    @property
    def alarm(self) -> bool:
        """Whether somebody should look."""
        return self.state not in ("healthy", "warming up")


def judge(metrics: Mapping[str, float], *, out_dim: int, step: int, warmup: int) -> Verdict:
    """The verdict on a step's metrics, those that DINO's step returns.

    Needed: those that `JUDGED` names.
    `out_dim`: prototypes K. `warmup`: steps before which only non-finite numbers alarm. The thresholds are this file's
    constants; `words` is one sentence with the numbers that decided.
    """
    loss, entropy, kl, mixed = (float(metrics[k]) for k in ("loss", "teacher_entropy", "kl", "prototype_entropy"))
    spread, rank = float(metrics["feature_std"]), float(metrics["effective_rank"])
    limit = math.log(out_dim)
    against = f"loss {loss:.3f}, teacher entropy {entropy:.3f}, ln K = {limit:.3f}, divergence {kl:.4f}"
    if not all(map(math.isfinite, (loss, entropy, kl, mixed, spread, rank))):
        return Verdict("not finite", f"a number of this step is not finite ({against}).")
    if step < warmup:
        return Verdict("warming up", f"not judged before step {warmup} ({against}).")
    constant = mixed - entropy < NOTHING * limit and kl < NOTHING * limit
    if constant and entropy > NEAR_UNIFORM * limit:
        return Verdict(
            "uniform collapse",
            f"the teacher spreads evenly over all prototypes and the student just copies that ({against}); try a lower "
            "teacher temperature, a lower teacher momentum, or another learning rate and batch.",
        )
    if mixed < math.log(ONE_PROTOTYPE):
        return Verdict(
            "single-prototype collapse",
            f"the teacher names the same prototype for every image ({against}, centre norm "
            f"{float(metrics['centre_norm']):.3g}); is the centre on? Try a higher teacher temperature.",
        )
    if constant:
        return Verdict(
            "constant teacher",
            f"the teacher gives the same answer for every image ({against}, information {mixed - entropy:.4f} nats).",
        )
    if spread < CONSTANT_FEATURES or rank < FLAT_RANK:
        return Verdict(
            "flat features",
            f"features hardly differ between images (standard deviation {spread:.3g}, effective rank {rank:.2f}; "
            f"{against}).",
        )
    return Verdict("healthy", f"features have standard deviation {spread:.3g}, effective rank {rank:.1f} ({against}).")
