"""Training through a channel plan: how the records' channels reach the slots of the weights that a run begins with.

`init.plan` is asked for as any text of `channel_plans.plan_of` and needs the slots of the weights to mean something.
Once they are known it is written out as 'passes:...' (`resolved`), slot by slot, and so stands in the saved config and
in every checkpoint: from then on the weights that a run began with are not needed to read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from protloc_jax.channel_plans import plan_of
from protloc_jax.channels import ChannelPlan, ChannelSet
from protloc_jax.train.experiment import Experiment
from protloc_jax.views.config import normalisation_of

RESOLVED = "passes:"


def resolved(experiment: Experiment, slots: ChannelSet, channels: ChannelSet) -> Experiment:
    """The experiment with `init.plan` written out for weights with `slots` and records with `channels`.

    Unchanged without a plan. Raises ValueError naming everything that stands in the way.
    """
    text = experiment.init.plan
    if not text:
        return experiment
    problems, plan = _normalisation_problems(experiment, channels), None
    try:
        plan = plan_of(text, slots, channels)
        problems += several_passes(experiment, plan)
    except ValueError as error:
        problems.append(str(error))
    if problems or plan is None:
        raise ValueError("\n  ".join([f"init.plan={text}, weights with the slots {slots}:", *problems]))
    return dataclasses.replace(experiment, init=dataclasses.replace(experiment.init, plan=plan.text))


def trained_plan(experiment: Experiment, channels: ChannelSet) -> ChannelPlan | None:
    """The plan that a resolved experiment trains through; None where each channel has a slot of its own.

    Raises ValueError for a plan that is not resolved yet, or does not fit the model's slots or the channels.
    """
    text = experiment.init.plan
    if not text:
        return None
    if not text.startswith(RESOLVED):
        raise ValueError(f"init.plan={text} is not written out yet; `train.initial_model.beginning` does it.")
    plan = plan_from(text, experiment.model.channels, channels)
    problems = _normalisation_problems(experiment, channels) + several_passes(experiment, plan)
    if problems:
        raise ValueError(" ".join([f"init.plan={text}:", *problems]))
    return plan


def several_passes(experiment: Experiment, plan: ChannelPlan) -> list[str]:
    """Why a method that looks at a view once cannot train through a plan; empty where it can."""
    if len(plan.passes) == 1 or experiment.method.name == "supervised":
        return []
    first = plan.used[0]
    return [
        f"method.name={experiment.method.name} makes one pass a view, and this plan has {len(plan.passes)}. Train a "
        f"model a channel: data.channels={first} and that channel in every slot (init.plan=replicate)."
    ]


def plan_from(text: str, slots: int, channels: ChannelSet) -> ChannelPlan:
    """A plan that is written out, for a model with so many slots (their names do not matter any more)."""
    return plan_of(text, ChannelSet((f"slot{i + 1}", "other") for i in range(slots)), channels)


def slots_of(meta: Mapping[str, Any]) -> ChannelSet:
    """The channels that the backbone of a checkpoint has slots for, by its meta record.

    They are the channels of its records, unless it was trained through a plan.
    """
    init = meta.get("init") or {}
    return ChannelSet(init["slots"] if init.get("plan") else meta["channels"])


def arranged(images: jax.Array, plan: ChannelPlan, channels: ChannelSet) -> jax.Array:
    """Normalised images [..., S, S, C] as the passes [..., P, S, S, slots] of a plan.

    An empty slot gets 0, which is what a raw zero becomes without constants (self-normalisation, or none). Copies of a
    channel are the same pixels.
    """
    return jnp.stack(plan.apply(images, channels), axis=-4)


def keys_of_passes(keys: jax.Array, passes: int) -> jax.Array:
    """One typed key a pass, [..., P], from one an image, [...]."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    for _ in keys.shape:
        fold = jax.vmap(fold, in_axes=(0, None))
    return fold(keys, jnp.arange(passes))


def _normalisation_problems(experiment: Experiment, channels: ChannelSet) -> list[str]:
    """Why the views' normalisation does not go with a plan."""
    try:
        kind = normalisation_of(experiment.views, channels).kind
    except ValueError as error:
        return [f"views: {error}"]
    if kind != "dataset":
        return []
    return [
        f"views.normalise={experiment.views.normalise} (recipe {experiment.views.recipe}) subtracts constants of each "
        "channel, and a slot has others; with a plan use views.normalise=self."
    ]
