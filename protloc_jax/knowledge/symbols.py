"""Gene symbols: which protein of STRING one means, by its present name, an alias, or a name it once had."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from protloc_jax.data.manifest import capped
from protloc_jax.knowledge.text_files import KnowledgeError, Problems, checked, lines

Ambiguous = Literal["isolate", "all", "refuse"]
HOW = ("preferred", "alias", "previous")

# Sources of the aliases file that give gene symbols; others give accessions, names in words and numbers of databases,
# which can look like a symbol (a PDB code) and are none.
_PREVIOUS = re.compile(r"HGNC_(prev_symbol|previous_symbols)$", re.IGNORECASE)
_SYMBOL = re.compile(
    r"(HGNC|HGNC_symbol|HGNC_alias_symbol|HGNC_synonyms?|HUGO|(UniProt|\(supplied_by_UniProt\))_GN(_Name|_Synonyms)?"
    r"|KEGG_NAME(_SYNONYM)?|EntrezGene(_synonym)?|gene_name|UniProt_GN_ORFNames)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Proteins:
    """STRING's proteins: preferred name by protein, in the order of the file."""

    preferred: Mapping[str, str]
    taxon: str


@dataclass(frozen=True)
class Resolution:
    """What became of symbols.

    proteins  symbol -> the proteins it means (several only by the rule "all", or where they share a preferred name)
    key       symbol -> the preferred name: equal for two symbols of one gene
    how       symbol -> "preferred", "alias" or "previous"
    ambiguous symbol -> the preferred names between which nothing decides
    missing   symbols that nothing knows
    """

    proteins: Mapping[str, tuple[str, ...]]
    key: Mapping[str, str]
    how: Mapping[str, str]
    ambiguous: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """How many symbols were found in which way."""
        found = Counter(self.how.values())
        return {**{how: found[how] for how in HOW}, "ambiguous": len(self.ambiguous), "missing": len(self.missing)}

    def rows(self) -> list[dict[str, Any]]:
        """One row a symbol: symbol, how, name (where found), candidates (where ambiguous)."""
        found = [{"symbol": s, "how": self.how[s], "name": self.key[s], "candidates": ""} for s in self.key]
        torn = [
            {"symbol": s, "how": "ambiguous", "name": "", "candidates": ";".join(names)}
            for s, names in self.ambiguous.items()
            if s not in self.key
        ]
        lost = [{"symbol": s, "how": "missing", "name": "", "candidates": ""} for s in self.missing]
        return found + torn + lost


def read_info(path: str | Path) -> Proteins:
    """STRING's `protein.info` (columns `#string_protein_id`, `preferred_name`, ...). Raises KnowledgeError by line."""
    path = checked(path)
    problems = Problems(path)
    preferred: dict[str, str] = {}
    column = width = 0
    for number, line in lines(path):
        fields = line.split("\t")
        if number == 1:
            if (
                fields[0].lstrip("#") not in ("string_protein_id", "protein_external_id")
                or "preferred_name" not in fields
            ):
                raise KnowledgeError(
                    f"{path}: the first line is '{line[:100]}'; protein.info of STRING begins with "
                    "'#string_protein_id', a tab, and 'preferred_name'."
                )
            column, width = fields.index("preferred_name"), len(fields)
        elif len(fields) != width or not fields[column]:
            problems.add(number, f"{len(fields)} fields instead of {width}, or no preferred name: '{line[:80]}'.")
        elif fields[0] in preferred:
            problems.add(number, f"protein {fields[0]} is there twice.")
        else:
            preferred[fields[0]] = fields[column]
    problems.refuse()
    taxa = sorted({name.partition(".")[0] for name in preferred})
    if len(taxa) != 1 or not taxa[0].isdigit():
        raise KnowledgeError(f"{path}: proteins of the taxa {capped(taxa)}; one file holds one, as '9606.ENSP...'.")
    return Proteins(preferred, taxa[0])


