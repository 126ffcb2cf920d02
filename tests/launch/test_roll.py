"""Processes meet, keep in touch and part: the roll and its members in the threads of one process, over real sockets."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable

import pytest

from protloc_jax.launch.peers import Peers, RendezvousFailed
from protloc_jax.launch.place import Place
from protloc_jax.launch.roll import LONGEST_LINE, Roll, listen

VERSIONS = {"jax": "1"}
SERVICE = 4321
# Seconds; a busy machine may keep a thread waiting for longer than a few tenths of it.
LIMIT = 4.0


class Meeting:
    """A roll in a thread, and what its processes hear."""

    def __init__(self, processes: int, *, wait: float = 20, limit: float = 20) -> None:
        self.listener = listen(0)
        self.address = f"localhost:{self.listener.getsockname()[1]}"
        self.processes, self.limit = processes, limit
        self.gone = False
        self.roll = Roll(
            self.listener,
            processes=processes,
            wait=wait,
            limit=limit,
            start_service=lambda: SERVICE,
            orphaned=lambda: self.gone,
        )
        self.thread = threading.Thread(target=self.roll.run, daemon=True)
        self.thread.start()
        self.lost: dict[int, str] = {}
        self.peers: list[Peers] = []

    def peer(self, process: int, *, of: int = 0, versions: dict[str, str] | None = None) -> Peers:
        place = Place(process, of or self.processes, self.address, how="a test")
        made = Peers(place, limit=self.limit, versions=versions or VERSIONS)
        self.peers.append(made)
        return made

    def together(self, *peers: Peers, seconds: float = 20) -> list[str | Exception]:
        """What `meet` gives each."""
        found: dict[int, str | Exception] = {}

        def one(index: int, peer: Peers) -> None:
            try:
                found[index] = peer.meet(seconds)
            except (RendezvousFailed, ValueError) as error:
                found[index] = error

        threads = [threading.Thread(target=one, args=pair) for pair in enumerate(peers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return [found[i] for i in range(len(peers))]

    def watched(self) -> list[Peers]:
        """All processes, met and watching."""
        peers = [self.peer(i) for i in range(self.processes)]
        assert self.together(*peers) == [f"localhost:{SERVICE}"] * self.processes
        for index, peer in enumerate(peers):
            peer.watch(lambda words, index=index: self.lost.__setitem__(index, words))
        return peers

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
            if peer._socket is not None:
                peer._socket.close()
        self.gone = self.roll.over = True
        self.thread.join(30)
        assert not self.thread.is_alive()
        for key in list(self.roll._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self.listener.close()


@pytest.fixture
def meeting():
    made: list[Meeting] = []

    def make(*numbers, **options) -> Meeting:
        made.append(Meeting(*numbers, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.01)


def test_a_clean_end_is_no_loss(meeting):
    run = meeting(3)
    for peer in run.watched():
        peer.part()
    for peer in run.peers:
        peer.close()
    wait_for(lambda: run.roll.over)
    assert not run.lost


def test_one_that_ends_while_others_still_work_is_no_loss(meeting):
    run = meeting(2)
    first, second = run.watched()
    first.part()
    first.close()
    time.sleep(0.5)
    assert not run.lost and not run.roll.over
    second.part()


def test_a_closed_connection_is_a_loss_that_names_the_process(meeting):
    run = meeting(3)
    peers = run.watched()
    peers[1]._parted = "failed"  # this test's process 1 hears nothing of itself
    peers[1]._socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: len(run.lost) == 2)
    me = f"host {socket.gethostname()}, pid "
    for index in (0, 2):
        assert run.lost[index].startswith(f"process 1 of 3 ({me}")
        assert "was lost: its connection closed without a word" in run.lost[index]
        assert peers[index].verdict == run.lost[index]


def test_silence_is_a_loss_after_the_limit_and_signs_of_life_are_none(meeting):
    run = meeting(2, limit=LIMIT)
    peers = [run.peer(i) for i in range(2)]
    run.together(*peers)
    began = time.monotonic()
    peers[0].watch(lambda words: run.lost.__setitem__(0, words))
    wait_for(lambda: run.lost)
    assert 0.9 * LIMIT < time.monotonic() - began < 10 * LIMIT
    assert "process 1 of 2" in run.lost[0] and "was lost: no sign of life for" in run.lost[0]
    alive = meeting(2, limit=LIMIT)
    alive.watched()
    time.sleep(1.5 * LIMIT)
    assert not alive.lost


def test_the_end_of_the_roll_is_the_loss_of_the_first_host(meeting):
    run = meeting(2)
    peers = run.watched()
    wait_for(lambda: len(run.roll.members) == 2)
    for member in list(run.roll.members.values()):
        member.left = True
        member.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: len(run.lost) == 2)
    assert run.lost[1].startswith(f"process 0 of 2, or its host ({run.address}), was lost")
    assert peers[0].verdict


def test_an_error_is_told_to_the_others_and_leaves_them_time_for_their_own(meeting, monkeypatch):
    monkeypatch.setattr("protloc_jax.launch.peers.GRACE_SECONDS", 2.0)
    run = meeting(2)
    first, second = run.watched()
    began = time.monotonic()
    second.part("ValueError: no such records")
    wait_for(lambda: first.verdict)
    assert not run.lost
    wait_for(lambda: run.lost)
    assert time.monotonic() - began >= 2.0
    assert list(run.lost) == [0] and "ended: ValueError: no such records" in run.lost[0]


def test_who_fails_between_the_processes_does_not_wait(meeting, monkeypatch):
    monkeypatch.setattr("protloc_jax.launch.peers.GRACE_SECONDS", 60.0)
    run = meeting(2)
    first, second = run.watched()
    second.part("ValueError: no such records")
    began = time.monotonic()
    threading.Thread(target=first.explain, args=(5,), daemon=True).start()
    wait_for(lambda: run.lost)
    assert time.monotonic() - began < 30


def test_nobody_at_the_address():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    peer = Peers(Place(2, 4, address, how="Slurm step 1.0"), limit=10, versions=VERSIONS)
    with pytest.raises(RendezvousFailed) as failed:
        peer.meet(1)
    text = str(failed.value)
    for words in ("process 2 of 4", "waited 1 s for process 0", address, "Slurm step 1.0", "RENDEZVOUS_SECONDS"):
        assert words in text
    nowhere = Peers(Place(1, 2, "no-such-host.invalid:1"), limit=10, versions=VERSIONS)
    with pytest.raises(RendezvousFailed, match=r"nobody answers at no-such-host\.invalid:1"):
        nowhere.meet(1)


def test_those_who_came_hear_who_did_not(meeting):
    run = meeting(4, wait=1.0)
    answers = run.together(run.peer(0), run.peer(2))
    for answer in answers:
        assert isinstance(answer, RendezvousFailed)
        assert f"meet at {run.address}" in str(answer)
        assert "waited 1 s in vain for process(es) 1, 3 of 4 (here are: 0 on " in str(answer)


def test_one_that_leaves_again_before_the_start_may_come_back(meeting):
    run = meeting(2)
    early = run.peer(1)
    early._connect("localhost", int(run.address.split(":")[1]), time.monotonic() + 10, 10)
    wait_for(lambda: 1 in run.roll.members)
    assert early._socket is not None
    early._socket.close()
    wait_for(lambda: 1 not in run.roll.members)
    assert run.together(run.peer(0), run.peer(1)) == [f"localhost:{SERVICE}"] * 2


@pytest.mark.parametrize(
    ("process", "of", "versions", "words"),
    [
        (0, 2, None, "two processes were started as number 0"),
        (1, 3, None, "process 0 is one of 2, host .* is number 1 of 3"),
        (1, 2, {"jax": "2"}, r"jax 2 \(not 1\) where host .* differs; all processes need the same versions"),
    ],
)
def test_processes_that_do_not_fit_together_are_refused(meeting, process, of, versions, words):
    run = meeting(2)
    first = run.peer(0)
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.extend(run.together(first)))
    waiting.start()
    wait_for(lambda: 0 in run.roll.members)
    answers = [*run.together(run.peer(process, of=of, versions=versions))]
    waiting.join(30)
    for answer in [*answers, *found]:
        assert isinstance(answer, ValueError)
        assert re.search(words, str(answer))


def test_strangers_are_shown_the_door(meeting):
    run = meeting(2)
    port = int(run.address.split(":")[1])
    for text in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"[]\n",
        b'{"hello": 0}\n',
        b'{"hello": 0, "of": 2, "host": "h", "pid": 1, "versions": 3}\n',
        b'{"hello": "x", "of": 2}\n',
        b"x" * (LONGEST_LINE + 1),
    ):
        with socket.create_connection(("localhost", port), timeout=20) as stranger:
            stranger.sendall(text)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(100) == b""
    assert not run.roll.members
    with socket.create_connection(("localhost", port)) as stranger:  # one that only stays
        assert run.together(run.peer(0), run.peer(1)) == [f"localhost:{SERVICE}"] * 2
        stranger.sendall(json.dumps({"bye": "x"}).encode() + b"\n")
        time.sleep(0.3)
    assert not run.lost


def test_a_port_in_use_is_refused_after_a_while():
    with listen(0) as taken:
        began = time.monotonic()
        with pytest.raises(OSError, match="in use"):
            listen(taken.getsockname()[1], seconds=0.5)
        assert time.monotonic() - began >= 0.5
