"""Where a process stands, as the environments of launchers tell it."""

from __future__ import annotations

import sys

import pytest

from protloc_jax.launch.place import Place, find_place, host_and_port, whole_number

STEP = {
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_ID": "3",
    "SLURM_PROCID": "2",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[07-10]",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
    "SLURM_NODEID": "2",
    "SLURM_LOCALID": "0",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_ess_base_jobid": "17",
}


@pytest.fixture
def dev(tmp_path):
    """A /dev with eight GPUs."""
    for name in [*(f"nvidia{i}" for i in range(8)), "nvidiactl", "nvidia-uvm"]:
        (tmp_path / name).touch()
    return tmp_path


def test_nothing_said_is_alone():
    assert find_place({}) == Place() == (0, 1, "", None, "alone")


def test_all_three_variables_come_before_everything_else():
    given = {"PROTLOC_COORDINATOR": "a:1", "PROTLOC_PROCESSES": "3", "PROTLOC_PROCESS": "1"}
    found = find_place({**STEP, **MPI, **given, "PROTLOC_DISTRIBUTED": "off"})
    assert found[:4] == (1, 3, "a:1", None)
    with pytest.raises(ValueError, match="PROTLOC_PROCESS set without PROTLOC_COORDINATOR, PROTLOC_PROCESSES"):
        find_place({"PROTLOC_PROCESS": "0"})
    for address in ("a", "a:", ":1", "a:b", "a:0", "a:65536"):
        with pytest.raises(ValueError, match=r"PROTLOC_COORDINATOR=.*must be host:port"):
            find_place({**given, "PROTLOC_COORDINATOR": address})
    with pytest.raises(ValueError, match="PROTLOC_PROCESS=3: must be from 0 to PROTLOC_PROCESSES-1 = 2"):
        find_place({**given, "PROTLOC_PROCESS": "3"})
    with pytest.raises(ValueError, match="PROTLOC_PROCESS=-1: must be at least 0"):
        find_place({**given, "PROTLOC_PROCESS": "-1"})


def test_off_is_alone_and_other_words_are_refused_with_the_nearest():
    assert find_place({**STEP, "PROTLOC_DISTRIBUTED": "off"}).processes == 1
    with pytest.raises(ValueError, match=r"PROTLOC_DISTRIBUTED=of: must be 'off' or 'auto'\. Did you mean 'off'\?"):
        find_place({"PROTLOC_DISTRIBUTED": "of"})
    with pytest.raises(ValueError, match=r"PROTLOC_DISTRIBUTED=auto: this is no Slurm step.*PROTLOC_COORDINATOR"):
        find_place({"PROTLOC_DISTRIBUTED": "auto"})


def test_a_slurm_step_of_one_process_a_node_leaves_every_device_to_it(dev):
    found = find_place(STEP, dev=dev)
    assert found == Place(2, 4, f"gpu07:{61440 + (4242 + 3) % 4096}", None, "Slurm step 4242.3")
    assert find_place({**STEP, "PROTLOC_PORT": "12"}, dev=dev).coordinator == "gpu07:12"
    assert find_place({**STEP, "PROTLOC_DISTRIBUTED": "auto"}, dev=dev) == found


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_STEP_ID": ""},  # the script of sbatch
        {"SLURM_STEP_ID": str(0xFFFFFFFA)},  # the shell of salloc, an interactive step
        {"SLURM_STEP_ID": str(0xFFFFFFFB)},  # the batch step
        {"SLURM_NTASKS": "1"},
        {"SLURM_STEP_NUM_TASKS": "1"},  # a step of one task in a job of four
    ],
)
def test_a_slurm_shell_is_alone(changes, dev):
    assert find_place({**STEP, **changes}, dev=dev).processes == 1


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("node7,other", "node7"),
        ("node[001-015],host2", "node001"),
        ("node[003,007-015]", "node003"),
        ("rack[2-3]-node[04-09]", "rack2-node04"),
        ("a-b.c.org,d[1-2]", "a-b.c.org"),
    ],
)
def test_the_first_node_of_a_list(nodes, first, dev):
    assert find_place({**STEP, "SLURM_STEP_NODELIST": nodes}, dev=dev).coordinator.split(":")[0] == first


