"""The roll of a run: who has come, who is silent, who is gone. A small program beside process 0, and jax's own service.

It stands outside process 0 because whoever keeps the roll must outlive the others by the moment it takes to say who was
lost: jax's coordination service, kept inside process 0, dies with it, and jax then aborts all other processes without a
word about whom they lost. jax's own rendezvous aborts as well where somebody does not come. Here everybody says hello
first, on the port that all of them know; when all have, jax's service starts on a port of its own.

One line of JSON a message. To the roll: {"hello": i, "of": n, "host", "pid", "versions"}, {"beat": 1},
{"bye": "" or why}. From it: {"waiting": words}, {"refused": words}, {"start": port}, {"beat": 1},
{"lost": words, "at_once": whether there is nothing to wait for}.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LONGEST_LINE = 8192
TELL_EVERY = 30.0  # seconds between two notes on who is still missing
PORT_SECONDS = 30.0  # a port may still be held by the run that was started before
HELLO_SECONDS = 20.0
LINGER_SECONDS = 30.0
GOES_ON = "the same command goes on from the last checkpoint"


@dataclass
class Member:
    """A connection, and the process at its other end once it has said hello."""

    socket: socket.socket
    heard: float
    text: bytes = b""
    process: int = -1
    hello: dict[str, Any] = field(default_factory=dict)
    left: bool = False

    def send(self, **message: Any) -> None:
        # A receiver that does not read its few lines, or is gone, shows as silent or closed soon enough.
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")


class Roll:
    """Keeps the roll on a listening socket until everybody has gone.

    `wait` seconds until all must have come, `limit` seconds of silence that make a process lost; `start_service` starts
    jax's service and returns its port; `orphaned` says that process 0 is no more.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        processes: int,
        wait: float,
        limit: float,
        start_service: Callable[[], int],
        orphaned: Callable[[], bool] = lambda: False,
    ) -> None:
        self.listener, self.processes, self.wait, self.limit = listener, processes, wait, limit
        self.start_service, self.orphaned = start_service, orphaned
        self.members: dict[int, Member] = {}
        self.started = self.over = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._began = self._told = self._beaten = time.monotonic()
        self._end: float | None = None
        self._lost = -1

    def run(self) -> None:
        """Serve until the run has ended or could not begin."""
        period = min(1.0, self.limit / 8)
        while not self.over:
            for key, _ in self._selector.select(period):
                if key.fileobj is self.listener:
                    self._accept()
                else:
                    self._read(key.data)
            self._watch(time.monotonic())

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(5.0)
        self._selector.register(connection, selectors.EVENT_READ, Member(connection, time.monotonic()))

    def _read(self, member: Member) -> None:
        try:
            data = member.socket.recv(65536)
        except OSError:
            data = b""
        member.heard = time.monotonic()
        *lines, member.text = (member.text + data).split(b"\n")
        try:
            for line in lines:
                self._take(member, json.loads(line))
        except (ValueError, TypeError, AttributeError, KeyError):
            data = b""  # not one of ours
        if not data or len(member.text) > LONGEST_LINE:
            self._close(member)

    def _take(self, member: Member, message: dict[str, Any]) -> None:
        if "hello" in message:
            self._welcome(member, message)
        elif "bye" in message and member.process >= 0:
            member.left = True
            if message["bye"]:
                self._lose(member, f"ended: {message['bye']}", at_once=False)

    def _welcome(self, member: Member, hello: dict[str, Any]) -> None:
        index, there = int(hello["hello"]), None
        member.hello = {"host": str(hello["host"]), "pid": int(hello["pid"]), "versions": dict(hello["versions"])}
        if hello["of"] != self.processes or not 0 <= index < self.processes:
            refusal = f"process 0 is one of {self.processes}, {_who(hello)} is number {index} of {hello['of']}"
        elif (there := self.members.get(index)) is not None:
            refusal = f"two processes were started as number {index}: {_who(there.hello)}, and {_who(hello)}"
        elif differing := self._differing(hello):
            refusal = f"{_who(hello)} has {differing}"
        else:
            member.process = index
            self.members[index] = member
            if len(self.members) == self.processes:
                self._start()
            return
        # Both sides hear of it: neither can know which of them is the wrong one.
        for one in {id(m): m for m in (member, *self.members.values())}.values():
            one.send(refused=refusal)
        self.over = True

    def _differing(self, hello: dict[str, Any]) -> str:
        """What this process runs in another version than the one that came first."""
        for other in self.members.values():
            ours, theirs = hello["versions"], other.hello["versions"]
            names = [n for n in sorted({*ours, *theirs}) if ours.get(n) != theirs.get(n)]
            if names:
                unequal = ", ".join(f"{n} {ours.get(n)} (not {theirs.get(n)})" for n in names)
                return f"{unequal} where {_who(other.hello)} differs; all processes need the same versions"
            break
        return ""

    def _start(self) -> None:
        port = self.start_service()
        self.started = True
        # The next attempt of this run may meet here while this one is still leaving.
        self._selector.unregister(self.listener)
        self.listener.close()
        for member in self.members.values():
            member.heard = time.monotonic()
            member.send(start=port)

    def _close(self, member: Member) -> None:
        self._selector.unregister(member.socket)
        member.socket.close()
        if self.members.get(member.process) is not member:
            return
        if not self.started:
            del self.members[member.process]
            return
        if not member.left:
            member.left = True
            self._lose(member, "its connection closed without a word (killed, or out of memory?)")
        del self.members[member.process]
        # One that was lost may hang on to its connection.
        self.over = self.over or not set(self.members) - {self._lost}

    def _lose(self, lost: Member, why: str, *, at_once: bool = True) -> None:
        """Tell everybody else, unless an earlier loss explains this one."""
        if self._end is not None or not self.started:
            return
        self._end, self._lost = time.monotonic() + LINGER_SECONDS, lost.process if at_once else -1
        who = f"process {lost.process} of {self.processes} ({_who(lost.hello)})"
        words = f"{who} was lost: {why}; {GOES_ON}" if at_once else f"{who} {why}; it says more itself"
        for member in self.members.values():
            member.send(lost=words, at_once=at_once)

    def _watch(self, now: float) -> None:
        for key in [k for k in self._selector.get_map().values() if k.data is not None]:
            member, silent = key.data, now - key.data.heard
            if member.process < 0 and silent > HELLO_SECONDS:
                self._close(member)
            elif self.started and not member.left and silent > self.limit:
                member.left = True
                self._lose(member, f"no sign of life for {silent:.0f} s")
        if now - self._beaten > self.limit / 4:
            self._beaten = now
            for member in self.members.values():
                member.send(beat=1)
        if self._end is not None and now > self._end:
            self.over = True
        if self.started:
            if self.orphaned() and self._end is None:
                self._end = now + self.limit + LINGER_SECONDS
            return
        if self.orphaned():
            self._refuse("process 0 ended before all had come")
        elif now - self._began > self.wait:
            self._refuse(f"waited {self.wait:.0f} s in vain for {self._missing()}")
        elif now - self._told > TELL_EVERY:
            self._told = now
            words = f"{now - self._began:.0f} s of at most {self.wait:.0f} s for {self._missing()}"
            for member in self.members.values():
                member.send(waiting=words)

    def _missing(self) -> str:
        gone = [str(i) for i in range(self.processes) if i not in self.members]
        shown = ", ".join(gone[:8]) + (f" and {len(gone) - 8} more" if len(gone) > 8 else "")
        came = "; ".join(f"{i} on {m.hello['host']}" for i, m in sorted(self.members.items())[:8])
        return f"process(es) {shown} of {self.processes} (here are: {came})"

    def _refuse(self, words: str) -> None:
        for member in self.members.values():
            member.send(refused=words, late=True)
        self.over = True


