"""Records as one room: `write` packs them, `open` reads them, `verify` checks every byte."""

from __future__ import annotations

from protloc_jax.data.info import RecordsError, RecordsInfo, Shard
from protloc_jax.data.read import Records, open
from protloc_jax.data.verify import Report, verify
from protloc_jax.data.write import write

__all__ = ["Records", "RecordsError", "RecordsInfo", "Report", "Shard", "open", "verify", "write"]
