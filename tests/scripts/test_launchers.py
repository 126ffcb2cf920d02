"""The launchers of clusters, with ssh, srun, scontrol and gcloud played by small programs on the PATH."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from protloc_jax.train.exits import Exit

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"
AGAIN = {Exit.LOST, Exit.WORKER_DIED, Exit.PREEMPTED, Exit.STUCK, 134, 135, 137, 139}
# Ends with the status that is written for this process; "wait" until it is told to end.
WORKER = """#!/usr/bin/env bash
read -ra statuses <<<"$(head -n 1 "$FAKE/statuses")"
status=${statuses[${PROTLOC_PROCESS:-${SLURM_PROCID:-0}}]}
echo "$* $PROTLOC_PROCESS of $PROTLOC_PROCESSES at $PROTLOC_COORDINATOR in $PWD" >>"$FAKE/ran"
[ "$status" != wait ] || trap 'echo told >>"$FAKE/ran"; exit 75' TERM
for _ in {1..300}; do [ "$status" != wait ] || sleep 0.1; done
exit "${status/wait/3}"
"""
# As ssh does: options, host, one string for the shell of the other side, which gets its own empty environment.
SSH = """#!/usr/bin/env bash
while [ "${1#-}" != "$1" ]; do shift; [ "${1#*=}" = "$1" ] || shift; done
echo "ssh $1" >>"$FAKE/calls"
exec env -i FAKE="$FAKE" sh -c "$2"
"""
SRUN = """#!/usr/bin/env bash
echo "srun $*" >>"$FAKE/calls"
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$FAKE/calls"
"""
# The real one runs the command on all hosts, names their statuses on standard error, and has one status of its own.
GCLOUD = """#!/usr/bin/env bash
echo "gcloud $*" >>"$FAKE/calls"
case " $* " in
*" describe "*) head -n 1 "$FAKE/states"; sed -i 1d "$FAKE/states"; exit 0 ;;
esac
for word; do case $word in --command=*) command=${word#--command=} ;; esac; done
case $command in kill*) bash -c "$command"; exit 0 ;; esac
pids=()
for i in 0 1; do PROTLOC_PROCESS=$i bash -c "$command" & pids+=($!); done
for i in 0 1; do
  wait "${pids[i]}"; code=$?
  ((code == 0)) || echo "##### Command execution on worker $i failed with exit status $code. Continuing." >&2