def _who(hello: dict[str, Any]) -> str:
    return f"host {hello.get('host')}, pid {hello.get('pid')}"


def listen(port: int, *, seconds: float = PORT_SECONDS) -> socket.socket:
    """A socket that listens on the port of every address of this host; OSError when it stays taken so long."""
    end = time.monotonic() + seconds
    both = socket.has_dualstack_ipv6()
    while True:
        try:
            family = socket.AF_INET6 if both else socket.AF_INET
            return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=4096)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.25)


def _free_port() -> int:
    with listen(0) as probe:
        return probe.getsockname()[1]


def main(port: str, processes: str, wait: str, limit: str) -> None:
    """Say on standard output whether the port was had, then keep the roll; standard input closes with process 0."""
    # Whoever interrupts the run means its processes; this one ends when they have.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        listener = listen(int(port), seconds=min(PORT_SECONDS, float(wait)))
    except OSError as error:
        print(json.dumps({"taken": str(error)}), flush=True)
        return
    print(json.dumps({"listening": int(port)}), flush=True)
    jaxlib = importlib.import_module("jaxlib._jax")  # takes a moment, in which the others come
    services = []

    def start_service() -> int:
        chosen = _free_port()
        host = "[::]" if socket.has_dualstack_ipv6() else "0.0.0.0"
        # jax's heartbeat is the longer one, so that the roll, which knows names, speaks first.
        patience = int(float(limit) * 3) + 60
        services.append(
            jaxlib.get_distributed_runtime_service(
                f"{host}:{chosen}", int(processes), heartbeat_timeout=patience, shutdown_timeout=300
            )
        )
        return chosen

    life_line = selectors.DefaultSelector()
    life_line.register(sys.stdin, selectors.EVENT_READ)
    roll = Roll(
        listener,
        processes=int(processes),
        wait=float(wait),
        limit=float(limit),
        start_service=start_service,
        orphaned=lambda: bool(life_line.select(0)),
    )
    roll.run()
    os._exit(0)  # jax's service would wait for those that are gone


if __name__ == "__main__":
    main(*sys.argv[1:])
