"""`run.profile`: the steps asked for and no others are in the trace, and a profiler never stops a run."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from protloc_jax.telemetry import profiling
from protloc_jax.telemetry.profiling import Profiler, span


def test_spans():
    assert span("") is None and span("3:5") == (3, 5)


@pytest.mark.parametrize("text", ["5", "0:3", "5:5", "7:3", "a:b", "-1:4", "3:5:7", "3:"])
def test_what_is_no_span_is_refused(text):
    with pytest.raises(ValueError, match=rf"profile={text}: must be START:STOP with 1 <= START < STOP"):
        span(text)


def steps_in(directory) -> list[int]:
    """The numbers of the training steps that the traces of a directory hold, read by jax's own reader."""
    found = []
    for path in directory.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            events = (event for line in plane.lines for event in line.events)
            found += [int(dict(event.stats)["step_num"]) for event in events if event.name == "train"]
    return found


def test_a_span_of_steps_is_in_the_trace_and_on_the_console(tmp_path):
    said = []
    profiler = Profiler("3:5", tmp_path, say=said.append, warn=pytest.fail)
    square = jax.jit(lambda x: x @ x)
    x = jax.numpy.ones((8, 8))
    for number in range(1, 7):
        assert float(profiler.run(number, square, x)[0, 0]) == 8
    profiler.close()
    assert steps_in(tmp_path) == [3, 4]
    assert len(said) == 1 and str(tmp_path) in said[0] and "xprof --logdir" in said[0]


def test_a_run_that_begins_within_the_span_profiles_the_rest_and_one_behind_it_nothing(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda where: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    for begun, ended, wanted in ((4, 9, ["start", "stop"]), (9, 12, []), (2, 4, ["start", "stop"])):
        profiler = Profiler("3:6", tmp_path, say=lambda text: None, warn=pytest.fail)
        for number in range(begun, ended):
            profiler.run(number, calls.append, number)
        profiler.close()
        assert [c for c in calls if isinstance(c, str)] == wanted
        assert [c for c in calls if isinstance(c, int)] == list(range(begun, ended))
        calls.clear()


def test_a_profiler_that_cannot_start_is_told_and_the_steps_are_taken(tmp_path):
    warned = []
    taken = tmp_path / "a file"
    taken.write_text("")
    profiler = Profiler("1:3", taken / "profile", say=pytest.fail, warn=warned.append)
    assert [profiler.run(n, lambda x: x, n) for n in (1, 2, 3)] == [1, 2, 3]
    assert len(warned) == 1 and "no profile is taken" in warned[0]


def test_one_process_a_host_profiles(monkeypatch):
    from jax.experimental import multihost_utils

    hosts = ["a", "a", "b", "b"]
    crc = profiling.zlib.crc32
    gathered = np.asarray([[crc(h.encode())] for h in hosts], np.uint32)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: gathered)
    chosen = []
    for index, host in enumerate(hosts):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        monkeypatch.setattr(profiling.socket, "gethostname", lambda host=host: host)
        chosen.append(profiling.first_on_host())
    assert chosen == [True, False, True, False]
