"""Dealing items out to processes."""

import jax
import pytest

from magiccolor_jax.parallel.multihost import Distributed, Share, connect, find_cluster, share


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_every_item_goes_to_exactly_one_process(count):
    items = list(range(11))
    shares = [Share(index, count).of(items) for index in range(count)]
    assert sorted(sum(shares, [])) == items
    assert all(item % count == index for index, part in enumerate(shares) for item in part)


def test_reads_index_and_count():
    assert share("3/4") == Share(3, 4)


def test_without_text_jax_knows():
    assert share(None) == Share(0, 1)


@pytest.mark.parametrize("text", ["", "1", "4/4", "-1/4", "a/2", "1/", "1/2/3", "0/0"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="process must be I/N"):
        share(text)


STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-4]", "SLURM_PROCID": "0"}
MPI = {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:9", "OMPI_COMM_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "cluster"),
    [
        ({}, None),
        (STEP | {"SLURM_NTASKS": "4"}, "SLURM"),
        (STEP | {"SLURM_NTASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),  # a batch script without srun
        (MPI, "Open MPI"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # a notebook in a cluster
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
        ({"JOB_COMPLETION_INDEX": "0"}, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "t0,t1"}, "TPU pod by host names"),
        ({"TPU_PROCESS_ADDRESSES": "t0:8476,t1:8476"}, "TPU pod"),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "t0"}, "TPU multislice"),
    ],
)
def test_clusters_are_known_by_their_variables(environment, cluster):
    assert find_cluster(environment) == cluster


def test_a_cluster_that_cannot_be_read_is_told(monkeypatch):
    for name, value in MPI.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "nonsense")
    with pytest.raises(ValueError, match="Open MPI.* Give --distributed.coordinator HOST:PORT"):
        connect(Distributed())


@pytest.mark.parametrize(
    ("coordinator", "process", "message"),
    [
        ("host0", 0, "coordinator must be HOST:PORT"),
        ("host0:", 0, "coordinator must be HOST:PORT"),
        (":1234", 0, "coordinator must be HOST:PORT"),
        ("host0:1234", 2, "process must be 0 to 1 of 2, got 2"),
        ("host0:1234", -1, "process must be 0 to 1"),
    ],
)
def test_flags_that_lead_nowhere_are_refused(coordinator, process, message):
    with pytest.raises(ValueError, match=message):
        Distributed(coordinator=coordinator, processes=2, process=process)


def test_a_coordinator_that_does_not_answer_is_named(monkeypatch):
    def refuse(*_):
        raise RuntimeError("deadline exceeded")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(ValueError, match="process 1 of 2 cannot join the others at host0:1234"):
        connect(Distributed(coordinator="host0:1234", processes=2, process=1))
