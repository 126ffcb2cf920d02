"""The other processes of this run, as the roll tells: joining them, signs of life, and word of who is lost."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from protloc_jax.launch.place import Place, host_and_port
from protloc_jax.launch.roll import GOES_ON

# A process that ends on an error takes the others along; an error that all have in common is told by each itself.
GRACE_SECONDS = 10.0
RETRY_SECONDS = 0.5
TELL_EVERY = 30.0


class RendezvousFailed(RuntimeError):
    """Not all processes came within the time; the message names who waited where for whom."""


class Peers:
    """This process's connection to the roll.

    `meet` blocks until all have come and returns jax's address; `watch` starts the thread that shows signs of life and
    calls `leave` (which does not return) with words that name the process that was lost.
    """

    def __init__(self, place: Place, *, limit: float, versions: Mapping[str, str]) -> None:
        self.place, self.limit = place, limit
        self.verdict = ""  # who was lost, as soon as it is known
        self._hello = {
            "hello": place.process,
            "of": place.processes,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "versions": dict(versions),
        }
        self._socket: socket.socket | None = None
        self._text = b""
        self._sending = threading.Lock()
        self._hurry = threading.Event()
        self._parted: Literal["", "done", "failed"] = ""

    def meet(self, seconds: float) -> str:
        """Wait for the others, at most `seconds`; the address of jax's service.

        Raises RendezvousFailed when somebody does not come, ValueError when somebody comes who does not fit.
        """
        host, port = host_and_port(self.place.coordinator)
        end = time.monotonic() + seconds
        while True:
            self._connect(host, port, end, seconds)
            try:
                answer = self._answer(end)
            except OSError:
                # The roll of an earlier attempt on this port, which was just leaving.
                time.sleep(RETRY_SECONDS)
                continue
            where = f"the processes of this run, which meet at {self.place.coordinator}"
            if answer.get("late"):
                raise RendezvousFailed(f"{where}: {answer['refused']}. PROTLOC_RENDEZVOUS_SECONDS sets how long.")
            if "refused" in answer:
                raise ValueError(f"{where}, do not fit together: {answer['refused']}.")
            return f"[{host}]:{answer['start']}" if ":" in host else f"{host}:{answer['start']}"

    def _connect(self, host: str, port: int, end: float, seconds: float) -> None:
        told = time.monotonic()
        while True:
            now = time.monotonic()
            try:
                self._socket = socket.create_connection((host, port), timeout=min(10.0, max(0.1, end - now)))
                self._socket.settimeout(None)
                self._text = b""
                self._send(**self._hello)
                return
            except OSError as error:
                if now > end - RETRY_SECONDS:
                    raise RendezvousFailed(self._nobody(seconds, error)) from None
                if now - told > TELL_EVERY:
                    told = now
                    _say(f"process {self.place.process} waits for process 0 at {self.place.coordinator} ({error})")
                time.sleep(RETRY_SECONDS)

    def _nobody(self, seconds: float, error: OSError) -> str:
        return (
            f"process {self.place.process} of {self.place.processes} ({socket.gethostname()}) waited {seconds:.0f} s "
            f"for process 0, and nobody answers at {self.place.coordinator} ({error}). Is process 0 running there, and "
            f"the port open? The place comes from {self.place.how}; PROTLOC_RENDEZVOUS_SECONDS sets how long to wait."
        )

    def _answer(self, end: float) -> dict[str, Any]:
        """The first message that settles something; OSError when the connection closes before."""
        while True:
            # The roll itself tells who is late; the second's more is for its word to get here.
            for message in self._messages(max(0.1, end + 5 - time.monotonic())):
                if "start" in message or "refused" in message:
                    return message
                if "waiting" in message and self.place.process == 0:
                    _say(f"waiting {message['waiting']}")
            if time.monotonic() > end + 5:
                raise RendezvousFailed(self._nobody(0, OSError("it does not answer any more")))

    def _messages(self, seconds: float) -> list[dict[str, Any]]:
        """What has come within the time, maybe nothing; OSError when the other side is gone."""
        assert self._socket is not None
        if not select.select([self._socket], [], [], seconds)[0]:
            return []
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        *lines, self._text = (self._text + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _send(self, **message: Any) -> None:
        assert self._socket is not None
        with self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def watch(self, leave: Callable[[str], None]) -> None:
        """Show signs of life from now on, in a thread; `leave` is called with who was lost."""
        threading.Thread(target=self._watch, args=(leave,), name="peers", daemon=True).start()

    def _watch(self, leave: Callable[[str], None]) -> None:
        period, heard = self.limit / 4, time.monotonic()
        beaten = 0.0
        while True:
            try:
                if time.monotonic() - beaten > period:
                    beaten = time.monotonic()
                    self._send(beat=1)
                messages = self._messages(period / 2)
            except OSError:
                if self._parted:  # whoever kept the roll is done as well
                    return
                messages = [{"lost": self._host_of_the_first("its connection closed")}]
            now = time.monotonic()
            heard = now if messages else heard
            if now - heard > self.limit:
                messages = [{"lost": self._host_of_the_first(f"no sign of life for {now - heard:.0f} s")}]
            for message in messages:
                if "lost" in message:
                    if self._parted == "failed":
                        return
                    self.verdict = message["lost"]
                    if not message.get("at_once", True):
                        self._hurry.wait(GRACE_SECONDS)
                    leave(self.verdict)
                    return

    def _host_of_the_first(self, why: str) -> str:
        who = f"process 0 of {self.place.processes}, or its host ({self.place.coordinator}),"
        return f"{who} was lost: {why}; {GOES_ON}"

    def explain(self, seconds: float) -> None:
        """Wait for word of who was lost, which ends this process, because something failed between the processes."""
        self._hurry.set()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.05)

    def part(self, why: str = "") -> None:
        """Say goodbye: the work is done, or (with `why`) this process ends on an error and the others may as well."""
        # After a clean end a loss is still worth knowing: jax waits for everybody at the very end.
        self._parted = "failed" if why else "done"
        with contextlib.suppress(OSError):
            self._send(bye=why[:1000])

    def close(self) -> None:
        """Leave the roll; all processes have said goodbye and passed jax's last barrier."""
        self._parted = "failed"
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _say(words: str) -> None:
    print(f"protloc: {words}", file=sys.stderr, flush=True)
