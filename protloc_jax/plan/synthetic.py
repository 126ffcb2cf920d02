"""A batch of noise with everything that an experiment's step looks at, made on the devices themselves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.devices import batch_sharding
from protloc_jax.train.experiment import Experiment


class Images(NamedTuple):
    """Size and depth of the images that a step starts from."""

    height: int = 512
    width: int = 512
    dtype: str = "uint8"


def synthetic_batch(experiment: Experiment, channels: ChannelSet, images: Images, mesh: Mesh) -> Batch:
    """One global batch, split over the devices of `mesh` as training's is: random pixels, an address for every example.

    Partners, donors, masks (a disc is the cell), vectors of cell lines, labels (one class an image) and group ids
    (0) are there where the experiment looks at them. No image ever lies on the host.
    """
    data, method, size = experiment.data, experiment.method, experiment.optim.batch
    shape = (size, images.height, images.width, len(channels))
    classes = len(getattr(method, "classes", ()))
    columns = 1 + max(getattr(method, "place", -1), experiment.graph.place, *getattr(method, "places", ()), *([-1] * 2))

    def make() -> Batch:
        keys = iter(jax.random.split(jax.random.key(0), 4))

        def noise() -> jax.Array:
            return jax.random.bits(next(keys), shape, jnp.dtype(images.dtype))

        number = jnp.arange(size, dtype=jnp.int32)
        rows, across = jnp.mgrid[: images.height, : images.width]
        centre = (rows - images.height / 2) ** 2 + (across - images.width / 2) ** 2
        disc = (centre < (min(images.height, images.width) / 4) ** 2).astype(jnp.uint8)
        return Batch(
            image=noise(),
            example=jnp.stack([jnp.zeros_like(number), number], axis=1),
            labels=jax.nn.one_hot(number % classes, classes) if classes else None,
            group=jnp.zeros((size, columns), jnp.int32) if columns else None,
            partner=noise() if data.weak_label else None,
            donor=noise() if data.donor != "none" else None,
            mask=jnp.broadcast_to(disc, (size, *disc.shape)) if data.mask else None,
            cell_line=jax.random.normal(next(keys), (size, experiment.model.cell_dim))
            if experiment.model.cell_dim
            else None,
        )

    return jax.jit(make, out_shardings=batch_sharding(mesh))()
