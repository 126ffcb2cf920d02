"""Bulk expression of simulated cell lines: counts that follow how a line looks and how strongly it answers.

Genes, baselines and loadings are invented. What is true is the latent vector of a line: the state in which its
untreated cells differ (`morphology.LINE_STATES`) and its gain along each parameter (`perturbations.line_gain`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.knowledge_config import KnowledgeConfig
from protloc_jax.simulate.morphology import COUNT, LINE_STATES, vector
from protloc_jax.simulate.perturbations import GAIN_SPREAD, line_gain

READS = 2e6  # of a library
LOADED = 4  # latent dimensions that an informative gene follows
STRENGTH = 0.5  # log units of expression a unit of the latent vector, over LOADED dimensions
DISPERSION = 0.05  # of the negative binomial counts: their variance is mean + DISPERSION mean^2
STATE_TERMS = 5  # parameters in which an unrelated line differs


def line_names(config: SimConfig, knowledge: KnowledgeConfig) -> tuple[str, ...]:
    """The lines of the table: all of the screen's preset, then unrelated ones."""
    own = tuple(config.screen.cell_lines)
    more = range(1, knowledge.expression_lines - len(own) + 1)
    return (*own, *(f"UNRELATED-{number:02d}" for number in more))


def latent(config: SimConfig, line: str) -> np.ndarray:
    """The truth of a cell line [2 P]: its state, and its log gains in units of their spread."""
    if line in LINE_STATES:
        state = vector(LINE_STATES[line])
    else:
        rng = generator(config.seed, config.preset, "line state", line)
        state = np.zeros(COUNT)
        state[rng.choice(COUNT, STATE_TERMS, replace=False)] = rng.normal(0, 0.7, STATE_TERMS)
    return np.concatenate([state, np.log(line_gain(config, line)) / GAIN_SPREAD])


def expression_table(config: SimConfig, knowledge: KnowledgeConfig, symbols: tuple[str, ...]) -> pd.DataFrame:
    """Counts, one row a gene: `gene`, then a column of whole numbers a cell line.

    symbols  genes that come first (those of the network), up to `expression_genes`; the rest is invented for the table
    """
    lines = line_names(config, knowledge)
    rng = generator(knowledge.network_seed, config.preset, config.seed, "knowledge", "expression")
    n = knowledge.expression_genes
    names = [*symbols[:n], *(f"SIME{number:04d}" for number in range(1, n - len(symbols) + 1))]
    truth = np.stack([latent(config, line) for line in lines], axis=1)
    loading = np.zeros((n, len(truth)))
    for gene in rng.permutation(n)[: round(knowledge.informative * n)].tolist():
        places = rng.choice(len(truth), LOADED, replace=False)
        loading[gene, places] = rng.normal(0, STRENGTH, LOADED)
    level = rng.normal(0, 1.5, (n, 1)) + loading @ truth
    depth = READS * np.exp(rng.normal(0, 0.2, len(lines)))
    mean = np.exp(level) / np.exp(level).sum(axis=0) * depth
    counts = rng.poisson(rng.gamma(1 / DISPERSION, mean * DISPERSION))
    return pd.DataFrame({"gene": names, **{line: counts[:, at] for at, line in enumerate(lines)}})
