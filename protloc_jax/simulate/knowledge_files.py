"""Simulated knowledge in the files that real knowledge comes in: STRING v12.0, Hetionet v1.0, siRNA targets, RNA-seq.

Layouts are those of the real files; content is invented (see `knowledge_network` and `expression`). STRING lists every
pair in both directions; Hetionet has undirected gene edges once and `Gr>G` from regulator to target.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable

import numpy as np

from protloc_jax.config import ConfigError, to_dict
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.expression import expression_table
from protloc_jax.simulate.knowledge_config import KnowledgeConfig
from protloc_jax.simulate.knowledge_network import FIRST_ENTREZ, Network, network_of

TARGETS, PATHWAYS, EXPRESSION = "sirna_to_targets.csv", "pathways.csv", "expression.csv"
STRING = tuple(f"9606.protein.{what}.v12.0.txt.gz" for what in ("links", "info", "aliases"))
NODES, EDGES = "hetionet-v1.0-nodes.tsv", "hetionet-v1.0-edges.sif.gz"
CONFIG_FILE, NOTICE = "knowledge.json", "SYNTHETIC_KNOWLEDGE.txt"
PROCESS_GENES = 10  # of each of Hetionet's biological processes here


def knowledge_files(config: SimConfig, knowledge: KnowledgeConfig) -> dict[str, bytes]:
    """Name -> content of every file about a simulated screen of siRNAs or of drugs; equal configurations, equal bytes.

    sirna_to_targets.csv   `sirna,target_gene`: several targets joined by "_", empty for none (screens of siRNAs)
    9606.protein.*.gz      links, info and aliases in the layout of STRING v12.0
    hetionet-v1.0-*        nodes.tsv and edges.sif.gz; compounds and what they bind for screens of drugs
    expression.csv         counts, genes x cell lines
    pathways.csv           `perturbation,pathway`: the truth, of which no method may see anything
    knowledge.json         both configurations
    Raises ConfigError for a preset that is no such screen.
    """
    if not hasattr(config.domain, "kind") or config.screen.kind == "compounds":
        raise ConfigError(f"preset {config.preset}: knowledge is simulated about rxrx1 and rxrx19a.")
    net = network_of(config, knowledge)
    links, info, aliases = _string(net)
    files = {
        STRING[0]: _packed(links),
        STRING[1]: _packed(info),
        STRING[2]: _packed(aliases),
        NODES: _text(_nodes(config, net)),
        EDGES: _packed(_edges(config, net, knowledge)),
        PATHWAYS: _text(["perturbation,pathway", *(f"{name},{own}" for name, own in net.pathways.items())]),
        EXPRESSION: expression_table(config, knowledge, tuple(gene.name for gene in net.genes))
        .to_csv(index=False, lineterminator="\n")
        .encode(),
        CONFIG_FILE: _json({"screen": to_dict(config), "knowledge": to_dict(knowledge)}),
        NOTICE: _text(
            [f"Everything here is SYNTHETIC: invented genes and edges about a simulated {config.preset} screen."]
        ),
    }
    if config.screen.kind == "sirnas":
        rows = (f"{name},{'_'.join(net.genes[g].symbol for g in own)}" for name, own in net.targets.items())
        files[TARGETS] = _text(["sirna,target_gene", *rows])
    return files


def _string(net: Network) -> tuple[list[str], list[str], list[str]]:
    """Lines of links, info and aliases."""
    pairs, scores = net.string
    both = np.concatenate([pairs, pairs[:, ::-1]])
    protein = [f"9606.{gene.protein}" for gene in net.genes]
    rows = sorted((protein[a], protein[b], s) for (a, b), s in zip(both.tolist(), [*scores, *scores], strict=True))
    info, aliases = [], []
    for number in sorted(np.flatnonzero(net.known).tolist(), key=lambda g: protein[g]):
        gene = net.genes[number]
        info.append(f"{protein[number]}\t{gene.name}\t{100 + gene.entrez % 900}\tInvented protein {gene.name}.")
        aliases.append(f"{protein[number]}\t{gene.name}\tEnsembl_HGNC_symbol")
        if gene.symbol != gene.name:
            aliases.append(f"{protein[number]}\t{gene.symbol}\tEnsembl_HGNC_prev_symbol")
        aliases.append(f"{protein[number]}\t{gene.entrez}\tEnsembl_HGNC_entrez_id")
    return (
        ["protein1 protein2 combined_score", *(f"{a} {b} {s}" for a, b, s in rows)],
        ["#string_protein_id\tpreferred_name\tprotein_size\tannotation", *info],
        ["#string_protein_id\talias\tsource", *aliases],
    )


def _gene(net: Network, number: int) -> str:
    return f"Gene::{net.genes[number].entrez}"


def _processes(net: Network) -> dict[str, list[int]]:
    """Biological processes that tell nothing: known genes in the order of their names, ten to each."""
    known = sorted(np.flatnonzero(net.known).tolist(), key=lambda g: net.genes[g].entrez)
    return {
        f"Biological Process::GO:9{at // PROCESS_GENES:06d}": known[at : at + PROCESS_GENES]
        for at in range(0, len(known), PROCESS_GENES)
    }


def _compounds(config: SimConfig, net: Network) -> dict[str, str]:
    """Drug -> its node, of a screen of drugs."""
    if config.screen.kind == "sirnas":
        return {}
    return {name: f"Compound::DB9{number:04d}" for number, name in enumerate(net.targets, start=1)}


def _nodes(config: SimConfig, net: Network) -> list[str]:
    """Lines of nodes.tsv, by identifier."""
    rows = [(_gene(net, g), net.genes[g].name, "Gene") for g in np.flatnonzero(net.known).tolist()]
    rows += [(node, f"invented process {at}", "Biological Process") for at, node in enumerate(_processes(net), 1)]
    rows += [(f"Pathway::PC9_{at}", name, "Pathway") for at, name in enumerate(net.members, 1)]
    rows += [(node, name, "Compound") for name, node in _compounds(config, net).items()]
    rows += [("Disease::DOID:9000001", "invented disease", "Disease")]
    rows += [("Anatomy::UBERON:9000001", "invented tissue", "Anatomy")]
    return ["id\tname\tkind", *("\t".join(row) for row in sorted(rows))]


def _edges(config: SimConfig, net: Network, knowledge: KnowledgeConfig) -> list[str]:
    """Lines of edges.sif: the three kinds of gene edges, terms, and what drugs bind."""
    rows = [
        (_gene(net, a), metaedge, _gene(net, b)) for metaedge, pairs in net.hetionet.items() for a, b in pairs.tolist()
    ]
    for at, own in enumerate(net.members.values(), 1):
        rows += [(_gene(net, g), "GpPW", f"Pathway::PC9_{at}") for g in own]
    if not knowledge.truth:
        rows += [(_gene(net, g), "GpBP", node) for node, own in _processes(net).items() for g in own]
        first = [g for g in np.flatnonzero(net.known).tolist() if net.genes[g].entrez < FIRST_ENTREZ + 21]
        rows += [("Disease::DOID:9000001", "DaG", _gene(net, g)) for g in first]
        rows += [("Anatomy::UBERON:9000001", "AeG", _gene(net, g)) for g in first]
    for name, node in _compounds(config, net).items():
        rows += [(node, "CbG", _gene(net, g)) for g in net.targets[name] if net.known[g]]
    return ["source\tmetaedge\ttarget", *("\t".join(row) for row in sorted(rows, key=lambda r: (r[1], r[0], r[2])))]


def _text(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _packed(lines: Iterable[str]) -> bytes:
    """gzip without a name or a time, so that equal lines give equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
        file.write(_text(lines))
    return buffer.getvalue()
