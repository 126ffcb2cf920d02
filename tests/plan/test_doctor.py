"""The doctor finds what is wrong, says what to do, and leaves nothing behind."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from protloc_jax.cli.main import main
from protloc_jax.plan import doctor, doctor_storage
from protloc_jax.plan.doctor import Check, Wanted

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "data"))
import small_records  # noqa: E402

Usage = collections.namedtuple("Usage", "total used free")
TINY = (
    *("model.size=custom", "model.dim=16", "model.depth=1", "model.heads=1", "model.patch=4", "model.image_size=8"),
    *("views.global_size=8", "views.local_size=4", "method.out_dim=8", "method.hidden=8", "method.bottleneck=8"),
    "optim.batch=4",
)


@pytest.fixture(autouse=True)
def jax_config():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return small_records.pack(tmp_path_factory.mktemp("data") / "records", n=30)


def examined(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, dict]]:
    """Exit status and findings by name."""
    status = main(["doctor", "--json", str(tmp_path / "found.json"), *arguments])
    checks = json.loads((tmp_path / "found.json").read_text())["checks"]
    assert len({c["name"] for c in checks}) == len(checks)
    return status, {c["name"]: c for c in checks}


def overrides(tmp_path: Path, data: Path) -> list[str]:
    run = tmp_path / "runs" / "one"
    return [*TINY, f"data.records={data}", f"run.out={run}", f"run.compilation_cache={tmp_path / 'cache'}"]


def test_a_healthy_machine(tmp_path, data, capsys):
    status, found = examined(tmp_path, *overrides(tmp_path, data))
    assert status == 0, found
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith(f"{len(found)} checks: 0 failed")
    assert [line.split()[0] for line in printed[:-1]] == [c["level"] for c in found.values()]
    assert list(found) == [
        *("software", "processes", "devices", "arithmetic", "file clock", "storage", "free space", "records"),
        *("compiled", "open files", "shared memory", "config"),
    ]
    assert f"jax {jax.__version__}" in found["software"]["words"]
    assert "27 images in split 'train', 8 read" in found["records"]["words"]
    # Student, teacher and Adam's two moments of the backbone and the head, in float32, and some counters.
    sizes = re.search(r"2 checkpoints of ([\d.]+) KB", found["free space"]["words"])
    assert sizes is not None and 50 < float(sizes[1]) < 100
    assert not (tmp_path / "runs").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_is_wrong_is_named_with_what_to_do(tmp_path, data, monkeypatch):
    """Everything at once: one failure hides no other."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(10**6, 0, 10**5))
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda what: (256, 4096))
    keys = [*overrides(tmp_path, data), "data.split=test", "data.workers=2", "optim.batch=7", "run.mesh_fsdp=3"]
    keys += [f"run.out={tmp_path / 'file' / 'run'}", f"run.compilation_cache={tmp_path / 'file'}"]
    status, found = examined(tmp_path, *keys)
    assert status == 1
    failed = {name: c for name, c in found.items() if c["level"] == "FAILED"}
    assert set(failed) == {"storage", "records", "compiled", "config"}
    assert "NotADirectoryError" in failed["storage"]["words"]
    assert "the split 'test' is empty" in failed["records"]["words"]
    assert "run.mesh_fsdp=3" in failed["config"]["words"]
    assert found["open files"]["level"] == found["shared memory"]["level"] == "warning"
    assert found["open files"]["advice"] == "ulimit -n 4096"
    assert "data.workers=0" in found["shared memory"]["advice"]


def test_a_disk_that_will_not_hold_the_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_storage.shutil, "disk_usage", lambda path: Usage(10**12, 0, 4 * 10**9))
    wanted = Wanted(tmp_path, checkpoint_bytes=10**9, kept=2)
    assert {c.name: c.level for c in doctor_storage.run_directory(tmp_path, wanted)}["free space"] == "ok"
    found = list(doctor_storage.run_directory(tmp_path, dataclasses.replace(wanted, kept=3)))[-1]
    assert found.level == "FAILED" and "4.0 GB free, 4.8 GB needed for 3 checkpoints of 1.0 GB" in found.words
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_whose_renames_are_not_whole(tmp_path, monkeypatch):
    """As of a bucket mounted as a folder, which copies and deletes."""

    def copied_in_part(old: Path, new: Path) -> None:
        new.write_bytes(old.read_bytes()[:100])
        old.unlink()

    monkeypatch.setattr(doctor_storage, "move_into_place", copied_in_part)
    found = {c.name: c for c in doctor_storage.run_directory(tmp_path, Wanted(tmp_path))}
    assert found["storage"].level == "FAILED" and "run.checkpoints" in found["storage"].advice
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("apart", "level"), [(0.5, "ok"), (5.0, "warning"), (-90.0, "FAILED")])
def test_clocks_that_differ(apart, level):
    found = doctor.clock_of_files(1000.0 + apart, 1000.0)
    assert found.level == level and bool(found.advice) == (level != "ok")


