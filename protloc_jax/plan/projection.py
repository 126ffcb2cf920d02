"""How long a step takes on a machine one does not have: a roofline of its work, and the exchanges between its chips.

Compute: each part of the step takes the longer of its arithmetic at a share of the chip's peak and its traffic at a
share of the memory's rate; parts follow one another. Exchanges: an all-gather of V bytes over n devices takes
V (n-1)/n over the rate at which a device takes in data, plus the hops; a reduce-scatter the same, an all-reduce twice
that (Patarasuk and Yuan 2009). Over islands of chips only an island's share of each tensor crosses the network.

What the shares are is assumed and said so (`Assumed`); they were not fitted to our measurements. Beside those, one
H100, bf16, finished crops (benchmarks/results/2026-11-26-gpu.json and -gpu_variants.json), milliseconds a step:

| step | forecast | measured | ratio |
| --- | --- | --- | --- |
| S/16, batch 128, scan | 105 | 139 | 0.75 |
| the same, fused attention | 91 | 118 | 0.77 |
| B/16, batch 64, scan | 125 | 154 | 0.81 |

So expect a real step to take a quarter to a third longer. No measurement with several chips stands behind the
exchanges.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from protloc_jax.channels import ChannelSet
from protloc_jax.config import nearest
from protloc_jax.plan.dry_run import Plan
from protloc_jax.plan.topology import Group, Topology, lay
from protloc_jax.plan.volumes import Volume, refuse_unmodelled, step_volumes
from protloc_jax.plan.work import Part, step_work
from protloc_jax.train.dino_config import DinoConfig
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.methods import make_method


@dataclasses.dataclass(frozen=True)
class Assumed:
    """What no data sheet says. The defaults are per family of chips, see `ASSUMED`."""

    products: float  # share of the peak that large matrix products reach
    memory: float  # share of the memory's rate that passes over large arrays reach
    links: float  # share of the rate inside an island that large exchanges reach
    network: float  # the same between islands
    overlap: float  # share of the exchanges that hides behind computation
    hop_us: float  # microseconds a link of the way inside an island
    network_us: float  # microseconds an exchange between islands, whatever its size

    def __post_init__(self) -> None:
        shares = ("products", "memory", "links", "network")
        problems = [f"{k}={getattr(self, k):g}: a share above 0 and up to 1." for k in shares if not self._share(k)]
        if not 0 <= self.overlap <= 1:
            problems.append(f"overlap={self.overlap:g}: a share from 0 to 1.")
        problems += [
            f"{k}={getattr(self, k):g}: not negative." for k in ("hop_us", "network_us") if getattr(self, k) < 0
        ]
        if problems:
            raise ValueError("--assume: " + "\n  ".join(problems))

    def _share(self, key: str) -> bool:
        return 0 < getattr(self, key) <= 1


# products, TPU: MaxText's best published utilisation on v5p, 65 %, whose long products are all but the whole step.
# products, GPU: what large bf16 products sustain on an H100 at its power limit, about 70 % of the sheet's peak.
# memory: STREAM-like kernels reach 80 to 90 %. links, network: nccl-tests of large messages reach 75 to 80 % in a node.
# overlap: the one exchange of gradients follows the backward pass, so nothing is left to hide it behind.
# hop_us: about 1 on ICI (Austin et al. 2025, How to Scale Your Model); NVLink through a switch and NCCL's start, 10.
ASSUMED = {
    "tpu": Assumed(products=0.65, memory=0.8, links=0.9, network=0.7, overlap=0.0, hop_us=1.0, network_us=50.0),
    "gpu": Assumed(products=0.7, memory=0.8, links=0.75, network=0.75, overlap=0.0, hop_us=10.0, network_us=30.0),
}


class Timed(NamedTuple):
    """A part of the step and its seconds; `bound` is what decides them."""

    part: Part
    seconds: float
    bound: str


class Exchange(NamedTuple):
    """An exchange and its seconds, were nothing of it hidden."""

    volume: Volume
    seconds: float


class Projection(NamedTuple):
    """The forecast of a run on a machine."""

    topology: Topology
    mesh: tuple[int, int]
    images_a_chip: int
    assumed: Assumed
    parts: list[Timed]
    exchanges: list[Exchange]
    batch: int
    steps: int
    flops_per_image: int
    memory_a_chip: int

    @property
    def computing(self) -> float:
        """Seconds a step of one chip's own work."""
        return sum(p.seconds for p in self.parts)

    @property
    def exposed(self) -> float:
        """Seconds a step in which chips wait for one another."""
        return (1 - self.assumed.overlap) * sum(e.seconds for e in self.exchanges)

    @property
    def step(self) -> float:
        """Seconds a step."""
        return self.computing + self.exposed

    @property
    def images_per_second(self) -> float:
        """Of all chips."""
        return self.batch / self.step

    @property
    def efficiency(self) -> float:
        """Images a second and chip, over those of one chip alone that works on as many images a step."""
        return self.computing / self.step

    @property
    def mfu(self) -> float:
        """Model FLOPs over those that the chips could do at their bf16 peak."""
        return self.images_per_second * self.flops_per_image / (self.topology.chips * self.topology.chip.bf16.value)

    @property
    def hours(self) -> float:
        """Of the whole run, without start, evaluations and saves."""
        return self.steps * self.step / 3600


