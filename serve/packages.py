"""A model package: a folder with a manifest and one model file.

Belongs here: its bytes, its digest, reading and writing it. Does not belong here: what the model file means
(``formats/``), assembling a package (training).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from serve.schema import ModelManifest

MANIFEST_FILE = "model.json"


def manifest_bytes(manifest: ModelManifest) -> bytes:
    """Canonical JSON of a manifest: equal manifests give equal bytes."""
    document = manifest.model_dump(mode="json")
    # Packages made before these fields existed keep their bytes, and so their digest.
    if not manifest.entity:
        del document["entity"]
    if manifest.training_window is None:
        del document["training_window"]
    if manifest.online is None:
        del document["online"]
    return json.dumps(document, sort_keys=True, indent=1).encode()


def package_digest(manifest: ModelManifest, payload: bytes) -> str:
    """SHA-256 over manifest and model file, 64 hex characters: the version of a model's content."""
    digest = hashlib.sha256(manifest_bytes(manifest))
    digest.update(payload)
    return digest.hexdigest()


def read_package(uri: str, storage_options: Mapping[str, str] | None = None) -> tuple[ModelManifest, bytes]:
    """Manifest and model file of the package folder ``uri``; FileNotFoundError as ``load_package``."""
    filesystem, root = _filesystem(uri, storage_options or {})

    def read(name: str) -> bytes:
        with filesystem.open_input_file(f"{root}/{name}") as stream:
            return cast(bytes, stream.read())

    manifest = ModelManifest.model_validate_json(read(MANIFEST_FILE))
    return manifest, read(manifest.model_file)


def package_bytes(uri: str, manifest: ModelManifest, storage_options: Mapping[str, str] | None = None) -> int:
    """Size of the model file in the package folder ``uri``; FileNotFoundError when it is not there."""
    filesystem, root = _filesystem(uri, storage_options or {})
    size = filesystem.get_file_info(f"{root}/{manifest.model_file}").size
    if size is None:
        raise FileNotFoundError(f"{root}/{manifest.model_file}")
    return int(size)


def write_package(
    uri: str, manifest: ModelManifest, payload: bytes, storage_options: Mapping[str, str] | None = None
) -> None:
    """Writes the package folder ``uri``. The manifest goes last: a folder with one is complete."""
    filesystem, root = _filesystem(uri, storage_options or {})
    filesystem.create_dir(root, recursive=True)
    for name, content in ((manifest.model_file, payload), (MANIFEST_FILE, manifest_bytes(manifest))):
        with filesystem.open_output_stream(f"{root}/{name}") as stream:
            stream.write(content)


def _filesystem(uri: str, storage_options: Mapping[str, str]) -> tuple[Any, str]:
    from pyarrow import fs

    if uri.startswith("s3://"):
        endpoint = storage_options.get("endpoint_url", "")
        return (
            fs.S3FileSystem(endpoint_override=endpoint or None, region=storage_options.get("region") or None),
            uri.removeprefix("s3://").rstrip("/"),
        )
    return fs.LocalFileSystem(), uri.removeprefix("file://").rstrip("/")
