"""`protloc data simulate-knowledge`: networks, targets and expression about a simulated screen, in the real formats."""

from __future__ import annotations

import argparse
from typing import Any

from protloc_jax import config as configs
from protloc_jax.cli.options import add_fields, given

EXAMPLES = """examples:
  a simulated screen as raw files, and what is known about it:
    protloc data simulate rxrx1 --layout raw --n-compounds 48 --out raw/
    protloc data simulate-knowledge --about raw/ --out knowledge/
  a perfect network, to see what a method can gain at best:
    protloc data simulate-knowledge --about raw/ --truth --out knowledge_truth/
  without any images:
    protloc data simulate-knowledge --preset rxrx1 --n-compounds 1108 --seed 3 --coverage 0.8 --out knowledge/
then: protloc knowledge graph string ... --targets knowledge/sirna_to_targets.csv --out w.npz, and, for how much of the
truth it holds: protloc knowledge graph stats w.npz --groups knowledge/pathways.csv --group-column pathway
"""


def add(jobs: Any) -> None:
    """Add the sub-command."""
    from protloc_jax.simulate import SimConfig
    from protloc_jax.simulate.knowledge_config import KnowledgeConfig

    parser = jobs.add_parser(
        "simulate-knowledge",
        help="invented STRING, Hetionet, siRNA targets and expression about a simulated screen, in the real formats",
        description="Write invented knowledge about a simulated screen (rxrx1, rxrx19a) in the layouts of the real "
        "files, as faithful to the screen's pathways as is asked for. pathways.csv is the truth.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the files")
    parser.add_argument("--about", metavar="DIR", help="a folder of simulated raw files or records: that very screen")
    add_fields(parser.add_argument_group("the screen, where --about names none"), SimConfig)  # type: ignore[arg-type]
    add_fields(parser.add_argument_group("fidelity"), KnowledgeConfig)  # type: ignore[arg-type]


def run(args: argparse.Namespace) -> int:
    """Write the files and say what they hold; returns the exit status."""
    from protloc_jax.datasets.knowledge_writer import simulated_config, write_knowledge
    from protloc_jax.simulate import SimConfig
    from protloc_jax.simulate.knowledge_config import KnowledgeConfig
    from protloc_jax.simulate.knowledge_network import network_of

    knowledge = configs.from_mapping(KnowledgeConfig, given(args, KnowledgeConfig))
    own = given(args, SimConfig)
    if args.about and own:
        shown = ", ".join("--" + name.replace("_", "-") for name in own)
        raise configs.ConfigError(f"{shown}: --about says which screen; give either.")
    config = simulated_config(args.about) if args.about else configs.from_mapping(SimConfig, own)
    written = write_knowledge(config, knowledge, args.out)
    net = network_of(config, knowledge)
    counts = ", ".join(f"{len(pairs):,} {name}" for name, pairs in net.hetionet.items())
    print(
        f"{args.out}: synthetic knowledge about {len(net.targets):,} perturbations and {len(net.genes):,} genes in "
        f"{len(written)} files: {len(net.string[0]):,} STRING pairs, {counts}."
    )
    return 0
