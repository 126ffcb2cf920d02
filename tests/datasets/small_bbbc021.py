"""A handful of wells in BBBC021's published layout, with everything that the real tables hold of oddities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

COLUMNS = (
    "TableNumber,ImageNumber,Image_FileName_DAPI,Image_PathName_DAPI,Image_FileName_Tubulin,Image_PathName_Tubulin,"
    "Image_FileName_Actin,Image_PathName_Actin,Image_Metadata_Plate_DAPI,Image_Metadata_Well_DAPI,Replicate,"
    "Image_Metadata_Compound,Image_Metadata_Concentration"
)
# Week, number of the plate, prefix of the names, well, replicate, compound, concentration as written; two sites each.
WELLS = (
    (1, 22123, "Week1_150607_", "B02", 1, "DMSO", "0"),
    (1, 22123, "Week1_150607_", "B11", 1, "taxol", "0.3"),
    (1, 22123, "Week1_150607_", "D05", 1, "taxol", "0.3"),
    (1, 22123, "Week1_150607_", "C03", 1, "colchicine", "3e-2"),
    (4, 27481, "", "C03", 1, "cyclohexamide", "15"),
    (4, 27481, "", "C04", 1, "cyclohexamide", "1.5"),
    (7, 34341, "Week7_230707_", "B03", 1, "docetaxel", "0.1"),
    (7, 34641, "Week7_7__", "B03", 1, "docetaxel", "0.1"),
    (8, 38341, "Week8_4sites_", "G10", 1, "UNKNOWN", "0.003"),
    (9, 39206, "Week9_090907_", "E05", 2, "mevinolin/lovastatin", "1.5"),
    (10, 40111, "Week10_200907_", "F02", 1, "taxol", "0.3"),
)
MOA = """"compound",concentration,"moa"
"taxol",0.300000,"Microtubule stabilizers"
"docetaxel",0.100000,"Microtubule stabilizers"
"colchicine",0.030000,"Microtubule destabilizers"
"cyclohexamide",15.000000,"Protein synthesis"
"mevinolin/lovastatin",1.500000,"Cholesterol-lowering"
"DMSO",0.000000,"DMSO"
"""


def lines(wells=WELLS, sites: int = 2) -> list[str]:
    """The rows of the image table; a GUID's last digits tell row and channel."""
    found, counted = [], {}
    for week, number, prefix, well, replicate, compound, dose in wells:
        folder = f"Week{week}/Week{week}_{number}"
        for site in range(1, sites + 1):
            counted[week] = counted.get(week, 0) + 1
            files = []
            for wavelength in (1, 2, 4):
                unique = f"G0000000-0000-4000-8000-{len(found):08d}{wavelength:04d}".replace("G", "A")
                files += [f"{prefix}{well}_s{site}_w{wavelength}{unique}.tif", folder]
            found.append(
                ",".join(
                    [
                        str(week % 10),
                        str(counted[week]),
                        *files,
                        folder.split("/")[1],
                        well,
                        str(replicate),
                        compound,
                        dose,
                    ]
                )
            )
    return found


def write(root: Path, rows: list[str] | None = None, *, moa: str = MOA, images: bool = True, side: int = 16) -> Path:
    """The tables and, for every row, three 16-bit TIFFs of noise about 3000 (24 of its columns brighter)."""
    root.mkdir(parents=True, exist_ok=True)
    rows = lines() if rows is None else rows
    (root / "BBBC021_v1_image.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")
    (root / "BBBC021_v1_moa.csv").write_text(moa)
    for number, row in enumerate(rows if images else []):
        cells = row.split(",")
        for channel, at in enumerate((2, 4, 6)):
            path = root / cells[at + 1] / cells[at]
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([number, channel])
            pixels = rng.integers(2000, 4000, (side, side + 8)) * np.linspace(1, 3, side + 8)
            tifffile.imwrite(path, pixels.astype(np.uint16), photometric="minisblack")
    return root
