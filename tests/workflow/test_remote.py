"""Results are shared by a DVC remote: who clones and pulls has them all, and nothing runs."""

import boto3
import pytest
from moto.server import ThreadedMotoServer


@pytest.fixture
def folder(tmp_path) -> dict[str, str]:
    return {"url": str(tmp_path / "remote")}


@pytest.fixture
def s3(monkeypatch) -> dict[str, str]:
    """A bucket of a server on this machine that speaks S3."""
    settings = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (settings | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}).items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="results")
        yield {"url": "s3://results/laqfi", "endpointurl": endpoint}
    finally:
        server.stop()


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_a_second_clone_pulls_and_runs_nothing(by_dvc, tmp_path, request, where):
    remote = request.getfixturevalue(where)
    first = by_dvc.copy(tmp_path / "first")
    first.call("dvc", "remote", "add", "--default", "results", remote.pop("url"))
    for option, value in remote.items():
        first.call("dvc", "remote", "modify", "results", option, value)
    first.commit("share the results")
    first.call("dvc", "push")

    second = first.cloned(tmp_path / "second")
    assert second.outputs().keys() < by_dvc.outputs().keys(), "only the reports are in git"
    second.call("dvc", "pull")
    assert second.outputs() == by_dvc.outputs()
    assert "up to date" in second.call("dvc", "status").stdout
    again = second.call("dvc", "repro").stdout
    assert "up to date" in again
    assert "Running" not in again
    second.make("adopt-dvc")
    assert second.planned() == set()
    assert second.git("status", "--porcelain").stdout == ""
