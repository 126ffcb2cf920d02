"""Remote files are staged: copied once to a folder of this machine, whole and verified, and read from there."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protloc_jax.data.durable import move_into_place, sha256, size_text, sync_file, write_whole
from protloc_jax.data.packing_progress import Progress
from protloc_jax.datasets.addresses import PROTOCOLS, check_address, scheme_of
from protloc_jax.datasets.problems import DatasetError

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_VERSION_KEYS = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "LastModified",
    "Last-Modified",
    "mtime",
    "updated",
    "created",
)


class StagingError(DatasetError):
    """A remote file could not be fetched; the message names its address."""


def default_folder() -> Path:
    """Where copies lie unless another folder is asked for: the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "protloc_jax" / "staged"


@dataclass(frozen=True)
class Store:
    """The folder of local copies.

    limit      most bytes that the folder may hold, other data sets' copies included
    anonymous  public buckets are read without credentials (s3, gs)
    attempts   tries a file; between them a random wait whose upper end doubles from half a second to 30 seconds
    """

    folder: Path
    limit: int
    anonymous: bool = False
    attempts: int = 5
    sleep: Callable[[float], None] = time.sleep
    random: random.Random = field(default_factory=random.Random)

    def place(self, address: str) -> Path:
        """Where the copy of an address lies. The name keeps the file's own name, made harmless."""
        digest = hashlib.sha256(address.encode()).hexdigest()[:32]
        name = re.sub(r"[^A-Za-z0-9._-]", "_", address.rsplit("/", 1)[-1].split("?", 1)[0])[-120:].lstrip(".")
        return self.folder / digest[:2] / digest / (name or "file")


def stage(
    addresses: Iterable[str], store: Store, *, workers: int = 16, progress: bool = False
) -> dict[str, Path | OSError | StagingError]:
    """Local copies of remote files, by address; an error in place of the path where a file could not be had.

    Copies of an earlier call are used again when the remote file's size and version (ETag, time) are still those, and
    the copy's SHA-256 is what it was. A copy is written aside and renamed once its size, and its MD5 where the store
    states one (Google Storage, Content-MD5), agree: an interrupted call leaves only whole files and goes on from there.

    Raises DatasetError before anything is fetched when all would not fit into the limit, or a package is missing;
    OSError (ENOSPC) when the disk has no room.
    """
    wanted = [check_address(a) for a in dict.fromkeys(addresses)]
    if not wanted:
        return {}
    systems = {scheme: _file_system(scheme, store.anonymous) for scheme in sorted({scheme_of(a) for a in wanted})}
    found: dict[str, Path | OSError | StagingError] = {}
    with ThreadPoolExecutor(max(1, min(workers, len(wanted)))) as pool:
        with Progress(progress, "asking for sizes", 0, len(wanted)) as bar:
            abouts: dict[str, dict[str, Any]] = {}
            for address, about in zip(wanted, pool.map(lambda a: _about(a, systems, store), wanted), strict=True):
                if isinstance(about, dict):
                    abouts[address] = about
                else:
                    found[address] = about
                bar.advance(1)
        with Progress(progress, "checking copies", 0, len(abouts)) as bar:
            for address, whole in zip(abouts, pool.map(lambda a: _is_whole(a, abouts[a], store), abouts), strict=True):
                if whole:
                    found[address] = store.place(address)
                bar.advance(1)
        missing = [a for a in abouts if a not in found]
        budget = _room(missing, abouts, store)
        with Progress(progress, "fetching files", 0, len(missing)) as bar:
            fetched = pool.map(lambda a: _fetch(a, abouts[a], systems, store, budget), missing)
            for address, result in zip(missing, fetched, strict=True):
                found[address] = result
                bar.advance(1)
    return {address: found[address] for address in wanted}


def stage_one(address: str, store: Store, *, progress: bool = False) -> Path:
    """The local copy of one remote file. Raises FileNotFoundError or StagingError naming the address."""
    (result,) = stage([address], store, progress=progress).values()
    if isinstance(result, Path):
        return result
    raise result


def list_names(folder: str, store: Store, suffixes: Sequence[str]) -> tuple[list[str], int]:
    """Names of the files below a remote folder that end in one of `suffixes`, sorted, and the number of others."""
    folder = check_address(folder)
    scheme = scheme_of(folder)
    if scheme in ("http", "https"):
        raise DatasetError(f"{folder}: a web server's folders cannot be listed; give a table with the addresses.")
    system = _file_system(scheme, store.anonymous)
    base = _inner(system, folder).rstrip("/") + "/"
    listed = _tried(lambda: system.find(base), folder, store)
    if isinstance(listed, FileNotFoundError | StagingError):
        raise listed
    names = [str(path)[len(base) :] for path in listed if str(path).startswith(base)]
    if not names:
        raise FileNotFoundError(f"{folder}: no such folder, or it is empty.")
    images = sorted(name for name in names if name.lower().endswith(tuple(suffixes)))
    return images, len(names) - len(images)


class _Budget:
    """Bytes that may still be fetched; shared by the threads."""

    def __init__(self, left: int, limit: int):
        self.left, self.limit = left, limit
        self.lock = threading.Lock()

    def take(self, count: int) -> None:
        with self.lock:
            self.left -= count
            if self.left < 0:
                raise StagingError(
                    f"the copies would grow beyond the limit of {size_text(self.limit)} (stage_limit_gb)."
                )

    def give_back(self, count: int) -> None:
        with self.lock:
            self.left += count


