"""Accelerators by name: what each can do at best, and who says so. The one table of peaks in the package.

Every figure carries its source; one that begins with "assumed" is a judgement of ours and no vendor's number. Rates are
per jax device and one way: a vendor's "bidirectional" or "total" bandwidth is halved.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple


class Figure(NamedTuple):
    """A number and where it is from."""

    value: float
    source: str

    @property
    def assumed(self) -> bool:
        """Whether the number is ours and no vendor's."""
        return self.source.startswith("assumed")


class Fabric(NamedTuple):
    """How devices reach one another: a fast inner network, and a slower one between its islands.

    torus2d, torus3d: an island is a slice; `link` is one link's rate, of which a device has two a dimension.
    switch: an island is a node in which every device sends at `link` to whichever others.
    """

    kind: Literal["torus2d", "torus3d", "switch"]
    link: Figure  # bytes/s, one way
    island: int  # devices of the largest island
    network: Figure  # bytes/s a device and way between islands


class Chip(NamedTuple):
    """One kind of accelerator, as jax sees it: one device."""

    name: str
    kinds: str  # pattern found in jax's `device_kind`
    family: Literal["tpu", "gpu"]
    bf16: Figure  # FLOP/s, dense
    f32: Figure  # FLOP/s of float32 products at jax's default precision
    memory: Figure | None = None  # GiB
    bandwidth: Figure | None = None  # bytes/s of that memory
    fabric: Fabric | None = None
    tile: int = 1  # products are padded to multiples of it; 1 = not modelled
    cores_in_name: int = 1  # what a slice's name counts per chip: v4-8 are 8 TensorCores, 4 chips


def _tpu(
    name: str, kinds: str, peak: float, memory: float, bandwidth: float, fabric: Fabric, *, tile: int = 128, cores=1
) -> Chip:
    page = f"cloud.google.com/tpu/docs/{name}"
    default = f"{page}; jax multiplies float32 in one bfloat16 pass on TPUs unless told otherwise"
    sides = Figure(peak, page), Figure(peak, default), Figure(memory, page), Figure(bandwidth, page)
    return Chip(name, kinds, "tpu", *sides, fabric, tile, cores)


def _gpu(name: str, kinds: str, sheet: str, bf16: float, tf32: float, memory: float, bandwidth: float, fabric) -> Chip:
    source = f"NVIDIA {sheet} data sheet, dense"
    default = f"{source}: TF32, in which jax multiplies float32 unless told otherwise"
    figures = Figure(bf16, source), Figure(tf32, default), Figure(memory, source), Figure(bandwidth, source)
    return Chip(name, kinds, "gpu", *figures, fabric)


def _peaks(name: str, kinds: str, family: Literal["tpu", "gpu"], bf16: float, f32: float, source: str) -> Chip:
    return Chip(name, kinds, family, Figure(bf16, source), Figure(f32, source))


def _nvlink(total: float, nic: float, sheet: str) -> Fabric:
    return Fabric(
        "switch",
        Figure(total / 2, f"NVIDIA {sheet} data sheet: {total / 1e9:.0f} GB/s in all"),
        8,
        Figure(nic, f"NVIDIA DGX {sheet.split()[0]} user guide: one {nic * 8 / 1e9:.0f} Gb/s adapter a GPU"),
    )


