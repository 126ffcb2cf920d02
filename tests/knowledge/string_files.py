"""A tiny STRING in the layouts of its releases: five proteins, their links and names."""

from __future__ import annotations

import gzip
from pathlib import Path

CHANNELS = ("neighborhood", "fusion", "cooccurence", "coexpression", "experimental", "database", "textmining")
PROTEINS = {f"9606.ENSP0000000000{i}": name for i, name in enumerate(("TP53", "MDM2", "NECTIN4", "GPAT3", "ODD1"))}
P = list(PROTEINS)
# One pair, seven channels, combined.
PAIRS = (
    ((0, 1), (0, 0, 0, 62, 621, 0, 585, 833)),
    ((0, 2), (0, 0, 0, 0, 0, 0, 210, 210)),
    ((1, 3), (0, 0, 0, 0, 199, 0, 0, 199)),
    ((2, 3), (0, 0, 300, 0, 0, 900, 400, 950)),
    ((3, 4), (0, 0, 0, 0, 200, 0, 0, 200)),
)
ALIASES = (
    (0, "P53", ("Ensembl_HGNC_alias_symbol", "UniProt_GN_Synonyms")),
    (2, "PVRL4", ("Ensembl_HGNC_prev_symbol",)),
    (3, "AGPAT9", ("Ensembl_HGNC_prev_symbol",)),
    (1, "TWICE", ("Ensembl_HGNC_alias_symbol",)),
    (4, "TWICE", ("Ensembl_HGNC_alias_symbol",)),
    (1, "OLDNEW", ("Ensembl_HGNC_prev_symbol",)),
    (3, "OLDNEW", ("Ensembl_HGNC_alias_symbol",)),
    (2, "1ABC", ("Ensembl_PDB",)),
)
V11 = {
    "Ensembl_HGNC_alias_symbol": "Ensembl_HGNC_Synonyms",
    "Ensembl_HGNC_prev_symbol": "Ensembl_HGNC_Previous_Symbols",
}


def write_links(path: Path, *, detailed: bool = False, both: bool = True, extra: tuple[str, ...] = ()) -> Path:
    """The links file; `both` directions as STRING has them."""
    rows = [f"protein1 protein2 {' '.join(CHANNELS) + ' ' if detailed else ''}combined_score"]
    for (a, b), scores in PAIRS:
        said = " ".join(map(str, scores)) if detailed else str(scores[-1])
        rows += [f"{P[a]} {P[b]} {said}", *([f"{P[b]} {P[a]} {said}"] if both else [])]
    text = "\n".join([rows[0], *sorted(rows[1:]), *extra]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_names(folder: Path, version: str = "v12") -> tuple[Path, Path]:
    """(info, aliases) in the layout of a version."""
    info, aliases = folder / f"info.{version}.txt", folder / f"aliases.{version}.txt"
    first = "#string_protein_id" if version == "v12" else "protein_external_id"
    rows = [f"{p}\t{name}\t100\tsays something" for p, name in PROTEINS.items()]
    info.write_text("\n".join([f"{first}\tpreferred_name\tprotein_size\tannotation", *rows]) + "\n")
    if version == "v12":
        rows = [f"{P[k]}\t{alias}\t{source}" for k, alias, own in ALIASES for source in own]
    else:
        rows = [f"{P[k]}\t{alias}\t{' '.join(V11.get(s, s) for s in own)} Ensembl_EMBL" for k, alias, own in ALIASES]
    aliases.write_text("\n".join(["#string_protein_id\talias\tsource", *rows]) + "\n")
    return info, aliases