done
[ "$code" = 0 ]
"""


@pytest.fixture
def place(tmp_path):
    """A PATH with the stand-ins, and where they note what they were asked."""
    tools, notes = tmp_path / "tools", tmp_path / "notes"
    tools.mkdir()
    notes.mkdir()
    programs = {"worker": WORKER, "ssh": SSH, "srun": SRUN, "scontrol": SCONTROL, "gcloud": GCLOUD}
    for name, text in programs.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    for name in ("calls", "ran"):
        (notes / name).write_text("")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PROTLOC_", "SLURM_"))}
    (tmp_path / "hosts").write_text("# two hosts\nme@first\n\nsecond  # the other\n")
    return {**kept, "PATH": f"{tools}:{kept['PATH']}", "FAKE": str(notes), "PROTLOC_PAUSE": "0.05", "USER": "me"}


def noted(place: dict[str, str], name: str) -> list[str]:
    return (Path(place["FAKE"]) / name).read_text().splitlines()


def statuses(place: dict[str, str], of_every_process: str) -> None:
    (Path(place["FAKE"]) / "statuses").write_text(of_every_process + "\n")


def call(place: dict[str, str], script: str, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, env={**place, **more}, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("script", sorted(p.name for p in SCRIPTS.glob("*.sh")))
def test_bash_reads_the_script_and_a_bad_call_is_refused(place, script):
    subprocess.run(["bash", "-n", str(SCRIPTS / script)], check=True)
    for arguments in ([], ["--retries", "x", "a", "b", "c"], ["--retries"]):
        if arguments and script == "launch_slurm.sh":
            continue  # whose options are sbatch's
        done = call(place, script, *arguments)
        assert done.returncode == 2 and "usage: " in done.stderr


def test_ssh_gives_every_host_its_place(place, tmp_path):
    statuses(place, "0 0")
    done = call(place, "launch_ssh.sh", tmp_path / "hosts", "worker", "a b", "$c", PROTLOC_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert sorted(noted(place, "calls")) == ["ssh me@first", "ssh second"]
    assert sorted(noted(place, "ran")) == [f"a b $c {i} of 2 at first:12355 in {tmp_path}" for i in range(2)]


@pytest.mark.parametrize(
    ("first", "retries", "tried", "status"),
    [("69 71", 2, 3, 71), ("2 69", 2, 1, 2), ("69 255", 1, 2, 255), ("70 70", 2, 1, 70), ("137 69", 0, 1, 137)],
)
def test_ssh_tries_again_where_it_helps(place, tmp_path, first, retries, tried, status):
    statuses(place, first)
    done = call(place, "launch_ssh.sh", "--retries", retries, tmp_path / "hosts", "worker")
    assert (done.returncode, len(noted(place, "ran"))) == (status, 2 * tried), done.stderr
    assert done.stderr.count("again") == tried - 1


def test_ssh_stops_the_others_when_one_fails(place, tmp_path):
    statuses(place, "74 wait")
    began = time.monotonic()
    done = call(place, "launch_ssh.sh", "--retries", 3, tmp_path / "hosts", "worker")
    assert done.returncode == 74 and time.monotonic() - began < 25
    assert noted(place, "ran").count("told") == 1


def test_a_signal_reaches_the_hosts_and_there_is_no_other_try(place, tmp_path):
    statuses(place, "wait wait")
    command = [str(SCRIPTS / "launch_ssh.sh"), "--retries", "3", str(tmp_path / "hosts"), "worker"]
    with subprocess.Popen(command, env=place, stderr=subprocess.PIPE, text=True) as run:
        while len(noted(place, "ran")) < 2:
            time.sleep(0.05)
        time.sleep(0.5)
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 75
        assert run.stderr is not None and "again" not in run.stderr.read()
    assert noted(place, "ran").count("told") == 2 and len(noted(place, "calls")) == 2


def test_a_broken_connection_ends_the_other_side(place, tmp_path):
    statuses(place, "wait wait")
    command = [str(SCRIPTS / "launch_ssh.sh"), str(tmp_path / "hosts"), "worker"]
    with subprocess.Popen(command, env=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while len(noted(place, "ran")) < 2:
            time.sleep(0.05)
        time.sleep(0.5)
        run.kill()
        end = time.monotonic() + 30
        while noted(place, "ran").count("told") < 2:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_file_without_hosts(place, tmp_path):
    (tmp_path / "none").write_text("# nobody\n")
    for file, words in (("none", "names no host"), ("missing", "cannot be read")):
        done = call(place, "launch_ssh.sh", tmp_path / file, "worker")
        assert done.returncode == 2 and words in done.stderr


@pytest.mark.parametrize("status", [0, 2, *sorted(int(s) for s in {*AGAIN, *Exit} - {0, 2})])
def test_a_slurm_job_goes_back_into_the_queue_where_it_helps(place, status):
    statuses(place, str(status))
    done = call(place, "launch_slurm.sh", "worker", "x", SLURM_JOB_ID="12")
    assert done.returncode == status
    started, *then = noted(place, "calls")
    assert started.startswith("srun --ntasks-per-node=1 ") and started.endswith(" worker x")
    assert then == (["scontrol requeue 12"] if status in AGAIN else [])


def test_a_slurm_job_gives_up_after_so_many_times(place):
    statuses(place, "75")
    done = call(place, "launch_slurm.sh", "worker", SLURM_JOB_ID="12", SLURM_RESTART_COUNT="3", PROTLOC_RETRIES="3")
    assert done.returncode == 75 and "giving up" in done.stderr and len(noted(place, "calls")) == 1


def test_a_cancelled_slurm_job_is_left_to_slurm(place):
    statuses(place, "wait")
    command = [str(SCRIPTS / "launch_slurm.sh"), "worker"]
    with subprocess.Popen(command, env={**place, "SLURM_JOB_ID": "12"}, stderr=subprocess.PIPE) as run:
        while not noted(place, "ran"):
            time.sleep(0.05)
        time.sleep(0.5)
        run.send_signal(signal.SIGTERM)
        assert run.wait(30) == 75
    assert len(noted(place, "calls")) == 1 and "told" in noted(place, "ran")


def test_sbatch_reads_the_options_of_the_slurm_script():
    text = (SCRIPTS / "launch_slurm.sh").read_text()
    options = [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert {"--requeue", "--ntasks-per-node=1", "--signal=TERM@120", "--open-mode=append"} <= set(options)
    # sbatch stops looking at the first command.
    assert text.index("\nset -uo pipefail") > text.rindex("#SBATCH ")


def test_outside_of_a_job_the_slurm_script_says_how(place):
    done = call(place, "launch_slurm.sh", "worker")
    assert done.returncode == 2 and "sbatch --nodes=N" in done.stderr


@pytest.mark.parametrize(
    ("first", "retries", "tried", "status"),
    [("0 0", 2, 1, 0), ("69 75", 1, 2, 75), ("69 69", 1, 2, 69), ("69 2", 1, 1, 2)],
)
def test_a_tpu_slice_starts_again_as_soon_as_it_is_ready(place, tmp_path, first, retries, tried, status):
    statuses(place, first)
    (Path(place["FAKE"]) / "states").write_text("CREATING\nREADY\n")
    more = {"PROTLOC_DIR": str(tmp_path)}
    done = call(place, "launch_tpu_pod.sh", "--retries", retries, "slice", "zone-a", "worker", "a b", **more)
    assert (done.returncode, len(noted(place, "ran"))) == (status, 2 * tried), done.stderr
    assert all(line.startswith("a b ") and line.endswith(f"in {tmp_path}") for line in noted(place, "ran"))
    calls = noted(place, "calls")
    asked = [c for c in calls if " describe slice --zone=zone-a" in c]
    assert len(asked) == 2 * (tried - 1)
    assert calls[0].startswith("gcloud compute tpus tpu-vm ssh slice --zone=zone-a --worker=all --command=")


def test_the_manifest_for_kubernetes_names_the_statuses_of_this_project():
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the manifest")
    found = yaml.safe_load((SCRIPTS / "launch_gke.yaml").read_text())
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert found["metadata"]["annotations"]["alpha.jobset.sigs.k8s.io/exclusive-topology"]
    (workers,) = found["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert job["completionMode"] == "Indexed" and job["parallelism"] == job["completions"] > 1
    assert job["backoffLimit"] == 0 and found["spec"]["failurePolicy"]["maxRestarts"] > 0
    rules = {rule["action"]: rule for rule in job["podFailurePolicy"]["rules"]}
    final = set(rules["FailJob"]["onExitCodes"]["values"])
    assert final == {1, 2, *(int(e) for e in Exit)} - {int(s) for s in AGAIN} - {0}
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never" and rules["FailJob"]["onExitCodes"]["containerName"] == container["name"]
    from protloc_jax.train.experiment import RunConfig

    assert pod["terminationGracePeriodSeconds"] > RunConfig().grace_seconds
    assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in container["volumeMounts"]}


def test_the_launchers_agree_on_which_statuses_help():
    for script in SCRIPTS.glob("launch_*.sh"):
        (line,) = [text for text in script.read_text().splitlines() if text.startswith("again()")]
        listed = {int(s) for s in line.split("in ")[1].split(")")[0].replace("|", " ").split()}
        assert listed - {255} == {int(s) for s in AGAIN}, script
        assert (255 in listed) == ("ssh" in script.name or "tpu" in script.name)
