"""Where a source file is, and its bytes: package files, local files, S3 objects.

Belongs here: turning the ``path`` of a declaration into bytes. Does not belong here: what the bytes
mean (``data/sources``), the lake's tables (``resources/lake.py``).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_assets.errors import DataError, SourceUnavailable

PACKAGE = "package://"
S3 = "s3://"
PARTITION = "{partition}"


def locate(path: str, *, folder: Path, partition: str | None = None) -> str:
    """Absolute location of a declared path: a local path, or an ``s3://`` address as it is.

    ``package://DISTRIBUTION/relative/path`` is a file of an installed distribution, found by its
    metadata without importing it; the path may leave out leading folders as long as one file fits.
    Other relative paths start at ``folder``. ``{partition}`` becomes the partition key.
    """
    if PARTITION in path:
        if partition is None:
            raise ValueError(f"{path} names one file per partition, and no partition was given")
        path = path.replace(PARTITION, partition)
    if path.startswith(S3):
        return path
    if path.startswith(PACKAGE):
        return str(_package_file(path))
    return str((folder / path).absolute())


def read_bytes(location: str, storage_options: Mapping[str, str]) -> bytes:
    """All bytes of a located file; DataError names the file and the reason it cannot be read.

    A local file that is written to meanwhile is an error too: its first rows would be taken for all of them.
    SourceUnavailable when it is not the file: the store does not answer, or its bucket cannot be read.
    """
    try:
        if location.startswith(S3):
            return _object_bytes(location, storage_options)
        with Path(location).open("rb") as stream:
            before = os.fstat(stream.fileno())
            content = stream.read()
            after = os.fstat(stream.fileno())
    except FileNotFoundError as error:
        raise DataError(f"Source file {location} does not exist.") from error
    except OSError as error:
        raise DataError(f"Cannot read source file {location}: {error}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(
            f"Source file {location} was written to while it was read. Try again when it is complete; a "
            "writer that makes it under another name and renames it is never seen half-way."
        )
    return content


def _object_bytes(location: str, storage_options: Mapping[str, str]) -> bytes:
    path = location.removeprefix(S3)
    filesystem = s3_filesystem(storage_options)
    try:
        with filesystem.open_input_file(path) as stream:
            return bytes(stream.read())
    except OSError as error:
        bucket = path.partition("/")[0]
        problem = _bucket_problem(filesystem, bucket)
        if problem is None:
            raise
        raise SourceUnavailable(f"Cannot read anything from {S3}{bucket}: {problem}") from error


def _bucket_problem(filesystem: Any, bucket: str) -> str | None:
    """Why a bucket cannot be read, or None when it can."""
    from pyarrow import fs

    try:
        found = filesystem.get_file_info(bucket)
    except OSError as error:
        return str(error)
    return None if found.type == fs.FileType.Directory else "there is no such bucket"


def s3_filesystem(options: Mapping[str, str]) -> Any:
    """The pyarrow file system for the store that deltalake's ``options`` describe."""
    from pyarrow import fs

    return fs.S3FileSystem(
        access_key=options.get("AWS_ACCESS_KEY_ID"),
        secret_key=options.get("AWS_SECRET_ACCESS_KEY"),
        session_token=options.get("AWS_SESSION_TOKEN"),
        region=options.get("AWS_REGION"),
        endpoint_override=options.get("AWS_ENDPOINT_URL"),
        anonymous=options.get("AWS_SKIP_SIGNATURE") == "true",
    )


def _package_file(path: str) -> Path:
    from importlib import metadata

    distribution, _, relative = path.removeprefix(PACKAGE).partition("/")
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError as error:
        raise DataError(
            f"{path}: no distribution {distribution!r} is installed. Add it to the project's dependencies."
        ) from error
    found = [file for file in files if f"/{file}".endswith(f"/{relative}")]
    if len(found) != 1:
        near = [str(file) for file in found or files if Path(str(file)).suffix == Path(relative).suffix]
        raise DataError(
            f"{path}: {len(found)} files of {distribution} end in {relative!r}. "
            f"Candidates: {', '.join(sorted(near)[:10]) or 'none'}."
        )
    return Path(str(found[0].locate()))
