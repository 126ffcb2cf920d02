"""Multi-crop on device: from one integer image an example to all its augmented views, inside jit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from protloc_jax.config import ConfigError
from protloc_jax.views import image_ops as ops
from protloc_jax.views.background_config import BackgroundViews
from protloc_jax.views.channel_jitter import drawn_turn, jittered
from protloc_jax.views.config import ViewsConfig, is_colour, normalisation_of, resolve
from protloc_jax.views.draws import FIRST_LOCAL, NUMBERS, Draws, Purpose, draw
from protloc_jax.views.normalisation import Normalisation, normalise
from protloc_jax.views.recipes import Recipe, Strengths
from protloc_jax.views.resample import BOX_NUMBERS, cut, draw_box, longest, resize, shorter_side, taps
from protloc_jax.views.surroundings import moved, student_source, surroundings, teacher_source
from protloc_jax.views.warp import WARP_NUMBERS, draw_corner, warp

if TYPE_CHECKING:
    from protloc_jax.channels import ChannelSet


class Views(NamedTuple):
    """All views of a batch: global_ [B, n_global, S, S, C] and local [B, n_local, s, s, C].

    teacher [B, n_global, S, S, C] holds the same crops as `global_`, augmented alike, on the surroundings that the
    teacher is to see (`BackgroundViews.teacher`); None where it sees `global_`.
    """

    global_: jax.Array
    local: jax.Array
    teacher: jax.Array | None = None


_Source = Callable[[Draws], jax.Array]  # what a view is cut from [H, C, W], by the view's own draws


class _Plan(NamedTuple):
    """Everything about images and recipe that is fixed before tracing."""

    config: ViewsConfig
    recipe: Recipe
    how: Normalisation
    droppable: tuple[int, ...]
    rescaled: int | None
    rgb: bool
    gather: bool
    dtype: jnp.dtype


def make_views(config: ViewsConfig, channels: ChannelSet, *, dtype=jnp.float32) -> Callable[..., Views]:
    """The function that makes all views of a batch; pure, to be called inside jit.

    Returns `views(images, keys, partner=None, donor=None, mask=None) -> Views` with images [B, H, W, C] uint8, uint16
    or float in [0, 1], keys [B] typed PRNG keys, one an example, and, as `local_from` says, partner images with the
    same channels. From "both", the first half of the global and of the local views shows the image, the second half
    the partner. With `config.background`, masks [B, H, W] of the images and, for swaps, donor images come along.
    Views of an example depend on its pixels and key alone, not on the batch, its size, or the devices. `dtype` is the
    precision of pixels; draws are float32 always, so float64 views differ from float32 ones by rounding only.
    Where a recipe's own operation does not apply to the channels it is left out (`is_colour`, `droppable_channels`,
    `normalisation_of`); one asked for in the config raises ConfigError.
    """
    plan = _plan(config, channels, jnp.dtype(dtype))

    def views(
        images: jax.Array,
        keys: jax.Array,
        partner: jax.Array | None = None,
        donor: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> Views:
        if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape != images.shape[:1]:
            raise ValueError(f"keys {keys.dtype}{keys.shape}: expected typed keys of shape {images.shape[:1]}.")
        if images.ndim != 4 or images.shape[-1] != len(channels):
            names = ", ".join(channels.names)
            raise ValueError(f"images {images.shape}: expected [B, H, W, {len(channels)}] ({names}).")
        if config.background.needs_mask:
            given = _cell_inputs(config.background, images, donor, mask)
            return jax.vmap(lambda image, key, *rest: _cell_views(image, key, *rest, plan=plan))(images, keys, *given)
        if config.local_from == "image" or (config.local_from == "auto" and partner is None):
            return jax.vmap(lambda image, key: _views(image, image, key, plan))(images, keys)
        if partner is None or partner.shape[0] != images.shape[0] or partner.shape[-1] != images.shape[-1]:
            got = "none" if partner is None else str(partner.shape)
            raise ValueError(f"local_from='{config.local_from}' needs partner images for {images.shape}, got {got}.")
        return jax.vmap(lambda image, other, key: _views(image, other, key, plan))(images, partner, keys)

    return views


def _plan(config: ViewsConfig, channels: ChannelSet, dtype: jnp.dtype) -> _Plan:
    recipe, rgb = resolve(config), is_colour(config, channels)
    droppable, rescaled = droppable_channels(recipe, channels), channels.with_role(recipe.rescaled)
    problems = []
    if config.colour == "rgb" and len(channels) != 3:
        problems.append("colour='rgb' needs 3 channels.")
    if 2 * len(channels) > NUMBERS:
        problems.append(f"views draw {NUMBERS} numbers, enough for {NUMBERS // 2} channels, not {len(channels)}.")
    if config.rescale_protein and len(rescaled) != 1:
        problems.append(f"rescale_protein={config.rescale_protein}: {len(rescaled)} channels are {recipe.rescaled}.")
    if config.drop_channel and not droppable:
        problems.append(
            f"drop_channel={config.drop_channel}: needs a channel whose role is {' or '.join(recipe.protected)}, "
            f"another one, and at least {max(recipe.drop_min_channels, 2)} in all."
        )
    for name in ("grey", "jitter_hue", "jitter_saturation"):
        if getattr(config, name) and not rgb:
            problems.append(f"{name}={getattr(config, name)}: only for red-green-blue images (set colour='rgb').")
    if problems:
        raise ConfigError("\n  ".join([f"views of channels {channels}:", *problems]))
    return _Plan(
        config=config,
        recipe=recipe,
        how=normalisation_of(config, channels),
        droppable=droppable,
        rescaled=rescaled[0] if len(rescaled) == 1 else None,
        rgb=rgb,
        gather=config.rows == "gather" or (config.rows == "auto" and jax.default_backend() != "tpu"),
        dtype=dtype,
    )


def _views(image: jax.Array, partner: jax.Array, key: jax.Array, plan: _Plan) -> Views:
    """All views of one example and its partner (or itself), from [H, W, C]; no batch axis."""
    config = plan.config
    source = _source(image, plan)
    other = source if partner is image else _source(partner, plan)
    # How many views of each kind show the image itself; those after them show the partner.
    both = config.local_from == "both"
    own_global, own_local = (config.n_global // 2, config.n_local // 2) if both else (config.n_global, 0)
    draws = _draws(key, config)
    globals_ = [
        _global_views(lambda _, shown=shown: shown, draws, a, b, plan)
        for shown, a, b in ((source, 0, own_global), (other, own_global, config.n_global))
        if b > a
    ]
    locals_ = [
        _local_views(lambda _, shown=shown: shown, draws, a, b, plan)
        for shown, a, b in ((source, 0, own_local), (other, own_local, config.n_local))
        if b > a
    ]
    empty = jnp.zeros((0, config.local_size, config.local_size, image.shape[-1]), plan.dtype)
    return Views(jnp.concatenate(globals_), jnp.concatenate(locals_) if locals_ else empty)


def _cell_views(
    image: jax.Array, key: jax.Array, mask: jax.Array, donor: jax.Array | None = None, *, plan: _Plan
) -> Views:
    """All views of one example whose surroundings are changed, from [H, W, C] and its mask [H, W]; no batch axis."""
    config, how = plan.config, plan.config.background
    whole = ops.to_float(image, plan.dtype)
    other = None if donor is None else ops.to_float(donor, plan.dtype)
    cell = surroundings(whole, mask, other, key, how)
    draws = _draws(key, config)

    def student(row: Draws) -> jax.Array:
        return jnp.swapaxes(student_source(cell, row, how), 1, 2)

    shown = _global_views(student, draws, 0, config.n_global, plan)
    local = jnp.zeros((0, config.local_size, config.local_size, image.shape[-1]), plan.dtype)
    if config.n_local:
        local = _local_views(student, draws, 0, config.n_local, plan, mask=mask)
    if not how.apart or how.teacher == "student":
        return Views(shown, local)
    fixed = jnp.swapaxes(teacher_source(cell, how.teacher), 1, 2)
    return Views(shown, local, _global_views(lambda _: fixed, draws, 0, config.n_global, plan))


def _cell_inputs(
    config: BackgroundViews, images: jax.Array, donor: jax.Array | None, mask: jax.Array | None
) -> tuple[jax.Array, ...]:
    """(masks, donors if they are needed); ValueError where they are missing or do not fit the images."""
    if mask is None or mask.shape != images.shape[:3]:
        got = "none" if mask is None else str(mask.shape)
        raise ValueError(f"views.background needs masks {images.shape[:3]}, got {got} (data.mask=true).")
    if config.swap <= 0:
        return (mask,)
    if donor is None or donor.shape != images.shape:
        got = "none" if donor is None else str(donor.shape)
        raise ValueError(f"views.background.swap={config.swap} needs donors {images.shape}, got {got} (data.donor).")
    return mask, donor


def _draws(key: jax.Array, config: ViewsConfig) -> Draws:
    """The draws of all views, global ones first."""
    return draw(key, jnp.asarray([*range(config.n_global), *(FIRST_LOCAL + i for i in range(config.n_local))]))


def _global_views(source: _Source, draws: Draws, first: int, last: int, plan: _Plan) -> jax.Array:
    """Global views `first` to `last` [V, S, S, C] of what `source` shows of each."""
    config, recipe = plan.config, plan.recipe
    alike = recipe.first == recipe.other  # then all global views of an image are one program
    ends = sorted({first, last} | (set() if alike or first > 0 or last < 2 else {1}))

    def several(a: int, b: int) -> jax.Array:
        how = recipe.other if a else recipe.first
        return jax.vmap(lambda row: _view(source(row), row, config.global_size, config.global_scale, how, plan))(
            jax.tree.map(lambda leaf: leaf[a:b], draws)
        )

    return jnp.concatenate([several(a, b) for a, b in itertools.pairwise(ends)])


def _local_views(
    source: _Source, draws: Draws, first: int, last: int, plan: _Plan, *, mask: jax.Array | None = None
) -> jax.Array:
    """Local views `first` to `last` [V, s, s, C] of what `source` shows of each; by a mask, of the cell."""
    config, start = plan.config, plan.config.n_global
    size, scale, how = config.local_size, config.local_scale, plan.recipe.local
    if not config.background.cell_share:
        mask = None
    return jax.vmap(lambda row: _view(source(row), row, size, scale, how, plan, mask=mask))(
        jax.tree.map(lambda leaf: leaf[start + first : start + last], draws)
    )


def _source(image: jax.Array, plan: _Plan) -> jax.Array:
    """The whole image as [H, C, W] in its own type, or as floats resized where the recipe says so."""
    x = jnp.swapaxes(image, 1, 2)
    if not plan.recipe.resize:
        return jax.lax.optimization_barrier(x)  # transposed once, not again at every gathered row
    out = shorter_side(x.shape[0], x.shape[2], plan.recipe.resize)
    kind = plan.recipe
    x = ops.to_float(x, plan.dtype)
    return resize(x, out, interpolation=kind.interpolation, antialias=kind.antialias, gather=plan.gather)


def _view(
    source: jax.Array,
    draws: Draws,
    size: int,
    scale: tuple[float, float],
    how: Strengths,
    plan: _Plan,
    *,
    mask: jax.Array | None = None,
) -> jax.Array:
    """One view [size, size, C] of a source [H, C, W]; with a mask, a crop that shows enough of the cell."""
    height, width = source.shape[0], source.shape[2]
    if how.warp > 0:
        corner = draw_corner(draws.uniform(Purpose.WARP, WARP_NUMBERS), height, width, how.warp)
        source = warp(jnp.swapaxes(ops.to_float(source, plan.dtype), 1, 2), *corner)
        source = jnp.swapaxes(source, 1, 2)
    area = {"scale": scale, "ratio": plan.config.ratio}
    box = draw_box(draws.uniform(Purpose.BOX, BOX_NUMBERS), height, width, **area)
    if mask is not None:
        box = moved(box, mask, draws, plan.config.background.cell_share)
    tall, wide = longest(height, width, **area)
    up, across, transposed = flips(draws.uniform(Purpose.FLIP, 4), how)
    kind = {
        "out": size,
        "interpolation": plan.recipe.interpolation,
        "antialias": plan.recipe.antialias,
        "dtype": plan.dtype,
    }
    rows = taps(box.top, box.height, longest=tall, flip=up, **kind)
    columns = taps(box.left, box.width, longest=wide, flip=across, **kind)
    x = cut(source, rows, columns, gather=plan.gather, unit=ops.unit(source.dtype))
    if how.turn > 0:
        x = jnp.where(transposed, jnp.swapaxes(x, 0, 2), x)
    if plan.recipe.interpolation == "bicubic":
        x = jnp.clip(x, 0.0, 1.0)  # the kernel overshoots
    if how.rotate > 0:
        x = drawn_turn(x, draws, how)
    gains = None
    if how.drop_channel > 0 or how.rescale_protein > 0:
        top = ops.to_float(jnp.max(source, axis=(0, 2)), plan.dtype)
        gains = channel_gains(top, draws, how, droppable=plan.droppable, rescaled=plan.rescaled)
    if gains is not None:
        x = x * gains[:, None]
    x = normalise(_pixels(x, draws, how, rgb=plan.rgb), plan.how, channel_axis=1)
    if how.gain > 0 or how.shift > 0:
        normal = draws.normal(Purpose.GAIN, 2 * x.shape[1]).astype(x.dtype).reshape(2, -1, 1)
        x = x * jnp.exp(how.gain * normal[0]) + how.shift * normal[1]
    return jnp.swapaxes(x, 1, 2)


def flips(uniform: jax.Array, how: Strengths) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(rows reversed, columns reversed, transposed after that) that drawn flips and then quarter turns amount to."""
    columns = uniform[0] < how.flip_horizontal
    rows = uniform[1] < how.flip_vertical
    quarter = jnp.where(uniform[2] < how.turn, jnp.floor(uniform[3] * 4).astype(jnp.int32), 0)
    # numpy.rot90 once is a column flip then a transposition, twice both flips, thrice a row flip then a transposition
    return rows ^ (quarter >= 2), columns ^ ((quarter == 1) | (quarter == 2)), (quarter % 2) == 1