def project(
    experiment: Experiment, channels: ChannelSet, topology: Topology, plan: Plan, *, assume: str = ""
) -> Projection:
    """Forecast a run on a machine; `plan` is the dry run's for as many devices.

    assume: changes to what the chip's family is assumed to reach, "overlap=0.5,links=0.8"

    Supported is method dino with centring=centre; ValueError, with the reason, for others.
    """
    method: Any = make_method(experiment, channels)
    refuse_unmodelled(experiment, method)
    config = experiment.method
    assert isinstance(config, DinoConfig)
    chip, (data, fsdp) = topology.chip, plan.mesh
    assumed = assumptions(chip.family, assume)
    images = experiment.optim.batch // topology.chips
    parts = step_work(
        method.vit_config,
        config,
        method.views(experiment.views),
        images=images,
        parameters=plan.memory.held[0].bytes / 4,
        tile=chip.tile,
        accumulation=experiment.optim.accumulation,
    )
    groups = lay(topology, data, fsdp)
    volumes = step_volumes(experiment, channels, data=data, fsdp=fsdp)
    peak = chip.bf16 if experiment.model.dtype == "bfloat16" else chip.f32
    assert chip.bandwidth is not None
    rates = (peak.value * assumed.products, chip.bandwidth.value * assumed.memory)
    return Projection(
        topology=topology,
        mesh=plan.mesh,
        images_a_chip=images,
        assumed=assumed,
        parts=[roofline(part, *rates) for part in parts],
        exchanges=[Exchange(v, exchange_seconds(v, groups[v.axis], assumed)) for v in volumes if not v.own_program],
        batch=experiment.optim.batch,
        steps=plan.steps,
        flops_per_image=plan.flops_per_image,
        memory_a_chip=plan.memory.total,
    )


def roofline(part: Part, flops_rate: float, bytes_rate: float) -> Timed:
    """A part's seconds: the longer of its arithmetic and its traffic."""
    arithmetic, traffic = part.padded / flops_rate, part.bytes / bytes_rate
    return Timed(part, max(arithmetic, traffic), "arithmetic" if arithmetic > traffic else "memory")


def exchange_seconds(volume: Volume, group: Group, assumed: Assumed) -> float:
    """Seconds of an exchange among the devices of a group, none of it hidden."""
    ways = 2 if volume.kind == "all-reduce" else 1
    seconds = 0.0
    if group.inner > 1:
        rate = sum(p.rate for p in group.pieces) * assumed.links
        hops = sum(p.hops for p in group.pieces)
        seconds += volume.bytes * (group.inner - 1) / group.inner / rate + hops * assumed.hop_us * 1e-6
    if group.islands > 1:
        share = volume.bytes / group.inner
        rate = group.network * assumed.network
        seconds += share * (group.islands - 1) / group.islands / rate + assumed.network_us * 1e-6
    return ways * seconds


def assumptions(family: str, given: str = "") -> Assumed:
    """The family's assumptions with the changes of "key=value,key=value".

    ValueError naming every key or value that is wrong.
    """
    base = ASSUMED[family]
    known = [f.name for f in dataclasses.fields(base)]
    changes, problems = {}, []
    for text in filter(None, given.split(",")):
        key, sign, value = text.partition("=")
        if not sign or key not in known:
            problems.append(f"'{text}': write key=value, key one of {', '.join(known)}.{nearest(key, known)}")
            continue
        try:
            changes[key] = float(value)
        except ValueError:
            problems.append(f"{text}: '{value}' is no number.")
    if problems:
        raise ValueError("--assume: " + "\n  ".join(problems))
    return dataclasses.replace(base, **changes)