def read_aliases(path: str | Path) -> Iterable[tuple[str, str, frozenset[str]]]:
    """(protein, alias, {"alias", "previous"}) of STRING's `protein.aliases` where a source gives gene symbols.

    Both layouts are read: several sources in one field (v11), one source a row (v12). Raises KnowledgeError by line.
    """
    path = checked(path)
    problems = Problems(path)
    kinds: dict[str, frozenset[str]] = {}
    for number, line in lines(path):
        fields = line.split("\t")
        if number == 1:
            if [f.lstrip("#").strip() for f in fields] != ["string_protein_id", "alias", "source"]:
                raise KnowledgeError(
                    f"{path}: the first line is '{line[:100]}'; protein.aliases of STRING begins with "
                    "'#string_protein_id', 'alias', 'source', separated by tabs."
                )
        elif len(fields) != 3:
            problems.add(number, f"{len(fields)} fields instead of 3: '{line[:80]}'.")
        else:
            if fields[2] not in kinds:
                kinds[fields[2]] = frozenset(filter(None, map(_kind, fields[2].split())))
            if kinds[fields[2]]:
                yield fields[0], fields[1], kinds[fields[2]]
    problems.refuse()


def resolve(
    symbols: Sequence[str],
    info: Proteins,
    aliases: str | Path | None = None,
    *,
    ambiguous: Ambiguous = "isolate",
) -> Resolution:
    """Each symbol by the first that knows it: preferred names, aliases, previous symbols; capitals do not matter.

    ambiguous  a symbol that stands for several genes at that place: "isolate" leaves it without edges and lists it,
               "all" takes all of them, "refuse" raises KnowledgeError with all such symbols
    """
    wanted = {symbol.casefold() for symbol in symbols}
    named: dict[str, set[str]] = defaultdict(set)
    for protein, name in info.preferred.items():
        if name.casefold() in wanted:
            named[name.casefold()].add(protein)
    places: dict[str, dict[str, set[str]]] = {
        "preferred": named,
        "alias": defaultdict(set),
        "previous": defaultdict(set),
    }
    left = wanted - set(named)
    if aliases is not None and left:
        for protein, alias, kinds in read_aliases(aliases):
            if alias.casefold() in left and protein in info.preferred:
                for kind in kinds:
                    places[kind][alias.casefold()].add(protein)
    proteins: dict[str, tuple[str, ...]] = {}
    key: dict[str, str] = {}
    how: dict[str, str] = {}
    torn: dict[str, tuple[str, ...]] = {}
    missing = []
    for symbol in dict.fromkeys(symbols):
        place = next((p for p in HOW if symbol.casefold() in places[p]), None)
        if place is None:
            missing.append(symbol)
            continue
        own = sorted(places[place][symbol.casefold()])
        names = tuple(sorted({info.preferred[p] for p in own}))
        if len(names) > 1:
            torn[symbol] = names
            if ambiguous != "all":
                continue
        proteins[symbol], key[symbol], how[symbol] = tuple(own), "|".join(names), place
    if torn and ambiguous == "refuse":
        said = [f"{symbol} ({', '.join(names)})" for symbol, names in torn.items()]
        raise KnowledgeError(f"{len(torn)} symbols stand for several genes: {capped(said)}.")
    return Resolution(proteins, key, how, torn, tuple(missing))


def other_names(resolution: Resolution, info: Proteins, aliases: str | Path | None) -> dict[str, tuple[str, ...]]:
    """Every name of each resolved symbol's gene, preferred first: what another database may call it."""
    found = {s: [info.preferred[p] for p in own] for s, own in resolution.proteins.items() if len(own) == 1}
    if aliases is not None:
        symbol_of = defaultdict(list)
        for symbol in found:
            symbol_of[resolution.proteins[symbol][0]].append(symbol)
        for protein, alias, _ in read_aliases(aliases):
            for symbol in symbol_of.get(protein, ()):
                found[symbol].append(alias)
    return {symbol: tuple(dict.fromkeys(names)) for symbol, names in found.items()}


def _kind(source: str) -> str:
    if _PREVIOUS.search(source):
        return "previous"
    return "alias" if _SYMBOL.search(source) else ""
