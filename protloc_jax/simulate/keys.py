"""Addressed randomness: every draw comes from a Philox generator made from a name, never from one long stream."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *address: object) -> np.random.Generator:
    """Return the generator that belongs to one address, for example (seed, domain, plate, well, site, channel).

    The address is hashed (BLAKE2b, 128 bit) to the Philox key, so equal addresses give equal draws on any worker and in
    any order, and different addresses give independent ones.
    """
    text = "\x1f".join([str(int(seed)), *(str(part) for part in address)])
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
