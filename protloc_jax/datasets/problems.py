"""Collecting everything that is wrong with a data set, so that one run names it all."""

from __future__ import annotations

from collections.abc import Iterable

from protloc_jax.config import ConfigError

_SHOWN_OF_A_KIND = 6


class DatasetError(ConfigError):
    """A data set was refused; the message lists every kind of problem with files and rows."""


class Problems:
    """Problems by kind, in order of arrival; long kinds are cut in the message and counted."""

    def __init__(self) -> None:
        self.kinds: dict[str, list[str]] = {}
        self.rows: dict[int, list[str]] = {}

    def add(self, kind: str, text: str, row: int | None = None) -> None:
        """Add a problem; with `row`, also one of that row, which `forgive` can take back."""
        self.kinds.setdefault(kind, []).append(text)
        if row is not None:
            self.rows.setdefault(row, []).append(text)

    def forgive(self, kinds: Iterable[str]) -> dict[int, list[str]]:
        """Take back the problems of some kinds that belong to rows; returns them by row."""
        forgiven: dict[int, list[str]] = {}
        for kind in kinds:
            texts = set(self.kinds.get(kind, []))
            for row, own in self.rows.items():
                found = [text for text in own if text in texts]
                if found:
                    forgiven.setdefault(row, []).extend(found)
                    texts -= set(found)
            self.kinds[kind] = [text for text in self.kinds.get(kind, []) if text in texts]
            if not self.kinds[kind]:
                del self.kinds[kind]
        return dict(sorted(forgiven.items()))

    def extend(self, kind: str, texts: Iterable[str]) -> None:
        for text in texts:
            self.add(kind, text)

    def __bool__(self) -> bool:
        return bool(self.kinds)

    def __len__(self) -> int:
        return sum(map(len, self.kinds.values()))

    def message(self, title: str) -> str:
        lines = [f"{title}: {len(self)} problem{'s' * (len(self) > 1)}."]
        for kind, texts in self.kinds.items():
            lines.append(f"  {kind} ({len(texts)}):")
            lines += [f"    {text}" for text in texts[:_SHOWN_OF_A_KIND]]
            if len(texts) > _SHOWN_OF_A_KIND:
                lines.append(f"    ... and {len(texts) - _SHOWN_OF_A_KIND} more")
        return "\n".join(lines)

    def check(self, title: str) -> None:
        """Raise DatasetError when anything was added."""
        if self:
            raise DatasetError(self.message(title))
