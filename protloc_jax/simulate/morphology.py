"""The parameters in which a perturbation moves cells, and the directions of the twelve BBBC021 mechanisms.

A state is a vector over `PARAMETERS`: 0 is the untreated cell, 1 a change that an eye sees at once. What a unit means
in µm, counts or brightness is said where it is drawn (`screen_cells`, `stains`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

PARAMETERS: dict[str, str] = {
    "nuclear_area": "size of nuclei",
    "nuclear_elongation": "longer, thinner nuclei",
    "nuclear_lobes": "irregular, lobed outline",
    "micronuclei": "nuclei in several pieces",
    "chromatin_clumps": "coarse DNA texture",
    "dna_content": "DNA in a nucleus",
    "cell_area": "spread area of cells (with nuclear_area: the N/C ratio)",
    "cell_elongation": "spindle-shaped cells",
    "roundness": "rounded-up, smooth-edged cells",
    "cell_count": "cells in a field",
    "clustering": "cells gathered in colonies",
    "mitotic_arrest": "share of cells held in mitosis",
    "monopolar": "arrested cells with one pole and a ring of chromosomes",
    "apoptosis": "share of dying cells",
    "syncytia": "cells fused to giants with many nuclei",
    "nucleolar_number": "nucleoli in a nucleus",
    "nucleolar_size": "size of nucleoli",
    "microtubule_mass": "polymerised tubulin",
    "microtubule_length": "length of microtubules",
    "microtubule_curvature": "bent microtubules",
    "microtubule_bundling": "microtubules in thick bundles",
    "stress_fibres": "actin stress fibres",
    "cortical_actin": "actin at borders and junctions",
    "actin_aggregates": "actin in clumps",
    "er_mass": "amount of ER",
    "er_vesiculation": "ER broken into vesicles",
    "rna_mass": "RNA of cytoplasm and nucleoli",
    "mitochondrial_mass": "amount of mitochondria",
    "mitochondrial_fission": "mitochondria short and round",
    "mitochondrial_clustering": "mitochondria around the nucleus",
    "golgi_dispersal": "Golgi scattered through the cell",
    "golgi_mass": "amount of Golgi and membrane stain",
    "vesicles": "endosomes and other bright dots",
}
INDEX = {name: index for index, name in enumerate(PARAMETERS)}
COUNT = len(PARAMETERS)

MOA_DIRECTIONS: dict[str, dict[str, float]] = {
    "Actin disruptors": {
        "stress_fibres": -2.0, "cortical_actin": -0.9, "actin_aggregates": 1.8, "cell_area": -0.8, "roundness": 0.6,
        "cell_count": -0.3, "micronuclei": 0.3,
    },
    "Aurora kinase inhibitors": {
        "nuclear_area": 1.0, "nuclear_lobes": 1.6, "dna_content": 0.5, "cell_area": 1.3, "cell_count": -1.5,
        "micronuclei": 0.3, "mitotic_arrest": -0.8,
    },
    "Cholesterol-lowering": {
        "cell_elongation": 1.6, "cell_area": -0.9, "stress_fibres": -0.9, "vesicles": 0.7, "cell_count": -0.4,
        "nuclear_elongation": 0.6, "microtubule_bundling": 0.5, "clustering": -0.6,
    },
    "DNA damage": {
        "nuclear_area": 1.1, "cell_area": 1.4, "cell_count": -1.4, "mitotic_arrest": -1.2, "stress_fibres": 0.7,
        "nucleolar_size": 0.6, "dna_content": 0.4,
    },
    "DNA replication": {
        "nuclear_area": 0.7, "cell_area": 0.5, "cell_count": -0.6, "mitotic_arrest": -1.2, "chromatin_clumps": -0.8,
        "nuclear_elongation": 0.5, "nucleolar_number": -0.5, "stress_fibres": -0.3,
    },
    "Eg5 inhibitors": {
        "mitotic_arrest": 3.0, "monopolar": 2.4, "cell_count": -0.5, "apoptosis": 0.6, "micronuclei": 0.3,
    },
    "Epithelial": {
        "clustering": 1.4, "cortical_actin": 1.5, "stress_fibres": -0.8, "cell_area": 0.3, "roundness": 0.3,
        "nuclear_area": -0.2, "microtubule_length": -0.3,
    },
    "Kinase inhibitors": {
        "cell_area": 1.4, "cell_elongation": 0.8, "stress_fibres": 0.8, "cell_count": -1.2, "clustering": -0.8,
        "microtubule_length": 0.8, "nuclear_area": 0.3,
    },
    "Microtubule destabilizers": {
        "microtubule_mass": -1.5, "microtubule_length": -1.8, "mitotic_arrest": 2.0, "micronuclei": 0.9,
        "nuclear_lobes": 0.7, "cell_area": -0.4, "roundness": 0.5, "golgi_dispersal": 1.2, "apoptosis": 0.6,
        "cell_count": -0.3,
    },
    "Microtubule stabilizers": {
        "microtubule_bundling": 1.8, "microtubule_curvature": 0.9, "microtubule_mass": 0.6, "mitotic_arrest": 1.4,
        "micronuclei": 1.7, "nuclear_lobes": 0.8, "golgi_dispersal": 0.5, "cell_count": -0.3,
    },
    "Protein degradation": {
        "cell_area": -0.7, "roundness": 0.9, "apoptosis": 1.3, "cell_count": -0.8, "chromatin_clumps": 0.8,
        "microtubule_curvature": 0.9, "actin_aggregates": 0.5, "vesicles": 0.6, "mitotic_arrest": 0.5,
    },
    "Protein synthesis": {
        "nucleolar_size": -1.3, "nucleolar_number": -0.8, "rna_mass": -1.3, "er_mass": -0.8, "nuclear_area": -0.6,
        "cell_area": -0.4, "cell_count": -0.5, "microtubule_mass": -0.5, "stress_fibres": -0.4,
        "chromatin_clumps": -0.5, "mitotic_arrest": -0.8,
    },
}  # fmt: skip

INFECTION: dict[str, float] = {
    "syncytia": 0.9, "vesicles": 0.9, "golgi_dispersal": 0.9, "er_vesiculation": 0.8, "rna_mass": 0.4,
    "cell_count": -0.4, "apoptosis": 0.7, "stress_fibres": -0.6, "nucleolar_size": -0.4,
}  # fmt: skip
TOXICITY: dict[str, float] = {
    "apoptosis": 1.6, "cell_count": -1.2, "roundness": 0.9, "cell_area": -0.7, "chromatin_clumps": 0.6,
}  # fmt: skip

# How untreated lines differ in what is inside their cells; size, shape and density are in their presets.
LINE_STATES: dict[str, dict[str, float]] = {
    "HUVEC": {
        "vesicles": 1.0, "stress_fibres": 0.4, "golgi_mass": 0.6, "mitochondrial_mass": -0.5, "cell_elongation": 0.2,
    },
    "RPE": {
        "nucleolar_number": 0.6, "cortical_actin": 0.5, "er_mass": 0.4, "mitochondrial_fission": 0.4, "rna_mass": -0.3,
    },
    "HEPG2": {
        "stress_fibres": -1.2, "cortical_actin": 1.0, "mitochondrial_mass": 0.7, "er_mass": 0.6, "nucleolar_size": 0.4,
        "mitochondrial_clustering": -0.5,
    },
    "U2OS": {
        "stress_fibres": 0.7, "nucleolar_number": 0.9, "nucleolar_size": -0.3, "mitochondrial_clustering": 0.8,
        "golgi_dispersal": 0.5, "chromatin_clumps": 0.4,
    },
    "HRCE": {"stress_fibres": 0.5, "nucleolar_size": 0.4, "er_mass": -0.3, "vesicles": 0.4},
    "VERO": {"cortical_actin": 0.9, "stress_fibres": -0.6, "er_mass": 0.6, "golgi_mass": -0.4, "nucleolar_number": 0.6},
    "MCF7": {},
}  # fmt: skip


def vector(values: Mapping[str, float]) -> np.ndarray:
    """A state [P] from the parameters that differ from 0."""
    state = np.zeros(COUNT)
    for name, value in values.items():
        state[INDEX[name]] = value
    return state


def named(state: np.ndarray) -> dict[str, float]:
    """The parameters of a state [P] by name."""
    return {name: float(state[index]) for name, index in INDEX.items()}
