"""Raw layouts of the sets of tagged or stained proteins: Human Protein Atlas, OpenCell and yeast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.raw_files import RawFile, TextTable

Row = Mapping[str, Any]

# The 28 classes of the 2018 image classification challenge, in its order.
HPA_CLASSES = (
    "nucleoplasm", "nuclear membrane", "nucleoli", "nucleoli fibrillar center", "nuclear speckles", "nuclear bodies",
    "endoplasmic reticulum", "golgi apparatus", "peroxisomes", "endosomes", "lysosomes", "intermediate filaments",
    "actin filaments", "focal adhesion sites", "microtubules", "microtubule ends", "cytokinetic bridge",
    "mitotic spindle", "microtubule organizing center", "centrosome", "lipid droplets", "plasma membrane",
    "cell junctions", "mitochondria", "aggresome", "cytosol", "cytoplasmic bodies", "rods & rings",
)  # fmt: skip
# The 19 merged classes of single cells, alphabetical as in the tables' columns.
HPA_CELL_CLASSES = (
    "actin filaments", "aggresome", "centrosome", "cytosol", "endoplasmic reticulum", "golgi apparatus",
    "intermediate filaments", "microtubules", "mitochondria", "mitotic spindle", "negative", "nuclear bodies",
    "nuclear membrane", "nuclear speckles", "nucleoli", "nucleoli fibrillar center", "nucleoplasm", "plasma membrane",
    "vesicles",
)  # fmt: skip
HPA_COLOURS = {"red": "microtubules", "green": "protein", "blue": "nucleus", "yellow": "er"}
# Where a simulated class has another name in the challenge: the simulator's vesicles are one of its four kinds.
_HPA_NAMES = {"vesicles": "endosomes"}
_HPA_CELL_NAMES = {"focal adhesion sites": "actin filaments", "cell junctions": "plasma membrane"}
# Grade of an OpenCell annotation from the share of a protein that lies there: 3 prominent, 2 less so, 1 weak.
GRADES = ((0.4, 3), (0.2, 2), (0.0, 1))
# Categories of the yeast GFP table (Huh et al. 2003), and the simulated classes whose names differ.
HUH_CATEGORIES = (
    "ambiguous", "mitochondrion", "vacuole", "spindle pole", "cell periphery", "punctate composite",
    "vacuolar membrane", "ER", "nuclear periphery", "endosome", "bud neck", "microtubule", "Golgi", "late Golgi",
    "peroxisome", "actin", "nucleolus", "cytoplasm", "ER to Golgi", "early Golgi", "lipid particle", "nucleus", "bud",
)  # fmt: skip
_HUH_NAMES = {"er": "ER", "golgi": "Golgi", "bud tip": "bud", "eisosome": "punctate composite"}


def _number(protein: str) -> int:
    """The number in a simulated protein's name."""
    return int(protein.removeprefix("P"))


def _classes(row: Row) -> list[str]:
    return [name.replace("_", " ") for name in str(row["classes"]).split(";")]


def hpa_id(row: Row) -> str:
    """`<antibody>_<plate>_<well>_<site>`, as the images of the atlas are named."""
    plate = "".join(letter for letter in str(row["plate"]) if letter.isdigit())
    well = f"{row['well'][0]}{int(row['well'][1:])}"
    return f"{90000 + _number(row['protein'])}_{plate}_{well}_{row['site']}"


def hpa_files(config: SimConfig, row: Row) -> tuple[RawFile, ...]:
    """`train/<id>_red.png` and so on: one 8-bit grey PNG a colour."""
    at = config.domain.channels.index
    return tuple(
        RawFile(f"train/{hpa_id(row)}_{colour}.png", "png", (at(channel),)) for colour, channel in HPA_COLOURS.items()
    )


def _hpa_labels(row: Row) -> list[str]:
    return [_HPA_NAMES.get(name, name) for name in _classes(row)]


