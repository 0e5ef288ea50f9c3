"""The lake on a local folder and on a real S3-compatible server."""

import pytest

from mlops_assets.resources.lake import Lake


@pytest.fixture(params=["local", "s3"])
def lake(request: pytest.FixtureRequest) -> Lake:
    """An empty lake of either kind; every test runs on both."""
    if request.param == "local":
        return Lake(uri=str(request.getfixturevalue("tmp_path") / "lake"))
    server = request.getfixturevalue("s3_server")
    name = request.node.name.split("[")[0]
    return Lake(uri=f"s3://{server.bucket}/{name}", s3=request.getfixturevalue("s3_config"))
