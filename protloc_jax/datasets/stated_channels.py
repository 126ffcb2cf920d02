"""What image files call their channels, held against the names that the user gave them in order."""

from __future__ import annotations

from collections.abc import Sequence

from protloc_jax.channels import ALIASES
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.gathered import Gathered
from protloc_jax.datasets.problems import Problems
from protloc_jax.datasets.row_images import Seen


def compare_channels(config: FolderConfig, found: Gathered, seen: Sequence[Seen | None], problems: Problems) -> None:
    """Report files whose own channel names say another order than the names given; note names that say nothing.

    Names are compared without case, spaces and signs, and by the role they usually stand for (DAPI: nucleus). Only a
    name that belongs to another of the given channels is a problem: files may well call things otherwise.
    """
    channels = config.channel_set
    noted: dict[tuple[str, ...], int] = {}
    for row, one in zip(found.rows, seen, strict=True):
        if one is None or len(one.channel_names) != len(channels):
            continue
        wrong = []
        for position, stated in enumerate(one.channel_names):
            fits = [i for i, channel in enumerate(channels) if _same(stated, channel.name, channel.role)]
            if len(fits) == 1 and fits[0] != position:
                wrong.append(f"'{stated}' stands where '{channels[position].name}' is named")
        if wrong:
            problems.add("channel order", f"{row}: {', '.join(wrong)} (the file has {', '.join(one.channel_names)})")
        elif any(_plain(a) != _plain(b.name) for a, b in zip(one.channel_names, channels, strict=True)):
            noted[one.channel_names] = noted.get(one.channel_names, 0) + 1
    for names, count in sorted(noted.items(), key=lambda item: -item[1])[:3]:
        found.notes.append(
            f"{count} file(s) call their channels {', '.join(names)}; read as {', '.join(channels.names)}."
        )


def _same(stated: str, name: str, role: str) -> bool:
    word = _plain(stated)
    return word == _plain(name) or word == _plain(role) or ALIASES.get(word) == role


def _plain(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
