"""The list of damaged records of a run, for people and for the next packing.

    quarantine/process-0.csv   one line each time a damaged record was met, by the process that met it
    quarantine.csv             one line a damaged record, made of all of these by process 0

A line of the first kind is a pure function of the example it belongs to. The second counts distinct ones, so it does
not matter how often a run was killed and went back, or by how many processes it was continued. Reading is a few batches
ahead of training, and what it met there is listed too.
"""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from protloc_jax.data.damage import NOTHING, Met, Role
from protloc_jax.data.durable import write_whole
from protloc_jax.data.manifest import Manifest
from protloc_jax.data.read import ShardReader

FILE = "quarantine.csv"
FOLDER = "quarantine"
COLUMNS = ("id", "row", "shard", "position", "reason", "first_example", "times_met")
SECONDS_BETWEEN_MERGES = 10.0
_log = logging.getLogger(__name__)


class Quarantine:
    """Notes the damaged records that one process meets; process 0 puts everybody's together.

    out        run directory, shared by all processes
    identity   names the records and the choice of examples; lines of another identity are discarded
    process    (this one, of how many)
    start      examples consumed before; 0 discards the lines of an earlier run

    A file that cannot be written is warned about (`logging`) and tried again, never a reason to stop.
    """

    def __init__(
        self,
        out: Path,
        shards: ShardReader,
        manifest: Manifest,
        *,
        identity: str,
        process: tuple[int, int] = (0, 1),
        start: int = 0,
    ):
        self.out, self.shards, self.manifest, self.identity = out, shards, manifest, identity
        self.first = process[0] == 0
        self.path = out / FOLDER / f"process-{process[0]}.csv"
        self.met: dict[tuple[int, str, int], Met] = {}
        self._read_to: dict[Path, int] = {}
        self._unwritten: list[Met] = []
        self._merged_at, self._merged = 0.0, -1
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._begin_file(fresh=start == 0)
            if self.first and start == 0:
                for path in self._logs():
                    if int(path.stem.partition("-")[2]) >= process[1]:
                        path.unlink()
            self._gather(self._logs() if self.first else [self.path])
        except OSError as error:
            self._warn(error)

    @property
    def known(self) -> dict[int, str]:
        """Damaged records with the reasons: of this process, on process 0 of all as far as they have told."""
        return {one.record: one.reason for one in self.met.values()}

    def note(self, met: Sequence[Met]) -> None:
        """Write down what was met; what is written already is not written again."""
        new = [one for one in met if _key(one) not in self.met]
        self.met |= {_key(one): one for one in new}
        self._unwritten += new
        self.poll()

    def poll(self) -> bool:
        """Write what is not yet written and, on process 0 now and then, merge; whether others told something new."""
        before = len(self.met)
        try:
            self._append()
            if self.first and time.monotonic() - self._merged_at > SECONDS_BETWEEN_MERGES:
                self._merge()
        except OSError as error:
            self._warn(error)
        return len(self.met) > before

    def close(self) -> None:
        """Write and merge everything; safe to call again."""
        try:
            self._append()
            if self.first:
                self._merge()
        except OSError as error:
            self._warn(error)

    def _begin_file(self, *, fresh: bool) -> None:
        """Leave a file that begins with this run's identity and ends with a whole line."""
        head = f"identity,{self.identity}\n".encode()
        data = b"" if fresh or not self.path.is_file() else self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if not whole.startswith(head):
            whole = head
        if whole != data:
            write_whole(self.path, whole)

    def _append(self) -> None:
        if not self._unwritten:
            return
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self._unwritten)
        with self.path.open("ab") as file:
            file.write(text.getvalue().encode())
        self._unwritten = []

    def _logs(self) -> list[Path]:
        found = (self.out / FOLDER).glob("process-*.csv")
        return sorted(path for path in found if path.stem.partition("-")[2].isdigit())

    def _gather(self, paths: Sequence[Path]) -> None:
        """Read the whole lines that came since the last time."""
        for path in paths:
            at = self._read_to.get(path, 0)
            with path.open("rb") as file:
                head = file.readline().decode()
                if head != f"identity,{self.identity}\n":
                    continue
                file.seek(max(at, file.tell()))
                data = file.read()
                end = data.rfind(b"\n") + 1
                self._read_to[path] = file.tell() - len(data) + end
            for example, role, record, substitute, reason in csv.reader(io.StringIO(data[:end].decode())):
                one = Met(int(example), cast(Role, role), int(record), int(substitute), reason)
                self.met.setdefault(_key(one), one)

    def _merge(self) -> None:
        self._gather(self._logs())
        self._merged_at = time.monotonic()
        if len(self.met) != self._merged:
            write_whole(self.out / FILE, self._table().encode())
            self._merged = len(self.met)

    def _table(self) -> str:
        by_record: dict[int, list[Met]] = {}
        for one in self.met.values():
            by_record.setdefault(one.record, []).append(one)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        ids = self.manifest.table["id"]
        for record, met in sorted(by_record.items()):
            shard, position = self.shards.locate(record)
            examples = sorted({one.example for one in met if one.example != NOTHING})
            first = examples[0] if examples else ""
            reason = min(one.reason for one in met)
            file = self.shards.shards[shard].file
            table.writerow((ids.iloc[record], record, file, position, reason, first, len(examples)))
        return text.getvalue()

    def _warn(self, error: OSError) -> None:
        _log.warning("%s: the list of damaged records is not up to date: %s", self.out / FILE, error)


def _key(one: Met) -> tuple[int, str, int]:
    return one.example, one.role, one.record