def droppable_channels(recipe: Recipe, channels: ChannelSet) -> tuple[int, ...]:
    """Indices of the channels that channel dropping may choose from.

    None where there are too few channels, or where no channel has a protected role: it is then not known which one is
    the protein, and any choice might drop it.
    """
    others = tuple(i for i, c in enumerate(channels) if c.role not in recipe.protected)
    enough = len(channels) >= max(recipe.drop_min_channels, 2)
    return others if enough and len(others) < len(channels) else ()


def channel_gains(
    top: jax.Array, draws: Draws, how: Strengths, *, droppable: tuple[int, ...], rescaled: int | None
) -> jax.Array | None:
    """Factor per channel [C] from channel dropping and protein rescaling, or None where neither is on.

    `top` [C] is the largest value of each channel in the whole image. Both act on the
    whole image before the crop; as factors per channel they commute with it.
    """
    drop = how.drop_channel > 0 and len(droppable) > 0
    rescale = how.rescale_protein > 0 and rescaled is not None
    if not (drop or rescale):
        return None
    channel = jnp.arange(len(top))
    gains = jnp.ones_like(top)
    if drop:
        u = draws.uniform(Purpose.DROP, 2)
        which = jnp.asarray(droppable)[jnp.floor(u[1] * len(droppable)).astype(jnp.int32)]
        gains = jnp.where((u[0] < how.drop_channel) & (channel == which), 0.0, gains)
    if rescale:
        u = draws.uniform(Purpose.RESCALE, 2)
        highest = jnp.max(top * gains)
        factor = (2.0 * u[1]).astype(top.dtype) / jnp.where(highest > 0, highest, 1.0)
        gains = jnp.where((u[0] < how.rescale_protein) & (channel == rescaled), factor * gains, gains)
    return gains


