"""The resolved configuration of one pretraining run: everything that decides its numbers, in one frozen value."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeVar

from protloc_jax.channel_plans import KINDS
from protloc_jax.config import check_literals, nearest, opt
from protloc_jax.data.config import DataConfig
from protloc_jax.model.config import VitConfig
from protloc_jax.telemetry.profiling import span
from protloc_jax.train.addresses import path_problems, store_problems
from protloc_jax.train.byol_config import ByolConfig
from protloc_jax.train.dino_adversary_config import DinoAdversaryConfig
from protloc_jax.train.dino_config import DinoConfig
from protloc_jax.train.graph_config import GraphConfig
from protloc_jax.train.limits import below, outside, refuse
from protloc_jax.train.mae_config import MaeConfig
from protloc_jax.train.moco_config import MocoConfig
from protloc_jax.train.simclr_config import SimclrConfig
from protloc_jax.train.supervised_config import SupervisedConfig
from protloc_jax.train.wsl_config import WslConfig
from protloc_jax.views.config import ViewsConfig


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedules; the defaults are those of facebookresearch/dino, `main_dino.py`."""

    batch: int = opt(64, "images a step over all devices and micro-batches (the published runs used 512 to 1024)")
    epochs: int = opt(100, "passes over the training split")
    steps: int = opt(0, "optimiser steps instead of epochs; 0 = from epochs")
    accumulation: int = opt(1, "micro-batches a step; the update equals that of the whole batch")
    lr: float = opt(5e-4, "peak learning rate for a batch of lr_batch; scaled linearly with the batch")
    lr_batch: int = opt(256, "batch that lr is meant for; 0 = lr is used as written")
    min_lr: float = opt(1e-6, "learning rate at the end (not scaled)")
    warmup_epochs: float = opt(10.0, "epochs of linear warm-up from warmup_start times the peak")
    warmup_start: float = opt(0.0, "share of the peak learning rate at which the warm-up begins")
    weight_decay: float = opt(0.04, "decoupled weight decay at the start")
    weight_decay_end: float = opt(0.4, "decoupled weight decay at the end, reached by a cosine")
    decay: Literal["matrices", "all"] = opt(
        "matrices", "what decays: all but biases, norms and LayerScale gains; or every parameter"
    )
    clip: float = opt(3.0, "largest gradient norm of each parameter tensor; 0 = no clipping")
    freeze_last_layer_epochs: float = opt(1.0, "epochs during which the head's last layer is left alone")
    layer_decay: float = opt(1.0, "factor on the learning rate per block below the last; 1 = none")
    b1: float = opt(0.9, "decay of Adam's first moment")
    b2: float = opt(0.999, "decay of Adam's second moment")
    eps: float = opt(1e-8, "Adam's epsilon")
    on_spike: Literal["flag", "skip", "rollback"] = opt(
        "flag",
        "a loss above its usual range: flag = told and counted; skip = the step changes nothing; rollback = back to "
        "the newest checkpoint, past the images that brought it",
    )
    spike_factor: float = opt(6.0, "standard deviations above the mean of the window at which a loss is a spike")
    spike_window: int = opt(128, "steps that make the usual range of the loss")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = below(self, 1, ("batch", "epochs", "accumulation"))
        keys = ("steps", "lr_batch", "lr", "min_lr", "warmup_epochs", "weight_decay", "weight_decay_end", "clip")
        problems += below(self, 0, (*keys, "freeze_last_layer_epochs"))
        problems += below(self, 2, ("spike_window",))
        if not self.spike_factor > 0:
            problems.append(f"spike_factor={self.spike_factor}: must be above 0.")
        problems += outside(self, 0.0, 1.0, ("layer_decay", "b1", "b2", "warmup_start"))
        problems += [f"{k}=1: must be below 1." for k in ("b1", "b2") if getattr(self, k) == 1]
        if not self.eps > 0:
            problems.append(f"eps={self.eps}: must be above 0.")
        if self.batch >= 1 and self.accumulation >= 1 and self.batch % self.accumulation:
            problems.append(f"batch={self.batch} is not divisible by accumulation={self.accumulation}.")
        refuse(problems)

    @property
    def peak_lr(self) -> float:
        """The learning rate at the end of the warm-up, scaled to the batch (Goyal et al. 2017)."""
        return self.lr * self.batch / self.lr_batch if self.lr_batch else self.lr


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """What a run begins with: fresh parameters, or the weights of a run of ours or of a converted checkpoint.

    A new head on a pretrained backbone starts from noise, and its first gradients can destroy the features: freeze the
    backbone until the head has settled (an epoch, as DINO leaves its last layer alone in the first), and let the
    learning rate still be rising then (optim.warmup_epochs longer than freeze_backbone_epochs).
    """

    weights: str = opt("", "run directory or checkpoint to begin with, converted ones too; empty = from scratch")
    which: Literal["teacher", "params"] = opt(
        "teacher", "whose backbone both networks begin with: the teacher's, or params = the student's"
    )
    head: Literal["new", "original"] = opt("new", "a fresh head, or the head and centre that the weights come with")
    freeze_backbone_epochs: float = opt(
        0.0,
        "first epochs in which only the head is trained; give a new head on a pretrained backbone one, or its first "
        "gradients can destroy the features",
    )
    plan: str = opt(
        "",
        "how the records' channels reach the slots of the weights (natural, per-channel, replicate, ...; the plans of "
        "protloc embed); supervised in as many passes as the plan has, dino in one (slots:r=dna,g=dna,b=dna repeats "
        "one channel); empty = each channel has a slot of its own",
    )

    def __post_init__(self) -> None:
        check_literals(self)
        problems = below(self, 0, ("freeze_backbone_epochs",))
        kind = self.plan.partition(":")[0].strip()
        if self.plan and kind not in KINDS:
            problems.append(f"plan={self.plan}: not one of {', '.join(KINDS)}.{nearest(kind, KINDS)}")
        if not self.weights:
            changed = [f for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]
            problems += [f"{f.name}={getattr(self, f.name)}: means nothing without weights." for f in changed]
        refuse(problems)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Where a run writes, on what it runs, how often it looks at itself. None of these keys changes an update."""

    out: str = opt("runs/default", "run directory")
    seed: int = opt(0, "seed of initial parameters, of the order of examples and of every view")
    mesh_data: int = opt(-1, "devices on the data axis; -1 = all that the fsdp axis leaves")
    mesh_fsdp: int = opt(1, "devices on the fsdp axis (parameters and optimiser state are sharded over it)")
    log_every: int = opt(10, "steps between lines of metrics")
    checkpoint_every: int = opt(1000, "steps between checkpoints; 0 = only at the end")
    checkpoint_minutes: float = opt(30.0, "the newest checkpoint never gets older than this; 0 = only by steps")
    checkpoints: str = opt(
        "", "gs:// or s3:// address to which checkpoints are copied and from which a run on a new machine goes on"
    )
    keep_last: int = opt(2, "newest checkpoints kept")
    keep_best: int = opt(1, "best checkpoints kept, by the periodic evaluation")
    eval_every: int = opt(0, "steps between periodic evaluations; 0 = never")
    stop_after_bad: int = opt(10, "non-finite steps in a row after which the run stops")
    grace_seconds: float = opt(25.0, "time between a signal and the end that the scheduler leaves for saving")
    watchdog_seconds: float = opt(600.0, "a step that takes longer, and ten times the usual, is stuck; 0 = never")
    watchdog_pause_seconds: float = opt(7200.0, "the same for compilation, evaluations and saves")
    profile: str = opt(
        "", "START:STOP, steps START to STOP-1 (from 1) whose profile is written to RUN/profile; empty = none"
    )
    tensorboard: bool = opt(False, "write TensorBoard files too")
    compilation_cache: str = opt("", "directory of compiled programs; empty = the user's cache directory, none = off")

    def __post_init__(self) -> None:
        problems = below(self, 1, ("mesh_fsdp", "log_every", "keep_last", "stop_after_bad"))
        problems += below(self, 0, ("seed", "checkpoint_every", "checkpoint_minutes", "keep_best", "eval_every"))
        problems += below(self, 0, ("grace_seconds", "watchdog_seconds", "watchdog_pause_seconds"))
        if self.mesh_data != -1 and self.mesh_data < 1:
            problems.append(f"mesh_data={self.mesh_data}: must be -1 (all devices) or at least 1.")
        if not self.out:
            problems.append("out='': name a run directory.")
        try:
            span(self.profile)
        except ValueError as error:
            problems.append(str(error))
        problems += path_problems("out", self.out)
        problems += store_problems("checkpoints", self.checkpoints) if self.checkpoints else []
        refuse(problems)


# One kind a training method, chosen by `method.name`; the first is what a config without a name means.
MethodConfig = (
    DinoConfig | SupervisedConfig | DinoAdversaryConfig | WslConfig | SimclrConfig | ByolConfig | MocoConfig | MaeConfig
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One training run: data, views, model, what it begins with, method, graph term, optimiser, run."""

    name: str = opt("experiment", "name shown in logs and reports")
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    views: ViewsConfig = dataclasses.field(default_factory=ViewsConfig)
    model: VitConfig = dataclasses.field(default_factory=VitConfig)
    init: InitConfig = dataclasses.field(default_factory=InitConfig)
    method: MethodConfig = dataclasses.field(default_factory=DinoConfig)
    graph: GraphConfig = dataclasses.field(default_factory=GraphConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        refuse(_unpaired(self) + _without_cells(self) + _of_several_lines(self))


def _unpaired(experiment: Experiment) -> list[str]:
    """Why views and weak labels do not go together."""
    label, source = experiment.data.weak_label, experiment.views.local_from
    if not label:
        return [f"views.local_from={source}: needs data.weak_label."] if source in ("partner", "both") else []
    if isinstance(experiment.method, SupervisedConfig):
        return [f"data.weak_label={label}: method.name=supervised learns the labels of an image from that image alone."]
    if source == "image":
        return [f"data.weak_label={label}: partners would be read and not looked at with views.local_from=image."]
    if not experiment.views.n_local and source != "both":
        return [
            f"data.weak_label={label}: with views.n_local=0 no crop would show the partner; views.local_from=both "
            "takes half of the global ones from it."
        ]
    return []


def _without_cells(experiment: Experiment) -> list[str]:
    """Why the surroundings of cells cannot be changed in the views."""
    data, background = experiment.data, experiment.views.background
    problems = []
    if background.needs_mask:
        if not data.mask:
            problems.append("views.background: needs to know where the cell is; set data.mask=true.")
        if data.weak_label:
            problems.append(f"data.weak_label={data.weak_label}: partners have no masks, which views.background needs.")
    if background.swap > 0 and data.donor == "none":
        problems.append(f"views.background.swap={background.swap:g}: needs another background; set data.donor=any.")
    if data.donor != "none" and not background.swap:
        problems.append(f"data.donor={data.donor}: donors would be read and not looked at; set views.background.swap.")
    return problems


def _of_several_lines(experiment: Experiment) -> list[str]:
    """Why cell tokens cannot be trained in these pairs."""
    label, tokens = experiment.data.weak_label, experiment.model.cell_tokens
    if not label or not tokens:
        return []
    return [
        f"model.cell_tokens={tokens}: with data.weak_label={label} local crops come from a partner, which may be of "
        "another cell line than the image whose vector they would be given; use one of the two."
    ]


T = TypeVar("T")


def of_kind(experiment: Experiment, kind: type[T]) -> T:
    """The experiment's method section, as the kind that the caller is for. Raises TypeError for another."""
    if not isinstance(experiment.method, kind):
        raise TypeError(f"method '{experiment.method.name}' is not a {kind.__name__}.")
    return experiment.method