_ICI = "bidirectional bandwidth a chip over twice its ports"
# The first whose pattern is found in a device's kind decides, so the special come before the general.
_LISTED = (
    _tpu(
        "v4",
        r"TPU v4$",
        275e12,
        32,
        1200e9,
        Fabric(
            "torus3d",
            Figure(50e9, "Jouppi et al. 2023 (arXiv:2304.01433), table 4: six links of 50 GB/s"),
            4096,
            Figure(6.25e9, "assumed: as TPU v5p"),
        ),
        cores=2,
    ),
    _tpu(
        "v5e",
        r"TPU v5 lite|TPU v5e",
        197e12,
        16,
        819e9,
        Fabric(
            "torus2d",
            Figure(50e9, f"cloud.google.com/tpu/docs/v5e: 400 GB/s, {_ICI}"),
            256,
            Figure(3.125e9, "cloud.google.com/tpu/docs/v5e: two 100 Gb/s adapters a host of 8 chips"),
        ),
    ),
    _tpu(
        "v5p",
        r"TPU v5p?$",
        459e12,
        95,
        2765e9,
        Fabric(
            "torus3d",
            Figure(100e9, f"cloud.google.com/tpu/docs/v5p: 1200 GB/s, {_ICI}"),
            6144,
            Figure(6.25e9, "cloud.google.com/tpu/docs/v5p: 50 Gb/s a chip"),
        ),
        cores=2,
    ),
    _tpu(
        "v6e",
        r"TPU v6",
        918e12,
        32,
        1638e9,
        Fabric(
            "torus2d",
            Figure(100e9, f"cloud.google.com/tpu/docs/v6e: 800 GB/s, {_ICI}"),
            256,
            Figure(12.5e9, "cloud.google.com/tpu/docs/v6e: four 200 Gb/s adapters a host of 8 chips"),
        ),
        tile=256,
    ),
    _gpu("h200", r"H200|GH200", "H200 SXM", 989.4e12, 494.7e12, 141, 4.8e12, _nvlink(900e9, 50e9, "H200 SXM")),
    _peaks("h100-pcie", r"H100.*PCIe", "gpu", 756e12, 378e12, "NVIDIA H100 PCIe data sheet, dense"),
    _peaks("h100-nvl", r"H100.*NVL", "gpu", 835e12, 417.5e12, "NVIDIA H100 NVL data sheet, dense"),
    _gpu("h100", r"H100", "H100 SXM", 989.4e12, 494.7e12, 80, 3.35e12, _nvlink(900e9, 50e9, "H100 SXM")),
    _gpu("a100-80", r"A100.*80GB", "A100 SXM 80GB", 312e12, 156e12, 80, 2.039e12, _nvlink(600e9, 25e9, "A100 SXM")),
    _gpu("a100-40", r"A100", "A100 SXM 40GB", 312e12, 156e12, 40, 1.555e12, _nvlink(600e9, 25e9, "A100 SXM")),
    _gpu(
        "l4",
        r"L4$",
        "L4",
        121e12,
        60e12,
        24,
        300e9,
        Fabric(
            "switch",
            Figure(32e9, "NVIDIA L4 data sheet: PCIe Gen4 x16, 64 GB/s in all"),
            8,
            Figure(1.5625e9, "cloud.google.com/compute/docs/gpus: 100 Gb/s a g2-standard-96 of 8 GPUs"),
        ),
    ),
    _peaks("b200", r"B200", "gpu", 2250e12, 1125e12, "NVIDIA HGX B200 data sheet, dense"),
    _peaks("v100", r"V100", "gpu", 125e12, 15.7e12, "NVIDIA V100 SXM2 data sheet; fp16, it has no bf16"),
    _peaks("l40s", r"L40S", "gpu", 362e12, 183e12, "NVIDIA L40S data sheet, dense"),
    _peaks("rtx4090", r"RTX 4090", "gpu", 165.2e12, 82.6e12, "NVIDIA Ada architecture paper, dense, f32 accumulation"),
    _peaks("v3", r"TPU v3", "tpu", 61.5e12, 61.5e12, "cloud.google.com/tpu/docs/v3: 123 TFLOP/s a chip of two devices"),
)
CHIPS: dict[str, Chip] = {chip.name: chip for chip in _LISTED}


def chip_of(device_kind: str) -> Chip | None:
    """The chip of jax's name for a device kind, or None for one that is not listed."""
    return next((chip for chip in _LISTED if re.search(chip.kinds, device_kind)), None)


def peak_flops(device_kind: str) -> float | None:
    """Peak bf16 FLOP/s (V100: fp16) of one device of this kind, or None when the kind is not listed.

    A kind that is not listed shows no utilisation rather than a guessed one.
    """
    chip = chip_of(device_kind)
    return None if chip is None else chip.bf16.value
