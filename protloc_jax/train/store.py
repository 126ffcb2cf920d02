"""Checkpoints in an object store: whole step folders, complete when their marker is there.

    <address>/<step>/...           the files of the local step folder, under the same names
    <address>/<step>.complete      JSON, written last and removed first: size and SHA-256 of every file, score, seal

fsspec speaks to the store (gcsfs, s3fs); this file knows what is a complete copy and how often to try.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from protloc_jax.train.addresses import SCHEMES, scheme_of
from protloc_jax.train.checkpoint import StorageFailed
from protloc_jax.train.checkpoint_files import META_FILE, META_ITEM

T = TypeVar("T")
MARKER = ".complete"
ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
_CHUNK = 1 << 20


class StoreFailed(StorageFailed):
    """The object store did not do as asked, several times in a row; the message names address, task and error."""


class Copy(NamedTuple):
    """What a marker says of a step's copy: bytes and SHA-256 of each file, the seal of its record, the score."""

    files: dict[str, tuple[int, str]]
    seal: str
    score: float | None


class Store:
    """Step folders under one address. Every call tries `attempts` times, with pauses that double and jitter.

    fs: an fsspec file system; root: the path in it. Raises StoreFailed after the last attempt.
    """

    def __init__(
        self,
        fs: Any,
        root: str,
        *,
        address: str = "",
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.fs, self.root, self.address = fs, root.rstrip("/"), address or root
        self._attempts, self._sleep = attempts, sleep

    def steps(self) -> list[int]:
        """Steps with a complete copy, ascending."""
        names = self._retried("list", self._names)
        return sorted(int(name.removesuffix(MARKER)) for name in names if _is_marker(name))

    def read(self, step: int) -> Copy | None:
        """The marker of a step, None where there is none or it does not parse."""

        def read() -> Copy | None:
            try:
                found = json.loads(self.fs.cat_file(self._marker(step)))
                files = {str(k): (int(size), str(digest)) for k, (size, digest) in found["files"].items()}
                return Copy(files, str(found["seal"]), found["score"])
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError, AttributeError):
                return None

        return self._retried(f"read the marker of step {step}", read)

    def put(self, step: int, folder: Path, *, score: float | None = None) -> None:
        """Copy a complete local step folder: an older marker goes first, the new one comes last."""
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        self._retried(f"replace step {step}", lambda: self._drop(self._marker(step)))
        # Left-overs of an upload that was cut off, which this one may not overwrite.
        for name in self._retried(f"list step {step}", lambda: self._inside(step)):
            if name not in names:
                self._retried(f"remove {name}", lambda name=name: self._drop(f"{self._folder(step)}/{name}"))
        files = {}
        for name in names:
            path = folder / name
            files[name] = (path.stat().st_size, digest_of(path))
            target = f"{self._folder(step)}/{name}"
            self._retried(f"write {target}", lambda p=path, t=target: self._upload(p, t))
        marker = Copy(files, seal_of(folder), score)._asdict()
        text = json.dumps(marker, sort_keys=True).encode()
        self._retried(f"write the marker of step {step}", lambda: self.fs.pipe_file(self._marker(step), text))

    def get(self, step: int, folder: Path) -> str:
        """Fetch a complete copy into an empty local folder; "" when every file is as its marker says, else what is
        wrong."""
        copy = self.read(step)
        if copy is None:
            return "its marker is gone or does not parse"
        for name, (size, digest) in copy.files.items():
            path = folder / name
            if not path.resolve().is_relative_to(folder.resolve()):
                return f"its marker names {name}, which is outside the step"
            path.parent.mkdir(parents=True, exist_ok=True)
            source = f"{self._folder(step)}/{name}"
            if not self._retried(f"read {source}", lambda s=source, p=path: self._download(s, p)):
                return f"{name} is missing"
            if path.stat().st_size != size or digest_of(path) != digest:
                return f"{name} is not as it was written (size or SHA-256)"
        return ""

    def remove(self, step: int) -> None:
        """Remove a copy; a reader never sees half of one."""
        self._retried(f"remove step {step}", lambda: self._drop(self._marker(step)))
        self._retried(f"remove step {step}", lambda: self._drop(self._folder(step)))

    def _names(self) -> list[str]:
        try:
            found = self.fs.ls(self.root, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in found]

    def _inside(self, step: int) -> list[str]:
        folder = self._folder(step)
        try:
            found = self.fs.find(folder, refresh=True)
        except FileNotFoundError:
            return []
        # Some file systems give paths from the root where this one was asked with a shorter name.
        return [str(path).split(f"{folder}/", 1)[-1] for path in found]

    def _upload(self, path: Path, target: str) -> None:
        self.fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        self.fs.put_file(str(path), target)

    def _download(self, source: str, path: Path) -> bool:
        try:
            self.fs.get_file(source, str(path))
        except FileNotFoundError:
            return False
        return True

    def _drop(self, path: str) -> None:
        try:
            self.fs.rm(path, recursive=True)
        except FileNotFoundError:
            pass
        finally:
            self.fs.invalidate_cache()

    def _folder(self, step: int) -> str:
        return f"{self.root}/{step}"

    def _marker(self, step: int) -> str:
        return f"{self.root}/{step}{MARKER}"

    def _retried(self, task: str, do: Callable[[], T]) -> T:
        """What `do` returns. Clients raise many types for a 429, a 503 or a lost connection; each is tried again."""
        pause = FIRST_PAUSE
        for attempt in range(1, self._attempts + 1):
            try:
                return do()
            except Exception as error:
                if attempt == self._attempts:
                    reason = str(error).strip().splitlines() or [type(error).__name__]
                    raise StoreFailed(
                        f"{self.address}: could not {task} in {attempt} attempts: {reason[0][:300]}"
                    ) from error
            # Full jitter: many processes that failed together must not come back together.
            self._sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("unreachable")


def open_store(address: str) -> Store:
    """The store at an address that `addresses.store_problems` has nothing against.

    Raises ValueError naming what to install, or what the client says of credentials and address.
    """
    import fsspec

    package = SCHEMES[scheme_of(address)]
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"run.checkpoints={address} needs {package}, which is not installed: pip install 'protloc-jax[remote]'."
        )
    try:
        fs, root = fsspec.core.url_to_fs(address)
    except Exception as error:
        raise ValueError(f"run.checkpoints={address}: {error}") from error
    return Store(fs, root, address=address)


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def seal_of(folder: Path) -> str:
    """What tells a checkpoint from another of the same step: the digest of its sealed record."""
    return digest_of(folder / META_ITEM / META_FILE)


def _is_marker(name: str) -> bool:
    return name.endswith(MARKER) and name.removesuffix(MARKER).isdecimal()
