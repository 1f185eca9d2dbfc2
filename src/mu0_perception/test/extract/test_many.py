"""Many recordings at once."""

import pytest

from mu0_core.config import to_dict
from mu0_perception.extract.config import ExtractConfig
from mu0_perception.extract.many import extract_all
from mu0_perception.extract.sources import find_recordings
from mu0_perception.extract.state import OutFolder


@pytest.fixture
def three(film, bag, tmp_path):
    film = film(10)
    for name in ("a", "b"):
        bag(film, name)
    root = bag(film, "bad", without=("info",)).parent
    config = ExtractConfig()
    out = tmp_path / "episodes"
    OutFolder(out).claim(to_dict(config))
    return find_recordings(root, config.source), out, config


def _statuses(results):
    return {r.name: r.status for r in results}


@pytest.mark.slow
def test_processes_work_beside_each_other(three):
    found, out, config = three
    results = list(extract_all(found, out, config, jobs=2))
    assert _statuses(results) == {"a": "done", "b": "done", "bad": "failed"}
    assert (out / "a/extract.json").exists()


@pytest.mark.slow
def test_two_nodes_of_a_ray_cluster_share_the_work(three):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    try:
        found, out, config = three
        results = list(extract_all(found, out, config, ray_address=cluster.address))
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
    assert _statuses(results) == {"a": "done", "b": "done", "bad": "failed"}
