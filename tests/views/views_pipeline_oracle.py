"""A whole view in plain NumPy, from the recipe and the drawn numbers; states the order of operations a second time."""

from __future__ import annotations

import numpy as np
import views_oracle as oracle
from scipy.special import ndtri

from protloc_jax.views.draws import Purpose

DINO4CELLS_HPA = ((0.1450534, 0.11360057, 0.1231717, 0.14919987), (0.18122554, 0.14004277, 0.18840286, 0.17790672))


def view(image, table, *, size, scale, how, recipe, rgb, protein=1, constants=None, normalised="recipe"):
    """One view [size, size, C] of an image [H, W, C] in [0, 1]; `table` holds its uniform numbers [purposes, n]."""
    u = {p: table[p].astype(np.float64) for p in Purpose}
    count = image.shape[2]
    x = image.astype(np.float64)
    if recipe.resize:
        x = oracle.resize(x, (recipe.resize, recipe.resize), recipe.interpolation, recipe.antialias)
    height, width = x.shape[:2]
    if how.warp and u[Purpose.WARP][0] < how.warp:
        corner = int(u[Purpose.WARP][1] * 4)
        dx, dy = u[Purpose.WARP][2:4] * min(height, width) / 4
        x = oracle.warp(x, corner % 2 == 1, corner >= 2, dx, dy)
    others = [c for c in range(count) if c != protein]
    if how.drop_channel and count >= recipe.drop_min_channels and u[Purpose.DROP][0] < how.drop_channel:
        x = x.copy()
        x[..., others[int(u[Purpose.DROP][1] * len(others))]] = 0
    if how.rescale_protein and u[Purpose.RESCALE][0] < how.rescale_protein:
        x = x.copy()
        x[..., protein] *= 2 * u[Purpose.RESCALE][1] / x.max()
    top, left, h, w = oracle.box(table[Purpose.BOX], height, width, scale, (3 / 4, 4 / 3))
    x = oracle.resize(x[top : top + h, left : left + w], (size, size), recipe.interpolation, recipe.antialias)
    if recipe.interpolation == "bicubic":
        x = x.clip(0, 1)
    x = _flip(x, u[Purpose.FLIP], how)
    if how.rotate:
        x = turned(x, how.rotate * (2 * u[Purpose.ROTATE][0] - 1))
    x = _intensities(x, u, how, rgb)
    if normalised == "none":
        pass
    elif recipe.normalise == "self":
        x = oracle.self_normalise(x)
    else:
        x = (x - constants[0]) / constants[1]
    if how.gain or how.shift:
        normal = ndtri(u[Purpose.GAIN][: 2 * count])
        x = x * np.exp(how.gain * normal[:count]) + how.shift * normal[count:]
    return x


def _flip(x, u, how):
    if u[0] < how.flip_horizontal:
        x = x[:, ::-1]
    if u[1] < how.flip_vertical:
        x = x[::-1]
    return np.rot90(x, int(u[3] * 4)) if u[2] < how.turn else x


def _intensities(x, u, how, rgb):
    count = x.shape[2]
    if how.gamma:
        x = x ** np.exp(how.gamma * (2 * u[Purpose.GAMMA][:count] - 1))
    if how.jitter and u[Purpose.JITTER][0] < how.jitter:
        x = _jitter(x, u[Purpose.JITTER], how, rgb)
    if how.brightness:
        x = oracle.blend(x, 0, np.maximum(1 + how.brightness * ndtri(u[Purpose.BRIGHTNESS][:count]), 0.5))
    if how.contrast:
        factor = np.maximum(1 + how.contrast * ndtri(u[Purpose.CONTRAST][:count]), 0.5)
        x = oracle.blend(x, x.mean(axis=(0, 1)), factor)
    x = _channels(x, u, how)
    if how.grey and rgb and u[Purpose.GREY][0] < how.grey:
        x = np.repeat(oracle.grey(x), 3, axis=2)
    if how.blur and u[Purpose.BLUR][0] < how.blur:
        low, high = how.blur_sigma
        x = oracle.blur(x, low + (high - low) * u[Purpose.BLUR][1], high)
    if how.solarise and u[Purpose.SOLARISE][0] < how.solarise:
        x = np.where(x >= 0.5, 1 - x, x)
    return x


def turned(x, degrees):
    """Pixel by pixel: where the centre of an output pixel was before a counter-clockwise turn."""
    size, back = len(x), np.exp(-1j * np.deg2rad(degrees))
    made, middle = np.zeros_like(x), (size - 1) / 2
    for row in range(size):
        for column in range(size):
            was = complex(column - middle, middle - row) * back  # the imaginary axis points up
            r, c = round(middle - was.imag), round(was.real + middle)
            if 0 <= r < size and 0 <= c < size:
                made[row, column] = x[r, c]
    return made


def _channels(x, u, how):
    gain, offset, contrast = (u[p] for p in (Purpose.CHANNEL_GAIN, Purpose.CHANNEL_OFFSET, Purpose.CHANNEL_CONTRAST))
    count = x.shape[2]
    if how.channel_gain and gain[0] < how.channel_gain:
        x = x * (0.8 + 0.4 * gain[1 : 1 + count])
    if how.channel_offset and offset[0] < how.channel_offset:
        low, high = how.offset_level
        x = x + (low + (high - low) * offset[1]) * (0.5 + offset[2 : 2 + count])
    if how.channel_contrast and contrast[0] < how.channel_contrast:
        factor = np.where(contrast[1 : 1 + count] < 0.5, 0.8 + 0.5 * contrast[1 + count : 1 + 2 * count], 1)
        x = x.mean(axis=(0, 1)) + factor * (x - x.mean(axis=(0, 1)))
    return x


def _jitter(x, u, how, rgb):
    amounts = np.array([how.jitter_brightness, how.jitter_contrast, how.jitter_saturation])
    factors = 1 + amounts * (2 * u[1:4] - 1)
    if not rgb:
        kinds = ["contrast", "brightness"] if u[4] < 0.5 else ["brightness", "contrast"]
        for kind in kinds:
            pivot, factor = (0, factors[0]) if kind == "brightness" else (x.mean(axis=(0, 1)), factors[1])
            x = oracle.blend(x, pivot, factor)
        return x
    steps = [
        lambda v: oracle.blend(v, 0, factors[0]),
        lambda v: oracle.blend(v, oracle.grey(v).mean(), factors[1]),
        lambda v: oracle.blend(v, oracle.grey(v), factors[2]),
    ]
    sequence = [steps[i] for i in np.argsort(u[6:9])]
    sequence.insert(int(u[9] * 4), lambda v: oracle.hue(v, how.jitter_hue * (2 * u[5] - 1)))
    for step in sequence:
        x = step(x)
    return x
