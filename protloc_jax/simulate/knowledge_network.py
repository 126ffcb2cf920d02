"""Genes, targets and edges that stand for a simulated screen: invented, as faithful to its pathways as is asked for.

Every symbol, identifier and edge is invented. What is true is which perturbations act alike: siRNAs of one pathway, and
drugs of one kind. Genes of one pathway are joined by true edges, some of which a source lacks; all others are false.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from protloc_jax.simulate.compounds import Compound
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.knowledge_config import KnowledgeConfig
from protloc_jax.simulate.screen_layout import compounds_of, controls_of

FIRST_ENTREZ = 900_000_001  # beyond every real Entrez gene
DRUG_TARGETS = 3  # genes of a drug's kind that it binds
KIND_GENES = 8  # genes of each kind of drugs
METAEDGES = (("GiG", 0.6), ("Gr>G", 0.3), ("GcG", 0.1))  # and the share of true pairs that each holds
STRING_LEAST, STRING_MOST = 150, 999


class Gene(NamedTuple):
    """One gene: the symbol that a screen's table has, that of the sources, the group of true neighbours ("" none)."""

    symbol: str
    name: str
    group: str
    entrez: int
    protein: str


@dataclass(frozen=True)
class Network:
    """The genes of a screen and two sources' edges between them.

    targets    perturbation -> numbers of its genes
    pathways   perturbation -> the pathway or kind that is the truth
    known      [G] bool: the sources know the gene by some name
    string     (pairs [E, 2] of gene numbers, scores [E])
    hetionet   metaedge -> pairs [E, 2]
    members    pathway node -> numbers of its genes, as Hetionet tells it (GpPW)
    """

    genes: tuple[Gene, ...]
    targets: dict[str, tuple[int, ...]]
    pathways: dict[str, str]
    known: np.ndarray
    string: tuple[np.ndarray, np.ndarray]
    hetionet: dict[str, np.ndarray]
    members: dict[str, tuple[int, ...]]


def perturbations_of(config: SimConfig) -> tuple[Compound, ...]:
    """Everything of a screen that is a perturbation: its treatments, then its positive controls that have one."""
    return (*compounds_of(config), *controls_of(config))


@lru_cache(maxsize=4)
def network_of(config: SimConfig, knowledge: KnowledgeConfig) -> Network:
    """The invented network of a simulated screen; equal configurations give equal networks."""
    rng = generator(knowledge.network_seed, config.preset, config.seed, "knowledge", "genes")
    everything = perturbations_of(config)
    groups, targets = _targets(config, knowledge, everything, rng)
    genes = _genes(groups + [""] * knowledge.other_genes, len(groups), knowledge, rng)
    own = len(groups)
    known = np.ones(len(genes), bool)
    if not knowledge.truth:
        known[rng.permutation(own)[: round(knowledge.absent * own)]] = False
    string = _string(genes, own, known, knowledge, _stream(config, knowledge, "string"))
    hetionet = _hetionet(genes, own, known, knowledge, _stream(config, knowledge, "hetionet"))
    members = _members(genes, hetionet, known, knowledge, _stream(config, knowledge, "pathways"))
    return Network(genes, targets, {one.name: one.moa for one in everything}, known, string, hetionet, members)


def _stream(config: SimConfig, knowledge: KnowledgeConfig, purpose: str) -> np.random.Generator:
    return generator(knowledge.network_seed, config.preset, config.seed, "knowledge", purpose)


def _targets(
    config: SimConfig, knowledge: KnowledgeConfig, everything: tuple[Compound, ...], rng: np.random.Generator
) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """(the group of each targeted gene, perturbation -> its genes).

    An siRNA has a gene of its own in its pathway, some hit a second one of none, and one siRNA (unless truth) is of no
    known gene. A drug binds three of the genes of its kind; those of inactive drugs are of no group.
    """
    targets: dict[str, tuple[int, ...]] = {}
    if config.screen.kind == "sirnas":
        groups = [one.moa for one in everything]
        targets = {one.name: (number,) for number, one in enumerate(everything)}
        for number in rng.permutation(len(everything))[: round(knowledge.second_targets * len(everything))].tolist():
            targets[everything[number].name] = (number, len(groups))
            groups.append("")
        if not knowledge.truth and len(everything) > 1:
            single = [one.name for one in everything if len(targets[one.name]) == 1]
            targets[single[int(rng.integers(len(single)))]] = ()
        return groups, targets
    groups = []
    first: dict[str, int] = {}
    for one in everything:
        if one.moa == "inactive" or one.moa not in first:
            first[one.moa] = len(groups)
            groups += ["" if one.moa == "inactive" else one.moa] * KIND_GENES
        drawn = first[one.moa] + rng.choice(KIND_GENES, DRUG_TARGETS, replace=False)
        targets[one.name] = tuple(sorted(drawn.tolist()))
    return groups, targets