def hpa_tables(config: SimConfig, table: pd.DataFrame) -> dict[str, TextTable]:
    """`train.csv` of the challenge (Id, Target: class numbers), and DINO4Cells' `whole_images.csv`."""
    rows = table.to_dict("records")
    labels = [_hpa_labels(row) for row in rows]
    ids = [hpa_id(row) for row in rows]
    numbers = [" ".join(str(HPA_CLASSES.index(name)) for name in own) for own in labels]
    columns = {name: [name in own for own in labels] for name in sorted(HPA_CLASSES)}
    whole = {"file": [f"train/{name}" for name in ids], "ID": ids, "cell_type": list(table["cell_line"]), **columns}
    return {
        "train.csv": TextTable(pd.DataFrame({"Id": ids, "Target": numbers})),
        "whole_images.csv": TextTable(pd.DataFrame(whole)),
    }


def hpa_cell_files(config: SimConfig, row: Row) -> tuple[RawFile, ...]:
    """`<id>_<cell>.png`: red, green, blue and, in the place of alpha, yellow."""
    at = config.domain.channels.index
    order = tuple(at(channel) for channel in HPA_COLOURS.values())
    return (RawFile(f"single_cells/{hpa_id(row)}_{row['cell']}.png", "png", order),)


def hpa_cell_tables(config: SimConfig, table: pd.DataFrame) -> dict[str, TextTable]:
    """DINO4Cells' table of single cells: file, ID, cell type, 19 columns of proteins and one a cell line, booleans."""
    rows = table.to_dict("records")
    ids = [hpa_id(row) for row in rows]
    labels = [{_HPA_CELL_NAMES.get(name, name) for name in _classes(row)} for row in rows]
    lines = sorted(config.domain.cell_lines)
    frame = {
        "file": [f"{name}_{row['cell']}" for name, row in zip(ids, rows, strict=True)],
        "ID": ids,
        "cell_type": list(table["cell_line"]),
        **{name: [name in own for own in labels] for name in HPA_CELL_CLASSES},
        **{line: [row["cell_line"] == line for row in rows] for line in lines},
    }
    return {"fixed_size_masked_single_cells_for_sc.csv": TextTable(pd.DataFrame(frame), index=True)}


def _opencell_gene(protein: str) -> tuple[str, str, int]:
    """Symbol, ENSG number and cell line number of a simulated target; none of them exists."""
    number = _number(protein)
    return f"SIM{number}", f"ENSG{90000000000 + number}", number + 1


def opencell_files(config: SimConfig, row: Row) -> tuple[RawFile, ...]:
    """`microscopy/raw/<gene>_<ENSG>/OC-FOV_<gene>_<ENSG>_CID<6>_FID<8>_proj.tif`: 16 bit, nucleus then protein."""
    gene, ensg, line = _opencell_gene(row["protein"])
    at = config.domain.channels.index
    folder = f"microscopy/raw/{gene}_{ensg}"
    name = f"OC-FOV_{gene}_{ensg}_CID{line:06d}_FID{_opencell_field(row):08d}_proj.tif"
    return (RawFile(f"{folder}/{name}", "tiff", (at("nucleus"), at("protein"))),)


def _opencell_field(row: Row) -> int:
    """A number of its own for every field: target, plate replicate and site."""
    replicate = int(str(row["plate"]).rpartition("r")[2])
    return 1 + _number(row["protein"]) * 10000 + replicate * 100 + int(row["site"])


def _grade(weight: float) -> int:
    return next(grade for least, grade in GRADES if weight >= least)


