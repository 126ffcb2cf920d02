"""What the screens give to cells: the compounds of BBBC021 with their doses and weeks, siRNAs, and drugs for infection.

Names, mechanisms of action (MoA), doses that carry an MoA label and weeks of the BBBC021 compounds are those of the
published annotation (BBBC021v1, Ljosa et al. 2013). What a compound does to a simulated cell is invented.
"""

from __future__ import annotations

from dataclasses import dataclass

DMSO, EMPTY, NON_TARGETING, UNTREATED = "DMSO", "EMPTY", "non-targeting", "untreated"
TAXOL, TAXOL_DOSE = "taxol", 0.3
MOCK, ACTIVE, INACTIVATED = "Mock", "Active SARS-CoV-2", "UV Inactivated SARS-CoV-2"
CONDITIONS = (ACTIVE, MOCK, INACTIVATED)
DRUG_KINDS = ("antiviral", "inactive", "host-directed", "inactive", "cytotoxic", "inactive")
PATHWAY_SIZE = 6  # siRNAs of one pathway
# Mantissas of neighbouring half-log doses.
_BELOW = {1.0: 0.3, 3.0: 1.0, 2.0: 0.6, 6.0: 2.0, 5.0: 1.5, 1.5: 0.5}


@dataclass(frozen=True)
class Compound:
    """One perturbation of a screen.

    `moa` is the mechanism, the pathway of an siRNA or the kind of a drug; `doses` in µM, strictly decreasing (empty
    for an siRNA); the `labelled` highest of them carry the MoA label; `acts_from` is the lowest dose that is known to
    act; `week` (1–10) is BBBC021's batch.
    """

    name: str
    moa: str
    doses: tuple[float, ...] = ()
    labelled: int = 0
    acts_from: float = 0.0
    week: int = 0


# MoA -> (compound, week, labelled doses in µM from the highest), in the order of the published index.
BBBC021: dict[str, tuple[tuple[str, int, tuple[float, ...]], ...]] = {
    "Actin disruptors": (
        ("cytochalasin B", 1, (30, 10)),
        ("cytochalasin D", 2, (0.3,)),
        ("latrunculin B", 1, (3, 1)),
    ),
    "Aurora kinase inhibitors": (
        ("AZ258", 4, (1, 0.3, 0.1)),
        ("AZ841", 3, (1, 0.3, 0.1)),
        ("AZ-A", 1, (30, 10, 3, 1, 0.3, 0.1)),
    ),
    "Cholesterol-lowering": (("mevinolin/lovastatin", 9, (15, 5, 1.5)), ("simvastatin", 9, (20, 6, 2))),
    "DNA damage": (
        ("chlorambucil", 3, (10,)),
        ("cisplatin", 3, (10,)),
        ("etoposide", 3, (10, 3, 1)),
        ("mitomycin C", 4, (3, 1, 0.3, 0.1)),
    ),
    "DNA replication": (
        ("camptothecin", 8, (0.03, 0.01, 0.003)),
        ("floxuridine", 9, (30, 10)),
        ("methotrexate", 2, (10,)),
        ("mitoxantrone", 9, (0.01, 0.003)),
    ),
    "Eg5 inhibitors": (("AZ138", 10, (3, 1, 0.3, 0.1, 0.03)), ("AZ-C", 3, (1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001))),
    "Epithelial": (("AZ-J", 5, (10, 3, 1)), ("AZ-U", 10, (10, 3, 1)), ("PP-2", 8, (10, 3))),
    "Kinase inhibitors": (("alsterpaullone", 7, (3, 1)), ("bryostatin", 7, (0.3,)), ("PD-169316", 7, (10, 3))),
    "Microtubule destabilizers": (
        ("colchicine", 1, (0.03,)),
        ("demecolcine", 3, (10, 3, 1, 0.3)),
        ("nocodazole", 1, (3, 1)),
        ("vincristine", 3, (3, 1, 0.3, 0.1, 0.03, 0.01, 0.003)),
    ),
    "Microtubule stabilizers": (
        ("docetaxel", 7, (0.3, 0.1, 0.03)),
        ("epothilone B", 1, (1, 0.3, 0.1)),
        (TAXOL, 1, (3, 1, TAXOL_DOSE)),
    ),
    "Protein degradation": (
        ("ALLN", 2, (100, 3)),
        ("lactacystin", 6, (10,)),
        ("MG-132", 2, (3, 0.1)),
        ("proteasome inhibitor I", 7, (3, 0.1)),
    ),
    "Protein synthesis": (
        ("anisomycin", 4, (1, 0.3)),
        ("cyclohexamide", 4, (50, 15, 5)),
        ("emetine", 3, (1, 0.3, 0.1)),
    ),
}
MOAS = tuple(BBBC021)
WEEKS = 10


def _ladder(labelled: tuple[float, ...], number: int) -> tuple[float, ...]:
    """The `number` highest doses: the labelled ones, then half-log steps below them (10, 3, 1, … or 5, 1.5, 0.5, …)."""
    doses = list(labelled[:number])
    while len(doses) < number:
        mantissa, exponent = f"{doses[-1]:e}".split("e")
        doses.append(float(f"{_BELOW[float(mantissa)] * 10.0 ** int(exponent):.6g}"))
    return tuple(float(dose) for dose in doses)


def moa_compounds(number: int, doses: int) -> tuple[Compound, ...]:
    """The first `number` compounds, dealt over the 12 MoAs in turn: the 38 named ones, then invented ones."""
    named = [
        Compound(name, moa, _ladder(labelled, doses), min(len(labelled), doses), labelled[-1], week)
        for deep in range(max(len(group) for group in BBBC021.values()))
        for moa, group in BBBC021.items()
        for name, week, labelled in group[deep : deep + 1]
    ]
    for extra in range(number - len(named)):
        turn, which = divmod(extra, len(MOAS))
        ladder = _ladder((10.0, 3.0, 1.0), doses)
        week = (3 * which + 4 * turn) % WEEKS + 1
        named.append(Compound(f"compound-{len(named) + 1:03d}", MOAS[which], ladder, min(3, doses), 1.0, week))
    return tuple(named[:number])


def taxol() -> Compound:
    """The positive control, which stands on every plate whether or not it is among the compounds."""
    return next(one for one in moa_compounds(sum(map(len, BBBC021.values())), 3) if one.name == TAXOL)


def sirnas(number: int) -> tuple[Compound, ...]:
    """siRNAs under invented names, six to a pathway."""
    return tuple(Compound(f"s{9000001 + index}", f"pathway-{index // PATHWAY_SIZE + 1:03d}") for index in range(number))


def positive_sirnas(number: int) -> tuple[Compound, ...]:
    """Control siRNAs with strong phenotypes, the same on every plate."""
    return tuple(Compound(f"s{9900001 + index}", f"control-{index + 1:02d}") for index in range(number))


def drugs(number: int, doses: int) -> tuple[Compound, ...]:
    """Drugs against an infection, half of them without effect on it, at `doses` half-log doses from 30 µM down."""
    ladder = _ladder((30.0, 10.0, 3.0, 1.0), doses)
    return tuple(
        Compound(f"drug-{index + 1:04d}", DRUG_KINDS[index % len(DRUG_KINDS)], ladder) for index in range(number)
    )
