"""File-name patterns such as `{plate}_{well}_{channel}.png`: read fields out of names, or make names from fields.

`{site:int}` is a field of digits, which becomes a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from protloc_jax.config import nearest
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.images import VENDOR_MAGIC

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".zarr", *VENDOR_MAGIC)
_ANY_SUFFIX = rf"(?i:(?:\.ome)?(?:{'|'.join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)}))"
_FIELD = re.compile(r"\{([^{}]*)\}")
_KINDS = ("", "int")


def fields_of(pattern: str) -> tuple[str, ...]:
    """The field names of a pattern, in order. Raises DatasetError for a malformed one."""
    return tuple(name for name, _ in _kinds_of(pattern))


def _kinds_of(pattern: str) -> list[tuple[str, str]]:
    """(name, kind) of the fields of a pattern, in order."""
    fields = [field.partition(":")[::2] for field in _FIELD.findall(pattern)]
    rest = _FIELD.sub("", pattern)
    if "{" in rest or "}" in rest or not all(name for name, _ in fields):
        raise DatasetError(f"pattern '{pattern}': write fields as {{name}}, for example '{{id}}_{{channel}}.png'.")
    unknown = [f"'{{{name}:{kind}}}'" for name, kind in fields if kind not in _KINDS]
    if unknown:
        raise DatasetError(
            f"pattern '{pattern}': {', '.join(unknown)}: the only kind of field is int, as {{site:int}}."
        )
    return fields


class NamePattern:
    """Reads the fields out of file names.

    `{channel}` matches one of `tokens` only, `{name:int}` digits; every other field matches any characters but '/', as
    few as possible. A pattern without '/' is compared with the bare file name, otherwise with the path below the root.
    A pattern without an image suffix matches all of them.
    """

    def __init__(self, pattern: str, tokens: Sequence[str]):
        kinds = _kinds_of(pattern)
        names = tuple(name for name, _ in kinds)
        repeated = sorted({n for n in names if names.count(n) > 1})
        bad = [n for n in names if not n.isidentifier()]
        if repeated or bad:
            raise DatasetError(f"pattern '{pattern}': repeated or unusable field names: {', '.join(repeated + bad)}.")
        if not names:
            raise DatasetError(f"pattern '{pattern}' has no field; write for example '{{id}}_{{channel}}.png'.")
        self.pattern, self.fields = pattern, names
        self.numbers = tuple(name for name, kind in kinds if kind == "int" and name != "channel")
        self.whole_path = "/" in pattern
        parts = _FIELD.split(pattern)
        text = ""
        for i, part in enumerate(parts):
            part = part.partition(":")[0] if i % 2 else part
            if i % 2 == 0:
                text += re.escape(part)
            elif part in self.numbers:
                text += f"(?P<{part}>[0-9]+)"
            elif part == "channel":
                text += f"(?P<channel>{'|'.join(re.escape(t) for t in sorted(tokens, key=len, reverse=True))})"
            else:
                text += f"(?P<{part}>[^/]+?)"
        if not pattern.lower().endswith(IMAGE_SUFFIXES):
            text += _ANY_SUFFIX
        self._regex = re.compile(text)

    def match(self, relative: str) -> dict[str, str] | None:
        """Fields of a path below the root, or None where the name does not fit."""
        found = self._regex.fullmatch(relative if self.whole_path else relative.rsplit("/", 1)[-1])
        return found.groupdict() if found else None

    def identity(self, relative: str, fields: Mapping[str, str]) -> str:
        """What tells one image from another: the folder, and `{id}` or else all fields but the channel."""
        own = fields["id"] if "id" in fields else "_".join(fields[n] for n in self.fields if n != "channel")
        folder = "" if self.whole_path or "/" not in relative else relative.rsplit("/", 1)[0] + "/"
        return folder + own


def stem(name: str) -> str:
    """A file name without its suffix, `.ome.tif` and `.ome.zarr` being one."""
    base, _, suffix = name.rpartition(".")
    if suffix.lower() in ("tif", "tiff", "zarr") and base.lower().endswith(".ome"):
        base = base[: -len(".ome")]
    return base or name


def fill(pattern: str, values: Mapping[str, object]) -> str:
    """A name made from a pattern. Raises DatasetError naming an unknown field with the nearest."""
    unknown = [f"'{n}'{nearest(n, values)}" for n in fields_of(pattern) if n not in values]
    if unknown:
        raise DatasetError(f"pattern '{pattern}': no such column: {', '.join(unknown)}")
    return _FIELD.sub(lambda found: str(values[found.group(1).partition(":")[0]]), pattern)
