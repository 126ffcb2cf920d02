"""A fixture for files whose steps take no time: every checkpoint is waited for."""

from __future__ import annotations

import pytest

from protloc_jax.train.checkpoint import Checkpointer


def save_at_once(patch):
    """Have every save waited for."""
    save = Checkpointer.save
    patch.setattr(Checkpointer, "save", lambda *args, **options: save(*args, **{**options, "wait": True}))


@pytest.fixture(autouse=True)
def saved_at_once(monkeypatch):
    """Steps of no length would overtake the writing of checkpoints, and these tests count them."""
    save_at_once(monkeypatch)
