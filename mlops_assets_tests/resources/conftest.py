"""The lake on a local folder and on a real S3-compatible server."""

from collections.abc import Iterator

import pytest

from mlops_assets.resources.lake import Lake, S3Config
from mlops_assets.testing.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, running_s3_server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_config(s3_server: S3Server) -> S3Config:
    return S3Config(
        endpoint_url=s3_server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


@pytest.fixture(params=["local", "s3"])
def lake(request: pytest.FixtureRequest) -> Lake:
    """An empty lake of either kind; every test runs on both."""
    if request.param == "local":
        return Lake(uri=str(request.getfixturevalue("tmp_path") / "lake"))
    server = request.getfixturevalue("s3_server")
    name = request.node.name.split("[")[0]
    return Lake(uri=f"s3://{server.bucket}/{name}", s3=request.getfixturevalue("s3_config"))