def _pixels(x: jax.Array, draws: Draws, how: Strengths, *, rgb: bool) -> jax.Array:
    """Intensity operations on a crop [size, C, size] in [0, 1]."""
    count = x.shape[1]
    if how.gamma > 0:
        u = draws.uniform(Purpose.GAMMA, count).astype(x.dtype)
        x = ops.gamma(x, jnp.exp(how.gamma * (2.0 * u - 1.0)))
    if how.jitter > 0:
        x = _jitter(x, draws.uniform(Purpose.JITTER, 10), how, rgb=rgb)
    if how.brightness > 0:
        factor = 1.0 + how.brightness * draws.normal(Purpose.BRIGHTNESS, count)
        x = ops.brightness(x, jnp.maximum(factor, 0.5).astype(x.dtype))
    if how.contrast > 0:
        factor = 1.0 + how.contrast * draws.normal(Purpose.CONTRAST, count)
        x = ops.contrast(x, jnp.maximum(factor, 0.5).astype(x.dtype))
    x = jittered(x, draws, how)
    if how.grey > 0 and rgb:
        x = jnp.where(draws.uniform(Purpose.GREY, 1)[0] < how.grey, ops.luminance(x), x)
    if how.blur > 0:
        u = draws.uniform(Purpose.BLUR, 2)
        low, high = how.blur_sigma
        x = ops.blur(x, jnp.where(u[0] < how.blur, low + (high - low) * u[1], 0.0), sigma_max=high)
    if how.noise > 0:
        std = how.noise * draws.uniform(Purpose.NOISE, 1)[0]
        noise = std * jax.random.normal(draws.pixels, x.shape, jnp.float32)
        x = jnp.clip(x + noise.astype(x.dtype), 0.0, 1.0)
    if how.solarise > 0:
        on = draws.uniform(Purpose.SOLARISE, 1)[0] < how.solarise
        x = ops.solarise(x, jnp.where(on, 0.5, 2.0).astype(x.dtype))
    return x


def _jitter(x: jax.Array, u: jax.Array, how: Strengths, *, rgb: bool) -> jax.Array:
    on = u[0] < how.jitter
    amounts = jnp.asarray([how.jitter_brightness, how.jitter_contrast, how.jitter_saturation], jnp.float32)
    factors = jnp.where(on, 1.0 + amounts * (2.0 * u[1:4] - 1.0), 1.0).astype(x.dtype)
    if not rgb:
        return ops.jitter_channels(x, factors[:2], u[4] < 0.5)
    hue = jnp.where(on, how.jitter_hue * (2.0 * u[5] - 1.0), 0.0).astype(x.dtype)
    return ops.jitter_rgb(x, factors, hue, jnp.argsort(u[6:9]), jnp.floor(u[9] * 4).astype(jnp.int32))
