"""The two domains whose images are single cells: cropped HPA cells, and budding yeast."""

from __future__ import annotations

from dataclasses import replace

from protloc_jax.simulate.presets import PRESETS, CellLine, Optics, Preset

# Names as in the annotations of the yeast GFP collection (Huh et al. 2003), with bud tip (Chong et al. 2015) and
# eisosome (the wt2017 set) from later vocabularies.
_YEAST_CLASSES = {
    "actin": "actin_patches",
    "bud_neck": "bud_neck",
    "bud_tip": "bud_tip",
    "cell_periphery": "cell_periphery",
    "cytoplasm": "cytoplasm",
    "eisosome": "eisosomes",
    "endosome": "endosomes",
    "er": "yeast_er",
    "golgi": "yeast_golgi",
    "lipid_particle": "lipid_particles",
    "microtubule": "spindle",
    "mitochondrion": "yeast_mitochondria",
    "nuclear_periphery": "nuclear_periphery",
    "nucleolus": "nucleolar_crescent",
    "nucleus": "yeast_nucleus",
    "peroxisome": "peroxisomes",
    "punctate_composite": "puncta",
    "spindle_pole": "spindle_poles",
    "vacuolar_membrane": "vacuolar_membrane",
    "vacuole": "vacuole_lumen",
}

SINGLE: dict[str, Preset] = {
    # The released HPA cells are 640 x 640 pixels of 0.08 µm; these are the same 51 µm at a fifth of the resolution.
    "hpa_sc": replace(PRESETS["hpa_fov"], name="hpa_sc", um_per_pixel=0.4, crop=128, unit="cell", contrast_of="cell"),
    "yeast": Preset(
        name="yeast",
        channels=("protein", "cytosol"),
        roles=("protein", "yeast_cytosol"),
        optics=(Optics(0.51, 60, 4.0), Optics(0.61, 60, 4.0)),
        bit_depth=16,
        um_per_pixel=0.13,
        numerical_aperture=1.2,
        haze=0.40,
        haze_sigma=1.0,
        bleed_through=0.0,
        read_noise=1.6,
        offset=200.0,
        protein_grey=500.0,
        stain_grey=1500.0,
        cell_lines={"BY4741": CellLine(1.8, 1.12, 0.04, 2.45, 1.14, 24.0, 0.45)},
        classes=_YEAST_CLASSES,
        mitotic_fraction=0.0,
        specimen="yeast",
        crop=64,
        unit="cell",
        contrast_of="cell",
        defocus=0.5,
    ),
}
