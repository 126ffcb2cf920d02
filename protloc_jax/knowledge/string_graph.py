"""STRING as a graph of perturbations: scores between the proteins that their targets are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped
from protloc_jax.knowledge.graph import Graph, of_pairs, request_digest, sources
from protloc_jax.knowledge.string_links import CHANNELS, COMBINED, Links, header, read_links
from protloc_jax.knowledge.symbols import Ambiguous, Resolution, read_info, resolve
from protloc_jax.knowledge.targets import lift, read_targets
from protloc_jax.knowledge.text_files import KnowledgeError, Progress

# The chance that two proteins are linked at all, which every channel's score holds (STRING's help page).
PRIOR = 0.041
# Evidence that resembling proteins have for no other reason than that they resemble.
_CORRECTED = ("cooccurence", "textmining")


@dataclass(frozen=True)
class StringSource:
    """Files of STRING and how they become weights.

    links      `protein.links`, `.detailed`, `.full` or their physical forms
    info       `protein.info`: preferred names
    aliases    `protein.aliases`: aliases and previous symbols (without it, preferred names only)
    threshold  smallest score (0..1000) that is an edge (arXiv 2507.10737: 200)
    channels   evidence to combine anew; empty: the file's own combined score
    ambiguous  what becomes of a symbol that stands for several genes, see `symbols.resolve`
    """

    links: str
    info: str
    aliases: str | None = None
    threshold: int = 200
    channels: tuple[str, ...] = ()
    ambiguous: Ambiguous = "isolate"

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1000:
            raise KnowledgeError(f"threshold {self.threshold}: STRING's scores are whole numbers in 0..1000.")
        known = [c for c in CHANNELS if c != "homology"]
        bad = [f"'{c}'{nearest(c, known)}" for c in self.channels if c.removesuffix("_transferred") not in known]
        if bad:
            raise KnowledgeError(f"no channels of STRING: {', '.join(bad)}. It has {', '.join(known)}.")


def channels_without(path: str | Path, left_out: Sequence[str]) -> tuple[str, ...]:
    """All evidence channels of a links file but those named (and what is transferred of them). KnowledgeError: none."""
    have = [c for c in header(path)[2:] if c not in (COMBINED, "homology")]
    bad = [f"'{c}'{nearest(c, have)}" for c in left_out if c not in have]
    if bad:
        raise KnowledgeError(
            f"{path} has no channel {', '.join(bad)}; it has {', '.join(have) or 'the combined score only'}. Channels "
            "stand in links.detailed and links.full."
        )
    return tuple(c for c in have if c.removesuffix("_transferred") not in left_out and c not in left_out)


def combined(scores: np.ndarray, channels: Sequence[str], homology: np.ndarray | None = None) -> np.ndarray:
    """Scores of channels as one, by STRING's rule: the prior off each, joined as independent, the prior on once.

    scores    [n, c] in 0..1000, one column a channel; homology [n] in 0..1000 lowers co-occurrence and text mining
    returns   [n] float64 in [0, 1], cut (as STRING cuts) to thousandths; 0 where no channel has evidence
    """
    evidence = np.maximum(np.asarray(scores, np.float64) / 1000 - PRIOR, 0) / (1 - PRIOR)
    against = np.ones(len(evidence))
    for base in dict.fromkeys(c.removesuffix("_transferred") for c in channels):
        own = [k for k, c in enumerate(channels) if c.removesuffix("_transferred") == base]
        found = 1 - np.prod(1 - evidence[:, own], axis=1)
        if homology is not None and base in _CORRECTED:
            found = found * (1 - homology / 1000)
        against *= 1 - found
    total = (1 - against) + PRIOR * against
    # A score that is 0.2 by the rule must not fall to 0.199 by rounding.
    return np.where(against == 1, 0, np.floor(total * 1000 + 1e-6) / 1000)


def string_graph(
    source: StringSource,
    targets_path: str | Path,
    *,
    column: str = "sirna",
    gene_column: str = "target_gene",
    same_gene: bool = True,
    progress: Progress | None = None,
) -> tuple[Graph, Resolution]:
    """The graph of STRING over the perturbations of a table of targets, and what became of each symbol."""
    targets = read_targets(targets_path, column=column, gene_column=gene_column)
    info = read_info(source.info)
    resolution = resolve(targets.symbols, info, source.aliases, ambiguous=source.ambiguous)
    proteins = tuple(dict.fromkeys(p for own in resolution.proteins.values() for p in own))
    graph = protein_graph(source, proteins, taxon=info.taxon, progress=progress)
    about = {
        "kind": "string",
        "symbols": resolution.counts(),
        "ambiguous_symbols": {s: list(names) for s, names in resolution.ambiguous.items()},
        "missing_symbols": list(resolution.missing),
    }
    lifted = lift(graph.saying(**about), targets, identity=resolution.proteins, same_gene=same_gene)
    return lifted.saying(**request(source, targets_path, column, gene_column, same_gene)), resolution


def request(
    source: StringSource, targets_path: str | Path, column: str, gene_column: str, same_gene: bool
) -> dict[str, Any]:
    """What is asked for, as provenance: sources, options and their digest, which tells whether it is made already."""
    made_of = sources(links=source.links, info=source.info, aliases=source.aliases, targets=targets_path)
    options = {
        "threshold": source.threshold,
        "channels": list(source.channels),
        "ambiguous": source.ambiguous,
        "column": column,
        "gene_column": gene_column,
        "same_gene": same_gene,
    }
    return {"sources": made_of, "options": options, "request": request_digest("string", made_of, options)}


def protein_graph(
    source: StringSource, proteins: Sequence[str], *, taxon: str, progress: Progress | None = None
) -> Graph:
    """The graph of STRING over its own proteins. Raises KnowledgeError where a pair has two different scores."""
    wanted = {protein: number for number, protein in enumerate(proteins)}
    corrects = "homology" in header(source.links) and any(
        c.removesuffix("_transferred") in _CORRECTED for c in source.channels
    )
    columns = (*source.channels, *(("homology",) if corrects else ())) or (COMBINED,)
    links = read_links(source.links, wanted, taxon=taxon, columns=columns, progress=progress)
    first, second, scores, counts = _each_pair_once(links, Path(source.links), proteins)
    if source.channels:
        own = scores[:, : len(source.channels)]
        weights = combined(own, source.channels, scores[:, -1] if corrects else None)
    else:
        weights = scores[:, 0] / 1000
    enough = weights * 1000 >= source.threshold - 1e-6
    about = {
        "rows": links.rows,
        "rows_between_targets": len(links.first),
        **counts,
        "pairs": len(first),
        "pairs_below_threshold": int(np.count_nonzero(~enough)),
        "homology_corrected": corrects,
        "proteins": len(proteins),
    }
    return of_pairs(proteins, first[enough], second[enough], weights[enough], about)


def _each_pair_once(
    links: Links, path: Path, proteins: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Pairs in order, and how they were listed: STRING lists each in both directions; other copies list one."""
    other = links.first != links.second
    forward = links.first[other] < links.second[other]
    low = np.minimum(links.first, links.second)[other]
    high = np.maximum(links.first, links.second)[other]
    scores = links.scores[other]
    order = np.lexsort((high, low))
    low, high, scores, forward = low[order], high[order], scores[order], forward[order]
    new = np.ones(len(low), bool)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    unlike = ~new & np.r_[False, (scores[1:] != scores[:-1]).any(axis=1)] if len(low) else new
    if unlike.any():
        said = [f"{proteins[low[k]]} {proteins[high[k]]}" for k in np.flatnonzero(unlike)]
        raise KnowledgeError(f"{path}: {len(said)} pairs are listed with two different scores: {capped(said)}.")
    pair = np.cumsum(new) - 1
    number = int(pair[-1]) + 1 if len(pair) else 0
    ways = [np.bincount(pair[way], minlength=number) > 0 for way in (forward, ~forward)]
    one_way = int(np.count_nonzero(ways[0] != ways[1]))
    counts = {"links_to_itself": int(np.count_nonzero(~other)), "pairs_listed_in_one_direction": one_way}
    return low[new], high[new], scores[new], counts