def test_a_device_that_multiplies_wrong(monkeypatch):
    plain = doctor.jax.jit
    monkeypatch.setattr(doctor.jax, "jit", lambda f: plain(lambda a, b: f(a, b).at[3, 4].add(1)))
    found = [c for c in doctor.devices() if c.name == "arithmetic"]
    assert found[0].level == "FAILED" and "wrong products on" in found[0].words


def test_a_gpu_that_jax_does_not_use(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    plain = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/dev/nvidia0" or plain(self))
    found = next(iter(doctor.devices()))
    assert found.level == "FAILED" and "/dev/nvidia0" in found.words and "protloc-jax[cuda12]" in found.advice


def test_an_exception_of_a_check_is_a_finding():
    def broken():
        yield Check("a", "ok", "x")
        raise OSError("it\nbroke")

    assert doctor.guarded("b", broken) == [Check("a", "ok", "x"), Check("b", "FAILED", "OSError: it")]


def test_findings_of_several_processes_are_merged():
    good, bad = Check("a", "ok", "x"), Check("a", "FAILED", "y", "do z")
    merged = doctor.merged([[good], [good], [bad]], ["h0", "h1", "h2"])
    assert [c.line for c in merged] == [
        "ok       a              process 0 (h0): x",
        "FAILED   a              process 2 (h2): y; do z",
    ]


def test_the_meeting_place_alone(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
        given = {"PROTLOC_COORDINATOR": f"localhost:{port}", "PROTLOC_PROCESSES": "2"}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PROTLOC_PROCESS", "1")
        status, found = examined(tmp_path, "--coordinator")
        assert status == 0 and "nobody listens there yet" in found["coordinator"]["words"]
        taken.listen()
        status, found = examined(tmp_path, "--coordinator")
        assert status == 0 and "process 0 listens" in found["coordinator"]["words"]
        monkeypatch.setenv("PROTLOC_PROCESS", "0")
        status, found = examined(tmp_path, "--coordinator")
        assert status == 1 and f"cannot listen on port {port}" in found["coordinator"]["words"]
    status, found = examined(tmp_path, "--coordinator")
    assert status == 0 and f"port {port} is free" in found["coordinator"]["words"]
    monkeypatch.setenv("PROTLOC_COORDINATOR", "no-such-host.invalid:1")
    status, found = examined(tmp_path, "--coordinator")
    assert status == 1 and "look up" in found["coordinator"]["advice"]
    monkeypatch.setenv("PROTLOC_COORDINATOR", "nonsense")
    status, found = examined(tmp_path)
    assert status == 1 and set(found) == {"software", "processes"}
    assert "PROTLOC_COORDINATOR=nonsense" in found["processes"]["words"]


def test_bad_input(tmp_path, capsys):
    assert main(["doctor", "run.ot=x"]) == 2
    assert "run.out" in capsys.readouterr().err
    assert main(["doctor", "--config", str(tmp_path / "none.py")]) == 2


def test_two_processes_compare_their_hosts(tmp_path):
    """The run directory is another one for the second process, as on hosts that share no storage."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    started = []
    for index in range(2):
        home = tmp_path / f"host{index}"
        home.mkdir()
        place = {"PROTLOC_COORDINATOR": f"localhost:{port}", "PROTLOC_PROCESSES": "2", "PROTLOC_PROCESS": str(index)}
        command = [sys.executable, "-m", "protloc_jax.cli.main", "doctor", "--run", "run", "--json", "found.json"]
        package = str(HERE.parent.parent)
        started.append(
            subprocess.Popen(
                command,
                cwd=home,
                env={**os.environ, **place, "JAX_PLATFORMS": "cpu", "PYTHONPATH": package},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [run.communicate(timeout=300)[0] for run in started]
    assert [run.returncode for run in started] == [1, 1], outputs
    checks = json.loads((tmp_path / "host0" / "found.json").read_text())["checks"]
    assert not (tmp_path / "host1" / "found.json").exists()
    failed = [c for c in checks if c["level"] == "FAILED"]
    assert [(c["name"], c["host"]) for c in failed] == [("shared", f"process 1 ({socket.gethostname()})")]
    words = {c["name"]: c["words"] for c in checks if c["level"] == "ok"}
    devices = re.search(r"(\d+) in all", words["devices"])
    assert devices is not None
    n = int(devices[1])
    # Half of the devices hold 0, half 1.
    assert words["all-reduce"] == f"{n} devices of 2 processes add up to {n // 2} of {n // 2}"
    assert "all here after" in words["processes"] and float(words["clocks"].split()[0]) < 2
    assert "FAILED" in outputs[0] and "checks" not in outputs[1]
    for index in range(2):
        assert not (tmp_path / f"host{index}" / "run").exists()


def test_the_limits_are_those_of_this_process():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert f"at most {soft}" in next(iter(doctor.limits(workers=0))).words
