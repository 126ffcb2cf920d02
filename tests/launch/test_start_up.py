"""Joining by the environment, and how a joined process leaves; the others are played by a stand-in."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from protloc_jax.cli.main import main
from protloc_jax.launch import leaving, start
from protloc_jax.launch.place import Place
from protloc_jax.launch.start import start_up, versions
from protloc_jax.train.exits import Exit


class Left(BaseException):
    """The process would have ended here, with this status."""


class OtherProcesses:
    """What `leaving` asks of `Peers`, noted."""

    limit = 2.0

    def __init__(self) -> None:
        self.told: list[str] = []
        self.asked: list[float] = []

    def part(self, why: str = "") -> None:
        self.told.append(why)

    def explain(self, seconds: float) -> None:
        self.asked.append(seconds)


@pytest.fixture
def others(monkeypatch):
    def end(status):
        raise Left(status)

    found = OtherProcesses()
    monkeypatch.setattr(leaving, "_peers", found)
    monkeypatch.setattr(leaving, "_failed", "")
    monkeypatch.setattr(leaving, "_undo", [])
    monkeypatch.setattr(leaving.os, "_exit", end)
    return found


def test_alone_there_is_nothing_to_join():
    assert start_up({}) == Place()
    assert start_up({"PROTLOC_DISTRIBUTED": "off"}).processes == 1


def test_what_is_missing_or_malformed_is_named():
    with pytest.raises(ValueError, match="PROTLOC_COORDINATOR set without PROTLOC_PROCESSES, PROTLOC_PROCESS"):
        start_up({"PROTLOC_COORDINATOR": "localhost:1"})
    full = {"PROTLOC_COORDINATOR": "localhost:1", "PROTLOC_PROCESSES": "2", "PROTLOC_PROCESS": "2"}
    with pytest.raises(ValueError, match="PROTLOC_PROCESS=2: must be from 0 to PROTLOC_PROCESSES-1 = 1"):
        start_up(full)
    with pytest.raises(ValueError, match="PROTLOC_PROCESSES=two: must be an integer"):
        start_up({**full, "PROTLOC_PROCESSES": "two"})
    with pytest.raises(ValueError, match="PROTLOC_DISTRIBUTED=yes: must be 'off' or 'auto'"):
        start_up({"PROTLOC_DISTRIBUTED": "yes"})
    for name in ("PROTLOC_RENDEZVOUS_SECONDS", "PROTLOC_HEARTBEAT_SECONDS"):
        with pytest.raises(ValueError, match=f"{name}=0: must be at least 1"):
            start_up({name: "0"})


def test_a_port_in_use_is_told(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        place = {"PROTLOC_COORDINATOR": f"localhost:{taken.getsockname()[1]}", "PROTLOC_PROCESSES": "2"}
        with pytest.raises(ValueError, match=r"process 0 cannot listen on port \d+ .*in use"):
            start_up({**place, "PROTLOC_PROCESS": "0", "PROTLOC_RENDEZVOUS_SECONDS": "1"})
    assert start._roll is not None and start._roll.wait(30) == 0
    for stream in (start._roll.stdin, start._roll.stdout):
        assert stream is not None
        stream.close()
    monkeypatch.setattr(start, "_roll", None)


def test_gRPC_does_not_ask_a_web_proxy(monkeypatch):
    monkeypatch.setenv("no_grpc_proxy", "")
    monkeypatch.setenv("NO_PROXY", "a.org")
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    start._spare_from_proxies(Place(0, 2, "host:1"))
    assert not start.os.environ["no_grpc_proxy"]
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    start._spare_from_proxies(Place(0, 2, "host:1"))
    assert start.os.environ["no_grpc_proxy"] == "a.org,host"


def test_the_versions_that_must_agree():
    import jax

    assert versions()["jax"] == jax.__version__ and versions()["python"] == "{}.{}".format(*sys.version_info)


def test_the_statuses_are_those_of_a_run():
    assert leaving.LOST == Exit.LOST
    assert set(leaving.AGREED) == {Exit.DONE, Exit.PREEMPTED}


@pytest.mark.parametrize("status", [0, 75])
def test_an_end_that_all_agreed_on_is_left_to_jax(others, status):
    assert leaving.leave(status) == status
    leaving._at_exit()
    assert others.told == [""]


@pytest.mark.parametrize("status", [2, 70, 71, 74])
def test_an_end_of_its_own_is_told_and_does_not_wait(others, status):
    with pytest.raises(Left, match=str(status)):
        leaving.leave(status)
    assert others.told == [f"status {status}"]


@pytest.mark.parametrize("status", [75, 79, 143])
def test_whoever_cannot_wait_for_the_main_thread_tells_the_others_too(others, status):
    with pytest.raises(Left, match=str(status)):
        leaving.end(status)
    assert others.told == [f"status {status}"]


def test_an_error_of_its_own_is_told_before_it_is_shown(others):
    leaving.on_error(ValueError("no such records\nnor others"))
    assert others.told == ["ValueError: no such records"] and not others.asked
    with pytest.raises(Left, match="2"):
        leaving.leave(2)
    with pytest.raises(Left, match="1"):
        leaving._at_exit()
    assert len(others.told) == 1


@pytest.mark.parametrize(
    "text",
    [
        "UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error: Connection reset",
        "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or there was a network error",
        "UNAVAILABLE: Failed to send RPC to coordination service.",
        "DEADLINE_EXCEEDED: Barrier timed out.",
    ],
)
def test_an_error_between_processes_waits_for_the_name_of_the_lost_one(others, text):
    try:
        try:
            raise RuntimeError(text)
        except RuntimeError as inner:
            raise ValueError("the step failed") from inner
    except ValueError as error:
        leaving.on_error(error)
    assert others.asked == [3.0]


def test_the_lost_one_is_named_and_children_and_locks_go_too(others, capfd):
    undone: list[int] = []
    leaving.before_leaving(lambda: undone.append(1) or 1 / 0)
    leaving.before_leaving(lambda: undone.append(2))
    with pytest.raises(Left, match="69"):
        leaving.leave_lost("process 1 of 2 was lost: x")
    assert capfd.readouterr().err.splitlines() == ["", "protloc: process 1 of 2 was lost: x (status 69)."]
    assert undone == [1, 2]


def test_uncaught_errors_pass_through(others):
    shown: list[object] = []
    hook = leaving._hook(lambda *what: shown.append(what[1]))
    error = KeyError("x")
    hook(KeyError, error, None)
    assert shown == [error] and others.told == ["KeyError: 'x'"]


def test_bad_input_of_a_command_is_told_to_the_others(others, capsys):
    with pytest.raises(Left, match="2"):
        main(["pretrain", "--config", "missing.py"])
    assert len(others.told) == 1 and "missing.py" in others.told[0]
    assert "missing.py" in capsys.readouterr().err


def test_alone_nobody_is_told():
    assert leaving._peers is None
    leaving.on_error(ValueError("x"))
    assert leaving.leave(71) == 71
    code = "from protloc_jax.launch.leaving import end; print('x'); end(79)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (79, "x\n")
