"""The table of accelerators: jax's names, plausible figures, a source for each."""

from __future__ import annotations

import pytest

from protloc_jax.chips import CHIPS, chip_of, peak_flops


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("TPU v5 lite", 197.0),
        ("TPU v5p", 459.0),
        ("TPU v6 lite", 918.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.0),
        ("GeForce GT 710", None),
    ],
)
def test_peaks(kind, tera):
    assert peak_flops(kind) == (None if tera is None else pytest.approx(tera * 1e12))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA GH200 480GB", "h200"),
        ("NVIDIA L4", "l4"),
    ],
)
def test_devices_are_known_by_the_names_jax_gives_them(kind, name):
    assert chip_of(kind) is CHIPS[name]
    assert chip_of("cpu") is None


@pytest.mark.parametrize("chip", [c for c in CHIPS.values() if c.fabric], ids=lambda c: c.name)
def test_figures_have_sources_and_agree_with_one_another(chip):
    fabric, bandwidth = chip.fabric, chip.bandwidth.value
    for figure in (chip.bf16, chip.f32, chip.memory, chip.bandwidth, fabric.link, fabric.network):
        assert figure.value > 0
        assert len(figure.source) > 10
    # Memory is faster than the inner network, and that than the one between islands.
    assert bandwidth > fabric.link.value > fabric.network.value
    assert chip.f32.value <= chip.bf16.value


def test_links_agree_with_the_bisections_that_the_vendor_states():
    """A pod of 16 x 16 is cut through 2 x 16 links, one of 16 x 16 x 16 through 2 x 256 (v4: 24 TB/s, rounded)."""
    for name, links, stated in (("v5e", 32, 1.6e12), ("v6e", 32, 3.2e12), ("v4", 512, 24e12)):
        assert CHIPS[name].fabric.link.value * links == pytest.approx(stated, rel=0.1)
    assert [n for n, c in CHIPS.items() if c.fabric and c.fabric.network.assumed] == ["v4"]