def opencell_tables(config: SimConfig, table: pd.DataFrame) -> dict[str, TextTable]:
    """Annotations in the wide and the flat form, and the list of targets.

    Grades come from the simulated shares by `GRADES`; the strongest localization of a target always has grade 3, for
    nearly all real targets have one.
    """
    flat, wide, targets = [], [], []
    for row in table.drop_duplicates("protein").to_dict("records"):
        gene, ensg, line = _opencell_gene(row["protein"])
        weights = json.loads(row["weights"])
        strongest = max(weights, key=weights.__getitem__)
        grades = {name: 3 if name == strongest else _grade(weight) for name, weight in weights.items()}
        flat += [(ensg, gene, name, grade) for name, grade in grades.items()]
        by_grade = [";".join(name for name, grade in grades.items() if grade == wanted) for wanted in (3, 2, 1)]
        wide.append((gene, ensg, *by_grade))
        targets.append((line, gene, f"S{line:05d}", ensg))
    grades_wide = [f"annotations_grade_{grade}" for grade in (3, 2, 1)]
    flat_columns = pd.Index(["ensg_id", "target_name", "annotation_name", "annotation_grade"])
    return {
        "opencell-localization-annotations.csv": TextTable(
            pd.DataFrame(wide, columns=pd.Index(["target_name", "ensg_id", *grades_wide]))
        ),
        "2021-09-29-public-annotations-flat.csv": TextTable(pd.DataFrame(flat, columns=flat_columns)),
        "all-public-targets.csv": TextTable(
            pd.DataFrame(targets, columns=pd.Index(["cell_line_id", "target_name", "uniprot_id", "ensg_id"])),
            quote_text=True,
        ),
    }


def yeast_files(config: SimConfig, row: Row) -> tuple[RawFile, ...]:
    """PIFiA's `GENE/GENE_ch1_<n>.tiff` (GFP) and `_ch3_` (cytoplasm), 16 bit, and `_mask_` (0 and 255).

    No nucleus is stained, so there is no `_ch2_`.
    """
    at, gene, number = config.domain.channels.index, row["protein"], _yeast_number(row)
    start = f"{gene}/{gene}"
    return (
        RawFile(f"{start}_ch1_{number}.tiff", "tiff", (at("protein"),)),
        RawFile(f"{start}_ch3_{number}.tiff", "tiff", (at("cytosol"),)),
        RawFile(f"{start}_mask_{number}.tiff", "tiff", ()),
    )


def _yeast_number(row: Row) -> int:
    """A number of its own for every cell of a gene: plate, replicate, well, site and label, read as one."""
    block, _, replicate = str(row["plate"]).removeprefix("plate").partition("r")
    well = 12 * (ord(row["well"][0]) - ord("A")) + int(row["well"][1:])
    return (((int(block) * 100 + int(replicate)) * 100 + well) * 10 + int(row["site"])) * 1000 + int(row["cell"])


def yeast_tables(config: SimConfig, table: pd.DataFrame) -> dict[str, TextTable]:
    """The localization table of the GFP collection: one row a gene, 23 columns T or F, each row a tab too long.

    Also `splits.csv`, which stands for PIFiA's pickled lists: protein, split, path of the GFP file.
    """
    rows = []
    for row in table.drop_duplicates("protein").sort_values("protein").to_dict("records"):
        places = list(dict.fromkeys(_HUH_NAMES.get(name, name) for name in _classes(row)))
        number = _number(row["protein"])
        flags = {name: "T" if name in places else "F" for name in HUH_CATEGORIES}
        start = {"orfid": number, "yORF": f"YSIM{number:04d}W", "gene name": row["protein"]}
        seen = {"GFP tagged?": "tagged", "GFP visualized?": "visualized", "TAP visualized?": "not visualized"}
        amount = {"abundance": "not visualized", "error": "", "localization summary": ",".join(places)}
        rows.append({**start, **seen, **amount, **flags})
    splits = [(row["protein"], row["split"], yeast_files(config, row)[0].path) for row in table.to_dict("records")]
    return {
        "allOrfData.txt": TextTable(pd.DataFrame(rows), separator="\t", trailing="\t"),
        "splits.csv": TextTable(pd.DataFrame(splits, columns=pd.Index(["protein", "split", "path"]))),
    }
