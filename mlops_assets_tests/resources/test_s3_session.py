"""Sessions for an object store: descriptions of services are read once, all else is each session's own."""

import pytest
from botocore.loaders import JSONFileLoader

from mlops_assets.resources.lake import Lake, S3Config


def lake(key: str) -> Lake:
    config = S3Config(
        endpoint_url="http://127.0.0.1:9",
        region_name="eu-central-1",
        aws_access_key_id=key,
        aws_secret_access_key="secret",
    )
    return Lake(uri="s3://bucket", s3=config)


def test_the_second_client_reads_no_description_again_and_has_credentials_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = lake("one").s3_client()
    read: list[str] = []
    load = JSONFileLoader.load_file

    def noted(self: JSONFileLoader, path: str) -> object:
        read.append(path)
        return load(self, path)

    monkeypatch.setattr(JSONFileLoader, "load_file", noted)
    second = lake("other").s3_client()

    assert read == []
    assert second.meta.region_name == "eu-central-1" and second.meta.endpoint_url == "http://127.0.0.1:9"
    urls = [client.generate_presigned_url("list_buckets") for client in (first, second)]
    assert "Credential=one%2F" in urls[0] or "AWSAccessKeyId=one" in urls[0]
    assert "Credential=other%2F" in urls[1] or "AWSAccessKeyId=other" in urls[1]
