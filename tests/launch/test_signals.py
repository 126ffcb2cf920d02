"""Signals heard by a thread: while the main thread sits in C, the clock that follows, the second signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from protloc_jax.launch.signals import Signals


def wait_until(done, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.005)


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_handlers_and_the_wakeup_socket_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with Signals() as signals:
        assert threading.active_count() == threads + 1
        assert not signals.flagged and signals.name == ""
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files


def test_the_flag_is_up_before_the_next_line_and_it_is_said_once(capfd):
    with Signals() as signals:
        send(signal.SIGINT)
        assert signals.flagged and signals.name == "SIGINT"
        time.sleep(0.05)
    assert capfd.readouterr().err.count("SIGINT: stopping after the current step and saving") == 1


def test_handlers_that_a_library_replaced_are_armed_again():
    with Signals() as signals:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        send()
        assert not signals.flagged
        signals.arm()
        send()
        assert signals.flagged


def test_other_threads_leave_the_handlers_alone():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def elsewhere():
        with Signals() as signals:
            signals.arm()
            found.append((signal.getsignal(signal.SIGTERM), signals.flagged))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [(before, False)]


@pytest.mark.parametrize(
    ("at_stake", "after", "words"),
    [
        (0, 3.0, "nothing new was to be saved; left with status 75"),
        (12, 25.0, "12 step(s) since the last checkpoint are lost, as nothing could be saved within run.grace_seco"),
    ],
)
def test_who_does_not_come_to_save_leaves(capfd, at_stake, after, words):
    """By a clock that the test sets: not a moment earlier than promised, and soon after."""
    clock, left = [100.0], []
    with Signals(leave=left.append, now=lambda: clock[0]) as signals:
        signals.at_stake = lambda: at_stake
        send()
        clock[0] += after - 0.01
        time.sleep(0.3)
        assert left == []
        clock[0] += 0.02
        wait_until(lambda: left)
    assert left == [75]
    assert words in capfd.readouterr().err


def test_a_grace_time_below_the_short_one_is_kept():
    clock, left = [0.0], []
    with Signals(grace_seconds=1.0, leave=left.append, now=lambda: clock[0]):
        send()
        clock[0] = 1.01
        wait_until(lambda: left)


def test_a_save_is_waited_for_and_then_a_short_time(capfd):
    clock, left = [0.0], []
    with Signals(leave=left.append, now=lambda: clock[0]) as signals:
        signals.at_stake = lambda: 5
        send()
        with signals.holding():
            clock[0] = 500.0
            time.sleep(0.3)
        signals.at_stake = lambda: 0
        clock[0] = 502.9
        time.sleep(0.3)
        assert left == []
        clock[0] = 503.1
        wait_until(lambda: left)
    assert left == [75] and "nothing new was to be saved" in capfd.readouterr().err


def test_an_echo_is_no_second_signal_and_another_number_is():
    clock, left = [0.0], []
    with Signals(leave=left.append, now=lambda: clock[0]):
        send()
        time.sleep(0.2)
        clock[0] = 0.4
        send()
        time.sleep(0.2)
        assert left == []
        send(signal.SIGINT)
        wait_until(lambda: left)
    assert left == [128 + signal.SIGINT]


PROGRAM = """
import ctypes, sys, time
from protloc_jax.launch.signals import Signals
mutex, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with Signals(grace_seconds=float(sys.argv[1])) as signals:
    signals.at_stake = lambda: 3
    c.pthread_mutex_lock(mutex)
    print("ready", flush=True)
    c.pthread_mutex_lock(mutex)  # never returns, and no bytecode runs in this thread
"""


@pytest.mark.parametrize("second", [False, True])
def test_a_main_thread_that_never_returns_from_c(second):
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), "60" if second else "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.stdout.readline() == "ready\n"
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            while "SIGTERM: stopping" not in process.stderr.readline():
                assert process.poll() is None
            if second:
                time.sleep(0.7)
                process.send_signal(signal.SIGTERM)
            assert process.wait(30) == (128 + signal.SIGTERM if second else 75)
            took = time.monotonic() - began
            assert took < 20 and (second or took >= 1)
            assert ("3 step(s) since the last checkpoint are lost" in process.stderr.read()) != second
        finally:
            process.kill()
