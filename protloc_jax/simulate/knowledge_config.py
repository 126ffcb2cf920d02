"""How faithful the simulated knowledge about a simulated screen is."""

from __future__ import annotations

from dataclasses import dataclass

from protloc_jax.config import ConfigError, opt


@dataclass(frozen=True)
class KnowledgeConfig:
    """Fidelity of invented networks and expression to the truth of the screen they are about.

    Defaults are what is known of RxRx1's 1,148 genes: four in ten have an edge to another of them, and of all pairs
    0.10 % are joined by GiG, 0.26 % by Gr>G and 0.04 % by GcG (Hetionet); of all pairs of STRING's proteins 3.6 %.
    Raises ConfigError naming every value that cannot be.
    """

    network_seed: int = opt(0, "seed of what is drawn for the network and the expression")
    truth: bool = opt(
        False, "a perfect network: every pair of a pathway, no other edge, every gene covered and under its own name"
    )
    coverage: float = opt(0.4, "share of targeted genes that have any edge, in STRING and in Hetionet each")
    missing: float = opt(0.5, "share of the pairs within a pathway, both covered, that each source does not know")
    string_false: float = opt(0.036, "share of pairs of other genes that STRING joins, most at low scores")
    interacts_false: float = opt(0.0010, "share of pairs of other genes that Hetionet joins by GiG")
    regulates_false: float = opt(0.0026, "share of pairs of other genes that Hetionet joins by Gr>G")
    covaries_false: float = opt(0.0004, "share of pairs of other genes that Hetionet joins by GcG")
    renamed: float = opt(0.05, "share of genes that both sources call by another symbol; STRING's aliases tell")
    absent: float = opt(0.02, "share of genes that neither source knows by any name")
    second_targets: float = opt(0.04, "share of siRNAs that hit a second gene of no pathway")
    other_genes: int = opt(200, "genes that nothing in the screen targets")
    expression_lines: int = opt(24, "cell lines in the expression table; those of the screen are among them")
    expression_genes: int = opt(2000, "genes in the expression table")
    informative: float = opt(0.3, "share of genes whose expression follows how a line looks and how it answers")

    def __post_init__(self) -> None:
        problems = []
        for name in (
            "coverage", "missing", "string_false", "interacts_false", "regulates_false", "covaries_false", "renamed",
            "absent", "second_targets", "informative",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name}={getattr(self, name):g}: must lie in [0, 1].")
        for name, least in (("network_seed", 0), ("other_genes", 0), ("expression_lines", 1), ("expression_genes", 1)):
            if getattr(self, name) < least:
                problems.append(f"{name}={getattr(self, name)}: must be at least {least}.")
        if problems:
            raise ConfigError("\n  ".join(problems))