def _genes(groups: list[str], own: int, knowledge: KnowledgeConfig, rng: np.random.Generator) -> tuple[Gene, ...]:
    """Genes under symbols that tell nothing of their group, some renamed by the sources."""
    number = rng.permutation(len(groups)) + 1
    renamed = np.zeros(len(groups), bool)
    if not knowledge.truth:
        renamed[rng.permutation(own)[: round(knowledge.renamed * own)]] = True
    return tuple(
        Gene(f"SIMG{n:04d}", f"SIMR{n:04d}" if new else f"SIMG{n:04d}", group, FIRST_ENTREZ + n, f"ENSP9{n:010d}")
        for n, group, new in zip(number.tolist(), groups, renamed.tolist(), strict=True)
    )


def _covered(own: int, total: int, known: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Genes [G] bool that a source has edges for: a share of the targeted ones, and all others."""
    covered = np.zeros(total, bool)
    covered[rng.permutation(own)[: round(share * own)]] = True
    covered[own:] = True
    return covered & known


def _pairs(
    genes: tuple[Gene, ...], own: int, known: np.ndarray, knowledge: KnowledgeConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(true pairs that the source knows [T, 2], all pairs of covered genes that are not true ones [F, 2])."""
    share = 1.0 if knowledge.truth else knowledge.coverage
    covered = np.flatnonzero(_covered(own, len(genes), known, share, rng))
    group = np.unique([gene.group for gene in genes], return_inverse=True)[1]
    grouped = np.asarray([bool(gene.group) for gene in genes])
    a, b = (covered[side] for side in np.triu_indices(len(covered), 1))
    true = (group[a] == group[b]) & grouped[a] & grouped[b]
    pairs = np.stack([a, b], axis=1)
    kept, at = np.ones(int(true.sum()), bool), rng.permutation(int(true.sum()))
    if not knowledge.truth:
        kept[at[: round(knowledge.missing * len(kept))]] = False
    return pairs[true][kept], pairs[~true]


def _some(pairs: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return pairs[np.sort(rng.choice(len(pairs), round(share * len(pairs)), replace=False))]


def _string(
    genes: tuple[Gene, ...], own: int, known: np.ndarray, knowledge: KnowledgeConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs and scores: true ones about 700, false ones above 400 in one case of seven, as the real file's rows are."""
    true, other = _pairs(genes, own, known, knowledge, rng)
    if knowledge.truth:
        return true, np.full(len(true), STRING_MOST)
    false = _some(other, knowledge.string_false, rng)
    scores = np.concatenate([rng.normal(700, 180, len(true)), STRING_LEAST + rng.exponential(125, len(false))])
    return np.concatenate([true, false]), np.clip(np.rint(scores), STRING_LEAST, STRING_MOST).astype(int)


def _hetionet(
    genes: tuple[Gene, ...], own: int, known: np.ndarray, knowledge: KnowledgeConfig, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Metaedge -> pairs. A true pair stands in one of the three, Gr>G in either direction."""
    true, other = _pairs(genes, own, known, knowledge, rng)
    kind = rng.choice(len(METAEDGES), len(true), p=[share for _, share in METAEDGES])
    false = (knowledge.interacts_false, knowledge.regulates_false, knowledge.covaries_false)
    found = {}
    for number, (name, _) in enumerate(METAEDGES):
        wrong = other[:0] if knowledge.truth else _some(other, false[number], rng)
        pairs = np.concatenate([true[kind == number], wrong])
        if name == "Gr>G":
            turned = rng.random(len(pairs)) < 0.5
            pairs = np.where(turned[:, None], pairs[:, ::-1], pairs)
        found[name] = pairs
    return found


def _members(
    genes: tuple[Gene, ...],
    hetionet: dict[str, np.ndarray],
    known: np.ndarray,
    knowledge: KnowledgeConfig,
    rng: np.random.Generator,
) -> dict[str, tuple[int, ...]]:
    """Hetionet's pathway nodes: true ones without the members it does not know, and (unless truth) as many false."""
    covered = np.unique(np.concatenate([pairs.ravel() for pairs in hetionet.values()])).astype(int)
    groups = sorted({gene.group for gene in genes} - {""})
    found: dict[str, tuple[int, ...]] = {}
    for number, group in enumerate(groups, start=1):
        own = [g for g in covered.tolist() if genes[g].group == group]
        if not knowledge.truth:
            own = [g for g in own if rng.random() >= knowledge.missing]
        if len(own) > 1:
            found[f"invented pathway {number}"] = tuple(own)
    if knowledge.truth:
        return found
    for number in range(len(groups) + 1, 2 * len(groups) + 1):
        some = rng.permutation(np.flatnonzero(known))[:6]
        found[f"invented pathway {number}"] = tuple(sorted(some.tolist()))
    return found