def _file_system(scheme: str, anonymous: bool) -> Any:
    import fsspec

    options: dict[str, Any] = {}
    if anonymous and PROTOCOLS[scheme] == "s3fs":
        options["anon"] = True
    elif anonymous and PROTOCOLS[scheme] == "gcsfs":
        options["token"] = "anon"
    try:
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise DatasetError(
            f"{scheme}:// needs the package {PROTOCOLS[scheme]}: pip install 'protloc-jax[remote]', or "
            f"pip install {PROTOCOLS[scheme]} ({error})."
        ) from error


def _inner(system: Any, address: str) -> str:
    return str(system._strip_protocol(address))


def _about(address: str, systems: dict[str, Any], store: Store) -> dict[str, Any] | OSError | StagingError:
    """What the store says of a file: {"size": bytes or None, "version": text, "md5": hex or ''}."""
    system = systems[scheme_of(address)]
    info = _tried(lambda: system.info(_inner(system, address)), address, store)
    if isinstance(info, FileNotFoundError | StagingError):
        return info
    if info.get("type") == "directory":
        return StagingError(f"{address} is a folder.")
    stated = info.get("md5Hash") or info.get("Content-MD5")
    version = {key: str(info[key]) for key in _VERSION_KEYS if info.get(key) is not None}
    return {
        "address": address,
        "size": info.get("size"),
        "version": json.dumps(version),
        "md5": base64.b64decode(stated).hex() if isinstance(stated, str) else "",
    }


def _is_whole(address: str, about: dict[str, Any], store: Store) -> bool:
    path = store.place(address)
    try:
        kept = json.loads(path.with_name("about.json").read_text())
        same = kept["address"] == address and kept["version"] == about["version"] and kept["size"] == about["size"]
        return same and path.stat().st_size == kept["bytes"] and sha256(path) == kept["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _room(missing: list[str], abouts: dict[str, dict[str, Any]], store: Store) -> _Budget:
    needed = sum(abouts[a]["size"] or 0 for a in missing)
    held = sum(
        os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(store.folder) for name in names
    )
    if needed + held > store.limit:
        raise DatasetError(
            f"{len(missing)} remote files of {size_text(needed)} are to be copied to {store.folder}, which holds "
            f"{size_text(held)}; its limit is {size_text(store.limit)} (stage_limit_gb). Raise it, delete what is not "
            "needed there, or take fewer rows (where)."
        )
    if missing:
        store.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(store.folder).free
        if free < needed:
            raise OSError(
                errno.ENOSPC, f"remote files of {size_text(needed)}, {size_text(free)} are free", str(store.folder)
            )
    return _Budget(store.limit - held, store.limit)


def _fetch(
    address: str, about: dict[str, Any], systems: dict[str, Any], store: Store, budget: _Budget
) -> Path | OSError | StagingError:
    path = store.place(address)
    result = _tried(lambda: _copy(address, about, systems[scheme_of(address)], path, budget), address, store)
    return result if isinstance(result, FileNotFoundError | StagingError) else path


def _copy(address: str, about: dict[str, Any], system: Any, path: Path, budget: _Budget) -> None:
    """One attempt. Raises _Differs when what arrived is not what was promised."""
    from fsspec.callbacks import Callback

    class Meter(Callback):
        def relative_update(self, inc: int = 1) -> None:
            taken[0] += inc
            budget.take(inc)
            if about["size"] is not None and taken[0] > about["size"]:
                raise _Differs(f"more than the {about['size']:,} bytes that the store states")

    taken = [0]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        system.get_file(_inner(system, address), str(temporary), callback=Meter())
        size = temporary.stat().st_size
        if about["size"] is not None and size != about["size"]:
            raise _Differs(f"{size:,} of {about['size']:,} bytes arrived")
        if about["md5"]:
            with temporary.open("rb") as file:
                if hashlib.file_digest(file, "md5").hexdigest() != about["md5"]:
                    raise _Differs("its MD5 is not the one that the store states")
        digest = sha256(temporary)
        sync_file(temporary)
        with_bytes = {**about, "bytes": size, "sha256": digest}
        path.with_name("about.json").unlink(missing_ok=True)
        move_into_place(temporary, path)
        write_whole(path.with_name("about.json"), json.dumps(with_bytes).encode())
    except BaseException:
        temporary.unlink(missing_ok=True)
        budget.give_back(taken[0])
        raise


class _Differs(OSError):
    """The bytes that arrived are not those promised."""


def _tried(act: Callable[[], Any], address: str, store: Store) -> Any | FileNotFoundError | StagingError:
    """The result of `act`, tried again after passing errors; the last error otherwise, with the address in it."""
    for attempt in range(store.attempts):
        try:
            return act()
        except (StagingError, ImportError):
            raise
        except Exception as error:  # each store's client has errors of its own
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            if not passing(error):
                missing = isinstance(error, FileNotFoundError)
                text = f"no file {address}." if missing else f"{address}: {type(error).__name__}: {error}"
                return FileNotFoundError(text) if missing else StagingError(text)
            if attempt + 1 == store.attempts:
                return StagingError(f"{address}: {error or type(error).__name__} (after {store.attempts} tries).")
            store.sleep(store.random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt)))
    raise AssertionError("unreachable")


def passing(error: BaseException) -> bool:
    """An error that may be gone at the next try: connections, time-outs, overload (429), servers' faults (5xx)."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError):  # fsspec says this of any HTTP failure; the cause knows better
        return cause is not None and not isinstance(cause, FileNotFoundError) and passing(cause)
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status in (408, 425, 429) or status >= 500
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    return isinstance(error, OSError | TimeoutError) or type(error).__module__.split(".")[0] in ("aiohttp", "botocore")