def test_processes_of_one_node_share_its_devices(dev):
    four = {**STEP, "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_NODEID": "0", "SLURM_LOCALID": "2"}
    assert find_place(four, dev=dev).devices == (4, 5)
    assert find_place({**four, "CUDA_VISIBLE_DEVICES": "2,3,5,7"}, dev=dev).devices == (2,)
    # Slurm has dealt them out: each process sees its own only.
    assert find_place({**four, "CUDA_VISIBLE_DEVICES": "3"}, dev=dev).devices is None
    assert find_place({**four, "SLURM_GPUS_PER_TASK": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, dev=dev).devices is None
    with pytest.raises(ValueError, match="8 GPUs on this host do not divide among its 3 processes"):
        find_place({**four, "SLURM_STEP_TASKS_PER_NODE": "3(x1),1"}, dev=dev)
    assert find_place(four, dev=dev / "nothing").devices is None


def test_mpirun_tells_as_well(dev):
    with pytest.raises(ValueError, match=r"PROTLOC_PROCESS=\$OMPI_COMM_WORLD_RANK"):
        find_place(MPI, dev=dev)
    uri = "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"
    found = find_place({**MPI, "OMPI_MCA_orte_hnp_uri": uri}, dev=dev)
    assert found[:2] == (3, 4) and found.coordinator.startswith("10.96.0.1:") and found.devices == (4, 5, 6, 7)
    one_host = find_place({**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "3"}, dev=dev)
    assert one_host.coordinator.startswith("127.0.0.1:") and one_host.devices == (6, 7)
    assert host_and_port(one_host.coordinator)[1] == host_and_port(found.coordinator)[1] >= 61440
    # Under Slurm, mpirun's processes inherit the numbers of its daemons' step.
    inside = {**STEP, "SLURM_NTASKS": "2", **MPI, "OMPI_MCA_orte_hnp_uri": uri}
    assert find_place(inside, dev=dev).how == "Open MPI"


def test_a_tpu_slice_of_several_hosts(monkeypatch):
    """The variables of Google Kubernetes Engine, read by jax itself."""
    from jax._src import cloud_tpu_init
    from jax._src.clusters import cloud_tpu_cluster

    for module in (cloud_tpu_init, cloud_tpu_cluster):
        monkeypatch.setattr(module, "running_in_cloud_tpu_vm", True)
    for name, value in {"TPU_WORKER_HOSTNAMES": "localhost,b,c,d", "TPU_WORKER_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"):
        monkeypatch.setenv(name, "")
        monkeypatch.setattr(cloud_tpu_cluster, "get_tpu_env_value", lambda name: "")
    assert find_place({}) == Place(3, 4, "localhost:8482", None, "TPU slice")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    assert find_place({}) == Place()


def test_addresses_and_numbers():
    assert host_and_port("[fe80::1]:12") == ("fe80::1", 12)
    assert whole_number({}, "N", 7) == 7
    with pytest.raises(ValueError, match="N=x: must be an integer"):
        whole_number({"N": "x"}, "N", 7)
    with pytest.raises(ValueError, match="N=0: must be at least 1"):
        whole_number({"N": "0"}, "N", 7, least=1)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place(), "one process (alone)"),
        (Place(1, 2, "h:3", (4, 5), "x"), "process 1 of 2, meeting at h:3 (x), devices 4,5 of this host"),
    ],
)
def test_words(place, words):
    assert place.words == words


def test_asking_loads_no_accelerator():
    """A place is found before jax may be used for anything."""
    import subprocess

    code = (
        "from protloc_jax.launch.place import find_place; find_place()\n"
        "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
