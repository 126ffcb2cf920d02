"""What treatments a packed BBBC021 holds: one row a treatment, and a summary by mechanism."""

from __future__ import annotations

import pandas as pd

from protloc_jax.data.manifest import Manifest
from protloc_jax.simulate.compounds import DMSO, TAXOL
from protloc_jax.simulate.screen_layout import NEGATIVE, POSITIVE

TREATMENTS_FILE = "treatments.csv"


def treatments(manifest: Manifest) -> pd.DataFrame:
    """One row a treatment with a mechanism: moa, compound, concentration, batches, plates, wells, fields.

    wells counts (plate, well); wells_of_controls and fields_of_controls are those of them in positive control wells.
    Ordered by mechanism, compound and concentration. DMSO is not among them.
    """
    table = manifest.table
    own = table[table["moa"].notna() & (table["well_type"] != NEGATIVE)].copy()
    own["_well"] = own["plate"].astype(str) + " " + own["well"].astype(str)
    own["_control"] = own["well_type"] == POSITIVE
    found = []
    for (moa, compound, dose, name), rows in own.groupby(["moa", "compound", "concentration", "treatment"]):  # type: ignore[misc]
        found.append(
            {
                "treatment": name,
                "moa": moa,
                "compound": compound,
                "concentration": dose,
                "batches": ";".join(sorted(set(rows["batch"]), key=lambda b: (len(b), b))),
                "plates": len(set(rows["plate"])),
                "wells": len(set(rows["_well"])),
                "wells_of_controls": len(set(rows["_well"][rows["_control"]])),
                "fields": len(rows),
                "fields_of_controls": int(rows["_control"].sum()),
            }
        )
    return pd.DataFrame(found)


def summary(manifest: Manifest) -> list[str]:
    """Lines for people: per mechanism its treatments with wells and fields, then totals and the share of taxol."""
    table, found = manifest.table, treatments(manifest)
    if not len(found):
        return ["no field has a mechanism of action."]
    width = max(len(str(moa)) for moa in found["moa"])
    lines = [f"{'mechanism':{width}}  compounds  treatments  wells  fields  treatments in uM"]
    for moa, rows in found.groupby("moa"):
        doses = [
            f"{compound} {', '.join(f'{dose:g}' for dose in of['concentration'])}"
            for compound, of in rows.groupby("compound")
        ]
        numbers = f"{rows['compound'].nunique():9}  {len(rows):10}  {rows['wells'].sum():5}  {rows['fields'].sum():6}"
        lines.append(f"{moa:{width}}  {numbers}  {'; '.join(doses)}")
    fields, batches = int(found["fields"].sum()), {b for text in found["batches"] for b in text.split(";")}
    lines.append(
        f"{len(found)} treatments of {found['compound'].nunique()} compounds with {found['moa'].nunique()} mechanisms, "
        f"{fields:,} fields of {found['wells'].sum():,} wells in {len(batches)} batches."
    )
    taxol = found[found["compound"] == TAXOL]
    if len(taxol):
        mine, controls = int(taxol["fields"].sum()), int(taxol["fields_of_controls"].sum())
        lines.append(
            f"{TAXOL}: {mine:,} of the {fields:,} treated fields ({mine / fields:.1%}), {controls:,} of them in "
            "control wells (well_type=positive_control)."
        )
    lines.append(f"{DMSO}: {int((table['well_type'] == NEGATIVE).sum()):,} fields.")
    bare = int((table["moa"].isna()).sum())
    if bare:
        lines.append(f"{bare:,} fields have no mechanism.")
    return lines
