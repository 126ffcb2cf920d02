"""What the simulated domains look like: channels, cells, optics and the localization classes of each preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Optics:
    """One channel's optics: emission wavelength (µm), expected photons of a bright structure, camera background."""

    wavelength: float
    photons: float
    background: float


@dataclass(frozen=True)
class CellLine:
    """Shape parameters of one cell line; lengths in µm, density in nuclei per 1000 µm²."""

    nucleus_length: float
    nucleus_aspect: float
    nucleus_wobble: float
    cell_radius: float
    cell_aspect: float
    density: float
    clustering: float


@dataclass(frozen=True)
class Preset:
    """One imaging domain.

    `classes` maps each localization label of the domain to the organelle builder that draws it. `roles` names what each
    channel shows: "protein", or the stained structure. `protein_grey` is the grey level of the protein's mean over
    cells, `stain_grey` that of a stain's bright structures; haze and bleed-through are shares, background is a
    percentage of the exposure, read noise is in photons. `specimen` says what makes its cells and draws its organelles,
    `crop` is the side of single-cell images in pixels (0: none), `unit` what one image shows unless the configuration
    says otherwise, `contrast_of` whether fields or cells are brought to one contrast, `defocus` scales the blur of the
    level of difficulty.
    """

    name: str
    channels: tuple[str, ...]
    roles: tuple[str, ...]
    optics: tuple[Optics, ...]
    bit_depth: int
    um_per_pixel: float
    numerical_aperture: float
    haze: float
    haze_sigma: float
    bleed_through: float
    read_noise: float
    offset: float
    protein_grey: float
    stain_grey: float
    cell_lines: dict[str, CellLine]
    classes: dict[str, str]
    mitotic_fraction: float = 0.04
    specimen: Literal["culture", "yeast"] = "culture"
    crop: int = 0
    unit: Literal["field", "cell"] = "field"
    contrast_of: Literal["field", "cell"] = "field"
    defocus: float = 1.0


_HPA_CLASSES = {
    "nucleoplasm": "nucleoplasm",
    "nuclear_membrane": "nuclear_membrane",
    "nucleoli": "nucleoli",
    "nucleoli_fibrillar_center": "fibrillar_center",
    "nuclear_speckles": "nuclear_speckles",
    "nuclear_bodies": "nuclear_bodies",
    "endoplasmic_reticulum": "endoplasmic_reticulum",
    "golgi_apparatus": "golgi",
    "intermediate_filaments": "intermediate_filaments",
    "actin_filaments": "actin",
    "focal_adhesion_sites": "focal_adhesions",
    "microtubules": "microtubules",
    "centrosome": "centrosome",
    "plasma_membrane": "plasma_membrane",
    "cell_junctions": "cell_junctions",
    "mitochondria": "mitochondria",
    "vesicles": "vesicles",
    "cytosol": "cytosol",
}

_OPENCELL_CLASSES = {
    "nucleoplasm": "nucleoplasm",
    "nuclear_membrane": "nuclear_membrane",
    "nucleolus_gc": "nucleoli",
    "nucleolus_fc_dfc": "fibrillar_center",
    "nuclear_punctae": "nuclear_bodies",
    "chromatin": "chromatin",
    "er": "endoplasmic_reticulum",
    "golgi": "golgi",
    "cytoskeleton": "actin",
    "focal_adhesions": "focal_adhesions",
    "centrosome": "centrosome",
    "membrane": "plasma_membrane",
    "cell_contact": "cell_junctions",
    "mitochondria": "mitochondria",
    "vesicles": "vesicles",
    "big_aggregates": "aggregates",
    "cytoplasmic": "cytosol",
}

PRESETS: dict[str, Preset] = {
    "hpa_fov": Preset(
        name="hpa_fov",
        channels=("microtubules", "protein", "nucleus", "er"),
        roles=("microtubules", "protein", "nucleus", "endoplasmic_reticulum"),
        optics=(Optics(0.60, 180, 2.0), Optics(0.52, 180, 2.0), Optics(0.46, 180, 2.0), Optics(0.57, 150, 2.0)),
        bit_depth=8,
        um_per_pixel=0.25,
        numerical_aperture=1.4,
        haze=0.12,
        haze_sigma=1.5,
        bleed_through=0.02,
        read_noise=1.0,
        offset=2.0,
        protein_grey=34.0,
        stain_grey=200.0,
        cell_lines={
            "U2OS": CellLine(15.0, 1.45, 0.06, 17.0, 1.7, 1.9, 0.0),
            "A431": CellLine(13.0, 1.25, 0.06, 12.0, 1.2, 3.2, 0.7),
            "MCF7": CellLine(12.5, 1.25, 0.05, 11.0, 1.2, 3.4, 0.6),
            "HeLa": CellLine(13.5, 1.45, 0.10, 14.0, 1.7, 2.4, 0.2),
            "U251MG": CellLine(14.5, 1.55, 0.07, 17.0, 2.3, 1.8, 0.0),
            "HEK293": CellLine(11.5, 1.30, 0.07, 9.5, 1.3, 4.4, 0.5),
        },
        classes=_HPA_CLASSES,
    ),
    "opencell": Preset(
        name="opencell",
        channels=("nucleus", "protein"),
        roles=("nucleus", "protein"),
        optics=(Optics(0.46, 60, 3.0), Optics(0.52, 60, 3.0)),
        bit_depth=16,
        um_per_pixel=0.2,
        numerical_aperture=1.35,
        haze=0.35,
        haze_sigma=2.0,
        bleed_through=0.0,
        read_noise=1.4,
        offset=100.0,
        protein_grey=250.0,
        stain_grey=500.0,
        cell_lines={"HEK293T": CellLine(11.5, 1.35, 0.07, 9.5, 1.3, 5.6, 0.3)},
        classes=_OPENCELL_CLASSES,
        crop=100,
    ),
}
