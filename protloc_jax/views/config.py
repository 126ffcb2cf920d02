"""Configuration of the training views."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

from protloc_jax.config import ConfigError, check_literals, opt
from protloc_jax.views.background_config import BackgroundViews
from protloc_jax.views.normalisation import Normalisation, published_constants
from protloc_jax.views.recipes import RECIPES, Recipe, RecipeName, Strengths

if TYPE_CHECKING:
    from protloc_jax.channels import ChannelSet

_PROBABILITIES = (
    "warp",
    "drop_channel",
    "rescale_protein",
    "flip_horizontal",
    "flip_vertical",
    "turn",
    "jitter",
    "grey",
    "blur",
    "solarise",
    "channel_gain",
    "channel_offset",
    "channel_contrast",
)
_AMOUNTS = (
    "gamma",
    "jitter_brightness",
    "jitter_contrast",
    "jitter_saturation",
    "jitter_hue",
    "brightness",
    "contrast",
    "noise",
    "gain",
    "shift",
    "rotate",
)


@dataclass(frozen=True)
class ViewsConfig:
    """Which crops are made of an image and how they are augmented.

    A strength left at None is the recipe's own (see `RECIPES`); a number replaces it for every kind of view. Sizes and
    scales are those of the published recipes except Cell Painting's, which `published` gives.
    Raises ConfigError naming every bad key.
    """

    recipe: Literal["dino", "dino4cells", "dino4cells_fov", "dino4cells_cell_painting", "rxrx", "rxrx_byol", "ours"] = (
        opt("ours", "augmentation recipe; the fields left at None or 'recipe' follow it")
    )
    global_size: int = opt(224, "side of a global crop in pixels")
    local_size: int = opt(96, "side of a local crop in pixels")
    n_global: int = opt(2, "global crops an image")
    n_local: int = opt(8, "local crops an image")
    global_scale: tuple[float, float] = opt((0.4, 1.0), "area of a global crop as a share of the image")
    local_scale: tuple[float, float] = opt((0.05, 0.4), "area of a local crop as a share of the image")
    ratio: tuple[float, float] = opt((3 / 4, 4 / 3), "width / height of a crop before it is resized (log-uniform)")
    interpolation: Literal["recipe", "bilinear", "bicubic"] = opt("recipe", "kernel of the crop's resampling")
    antialias: Literal["recipe", "on", "off"] = opt("recipe", "widen the kernel when a crop is reduced")
    normalise: Literal["recipe", "self", "dataset", "none"] = opt("recipe", "last operation of every view")
    mean: tuple[float, ...] = opt((), "dataset mean a channel in [0, 1]; empty = the published one where it applies")
    std: tuple[float, ...] = opt((), "dataset standard deviation a channel in [0, 1]")
    local_from: Literal["auto", "image", "partner", "both"] = opt(
        "auto",
        "where crops come from besides the image: local ones from the image, or from its partner (WS-DINO), or half of "
        "the global and half of the local ones from the partner (both, as CellPaintSSL); auto: image without "
        "data.weak_label, partner with it",
    )
    rows: Literal["auto", "gather", "matrix"] = opt(
        "auto", "how a crop's rows are interpolated: summed from gathered ones, or a matrix product (auto: on TPUs)"
    )
    colour: Literal["auto", "rgb", "channels"] = opt(
        "auto", "read channels as red, green, blue or not (auto: when they are three and none is the protein)"
    )
    resize: int | None = opt(None, "shorter side the whole image is first brought to; 0 = as it is")
    warp: float | None = opt(None, "probability of the perspective warp")
    drop_channel: float | None = opt(None, "probability of zeroing one channel that is not the protein")
    drop_min_channels: int | None = opt(None, "images with fewer channels lose none")
    rescale_protein: float | None = opt(None, "probability of rescaling the protein channel")
    flip_horizontal: float | None = opt(None, "probability of a left-right flip")
    flip_vertical: float | None = opt(None, "probability of an up-down flip")
    turn: float | None = opt(None, "probability of drawing one of four quarter turns")
    gamma: float | None = opt(None, "half range of the logarithm of a channel's exponent")
    jitter: float | None = opt(None, "probability of the colour jitter")
    jitter_brightness: float | None = opt(None, "half range of the jitter's brightness factor")
    jitter_contrast: float | None = opt(None, "half range of the jitter's contrast factor")
    jitter_saturation: float | None = opt(None, "half range of the jitter's saturation factor")
    jitter_hue: float | None = opt(None, "half range of the jitter's hue turn, in circles")
    grey: float | None = opt(None, "probability of turning a colour image grey")
    brightness: float | None = opt(None, "standard deviation of a channel's brightness factor")
    contrast: float | None = opt(None, "standard deviation of a channel's contrast factor")
    blur: float | None = opt(None, "probability of a Gaussian blur")
    blur_sigma: tuple[float, float] | None = opt(None, "range of the blur's sigma in pixels of the crop")
    noise: float | None = opt(None, "largest standard deviation of Gaussian noise, in [0, 1]")
    solarise: float | None = opt(None, "probability of solarising")
    gain: float | None = opt(None, "standard deviation of the log gain of a normalised channel")
    shift: float | None = opt(None, "standard deviation of the offset of a normalised channel")
    rotate: float | None = opt(None, "largest angle in degrees of a turn by any angle, zeros beyond the border")
    channel_gain: float | None = opt(None, "probability of multiplying each channel by 0.8 to 1.2")
    channel_offset: float | None = opt(None, "probability of adding a level to each channel")
    offset_level: tuple[float, float] | None = opt(
        None, "range of that level, in [0, 1]; a channel gets 0.5 to 1.5 of it"
    )
    channel_contrast: float | None = opt(
        None, "probability of scaling each channel, or not (1/2), about its mean by 0.8 to 1.3"
    )
    background: BackgroundViews = field(default_factory=BackgroundViews)

    def __post_init__(self) -> None:
        check_literals(self)
        problems = []
        for name in ("global_size", "local_size", "n_global"):
            if getattr(self, name) < 1:
                problems.append(f"{name}={getattr(self, name)}: must be at least 1.")
        for name in ("n_local", "resize", "drop_min_channels"):
            if (getattr(self, name) or 0) < 0:
                problems.append(f"{name}={getattr(self, name)}: must be 0 or more.")
        for name, top in (("global_scale", 1.0), ("local_scale", 1.0), ("ratio", float("inf"))):
            low, high = getattr(self, name)
            if not 0 < low <= high <= top:
                problems.append(f"{name}={(low, high)}: needs 0 < low <= high{' <= 1' if top == 1.0 else ''}.")
        for name in _PROBABILITIES:
            if not 0 <= (getattr(self, name) or 0.0) <= 1:
                problems.append(f"{name}={getattr(self, name)}: a probability lies in [0, 1].")
        for name in _AMOUNTS:
            top = {"jitter_hue": 0.5, "noise": 1.0, "rotate": 180.0}.get(name, float("inf"))
            if name.startswith("jitter_") and name != "jitter_hue":
                top = 1.0
            if not 0 <= (getattr(self, name) or 0.0) <= top:
                problems.append(f"{name}={getattr(self, name)}: must lie in [0, {top}].")
        if self.blur_sigma is not None and not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            problems.append(f"blur_sigma={self.blur_sigma}: needs 0 < low <= high.")
        if self.offset_level is not None and not 0 <= self.offset_level[0] <= self.offset_level[1] <= 1:
            problems.append(f"offset_level={self.offset_level}: needs 0 <= low <= high <= 1.")
        if self.local_from == "both":
            odd = [f"{n}={getattr(self, n)}" for n in ("n_global", "n_local") if getattr(self, n) % 2]
            if odd:
                problems.append(f"local_from=both: image and partner give half of the crops each; {', '.join(odd)}.")
        if self.background.needs_mask:
            if self.local_from in ("partner", "both"):
                problems.append(f"local_from={self.local_from}: a partner has no mask; background.* needs one.")
            if resolve(self).resize:
                problems.append(f"resize={resolve(self).resize}: background.* works on crops at their own size; use 0.")
        if len(self.mean) != len(self.std):
            problems.append(f"mean has {len(self.mean)} values and std {len(self.std)}.")
        if problems:
            raise ConfigError("\n  ".join(problems))


def published(recipe: RecipeName) -> ViewsConfig:
    """The recipe with the crop sizes it was published with (only Cell Painting's differ from the defaults)."""
    return ViewsConfig(recipe=recipe, global_size=RECIPES[recipe].sizes[0], local_size=RECIPES[recipe].sizes[1])


def resolve(config: ViewsConfig) -> Recipe:
    """The recipe with the config's own values put in; what `make_views` runs."""
    recipe = RECIPES[config.recipe]
    given = {f.name: getattr(config, f.name) for f in fields(Strengths) if getattr(config, f.name) is not None}
    return replace(
        recipe,
        first=replace(recipe.first, **given),
        other=replace(recipe.other, **given),
        local=replace(recipe.local, **given),
        interpolation=recipe.interpolation if config.interpolation == "recipe" else config.interpolation,
        antialias=recipe.antialias if config.antialias == "recipe" else config.antialias == "on",
        resize=recipe.resize if config.resize is None else config.resize,
        drop_min_channels=(recipe.drop_min_channels if config.drop_min_channels is None else config.drop_min_channels),
    )


def is_colour(config: ViewsConfig, channels: ChannelSet) -> bool:
    """Whether the channels are red, green and blue, so that hue, saturation and grey mean something.

    For other channels they would write one stain into another; the recipe then leaves them out and keeps brightness
    and contrast.
    """
    if config.colour == "auto":
        return len(channels) == 3 and not channels.with_role("protein")
    return config.colour == "rgb"


def normalisation_of(config: ViewsConfig, channels: ChannelSet) -> Normalisation:
    """The normalisation that training views get; evaluation must use the same one.

    Where a recipe's published constants do not fit the channels (ImageNet's for other than red, green and blue, HPA's
    for other roles) and none are given, the recipe self-normalises. Asking for `normalise="dataset"` by name without
    constants raises ConfigError.
    """
    kind = RECIPES[config.recipe].normalise if config.normalise == "recipe" else config.normalise
    if kind != "dataset":
        return Normalisation(kind)
    mean, std = config.mean, config.std
    if not mean:
        mean, std = published_constants(config.recipe, channels, colour=is_colour(config, channels))
    if not mean and config.normalise == "recipe":
        return Normalisation("self")
    if not mean:
        raise ConfigError(
            f"normalise='dataset' needs mean and std, {len(channels)} numbers each ({', '.join(channels.names)})."
        )
    how = Normalisation("dataset", tuple(mean), tuple(std))
    how.check(len(channels))
    return how
