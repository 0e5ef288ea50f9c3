"""Where source files lie: a local file system, and an object store that speaks S3.

Belongs here: which files there are, their bytes, and whether they are still what was listed. Does not belong
here: what a declared path means (``locations.py``), what the bytes mean (``sources/``).
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.data.locations import S3, read_bytes
from mlops_assets.errors import DataError, SourceUnavailable

CONNECTIONS = 16
"""Files of a source that are read side by side: more bring nothing, for each is also parsed."""
_TRIES = 3
"""How often an object is asked for whose body breaks off; the client itself repeats what never began."""


Wanted = Callable[[str], bool]


@dataclass(frozen=True, order=True)
class ListedFile:
    """A file as it was listed: ``mark`` is another one whenever its content may be."""

    location: str
    mark: str


class FileStore(ABC):
    """Files by their location, an absolute path or ``s3://`` address."""

    @abstractmethod
    def starts(self, prefixes: Iterable[str]) -> set[str]:
        """What is to be ``listed`` so that every file under one of these prefixes is among it."""

    @abstractmethod
    def listed(self, start: str, depth: int | None, wanted: Wanted) -> Iterator[ListedFile]:
        """The ``wanted`` files that begin with ``start``, at least those up to ``depth`` folders below it.

        No folder is like an empty one: an object store has no empty folders.
        """

    @abstractmethod
    def content(self, location: str, mark: str | None = None) -> bytes:
        """All bytes of a file; with a ``mark``, of the file that was listed with it.

        Raises DataError for what is wrong with this file, SourceUnavailable when the store does not answer or
        lets nobody in.
        """


class LocalFiles(FileStore):
    """Files that this machine sees. They are marked with their size and time."""

    def starts(self, prefixes: Iterable[str]) -> set[str]:
        return {prefix[: prefix.rindex("/") + 1] for prefix in prefixes}

    def listed(self, start: str, depth: int | None, wanted: Wanted) -> Iterator[ListedFile]:
        try:
            entries = list(os.scandir(start))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise DataError(f"Cannot list the folder {start}: {error}") from error
        for entry in entries:
            if not entry.is_dir():
                if wanted(entry.path):
                    yield ListedFile(entry.path, _local_mark(entry.path))
            elif depth is None or depth > 0:
                yield from self.listed(f"{entry.path}/", None if depth is None else depth - 1, wanted)

    def content(self, location: str, mark: str | None = None) -> bytes:
        if mark is not None and _local_mark(location) != mark:
            raise _changed(location)
        content = read_bytes(location)
        if mark is not None and _local_mark(location) != mark:
            raise _changed(location)
        return content


def _local_mark(location: str) -> str:
    try:
        found = Path(location).stat()
    except OSError as error:
        raise DataError(
            f"Source file {location} was listed in its folder and cannot be found: {error}. It was removed "
            "meanwhile, or is a link that leads nowhere."
        ) from error
    return f"{found.st_size} {found.st_mtime_ns}"


def _changed(location: str) -> DataError:
    return DataError(
        f"Source file {location} was replaced after it was listed: rows of before and after would be mixed. "
        "Try again when its writer is done."
    )


class S3Files(FileStore):
    """Objects of a store that speaks S3, through a botocore ``client``. They are marked with their ETag."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def starts(self, prefixes: Iterable[str]) -> set[str]:
        return set(prefixes)

    def listed(self, start: str, depth: int | None, wanted: Wanted) -> Iterator[ListedFile]:
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, prefix = start.removeprefix(S3).partition("/")
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for found in page.get("Contents", ()):
                    location = f"{S3}{bucket}/{found['Key']}"
                    # Some consoles make an object for a folder.
                    if wanted(location) and not location.endswith("/"):
                        yield ListedFile(location, f"{found['Size']} {found['ETag']}")
        except (BotoCoreError, ClientError) as error:
            raise _unavailable(f"Cannot list anything in {S3}{bucket}", error) from error

    def content(self, location: str, mark: str | None = None) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, key = location.removeprefix(S3).partition("/")
        asked = {"Bucket": bucket, "Key": key} | ({"IfMatch": mark.partition(" ")[2]} if mark else {})
        broken: BotoCoreError | None = None
        for _ in range(_TRIES):
            try:
                answer = self._client.get_object(**asked)
            except ClientError as error:
                raise _refused(location, bucket, error, listed=mark is not None) from error
            except BotoCoreError as error:
                raise _unavailable(f"Cannot read anything from {S3}{bucket}", error) from error
            try:
                return bytes(answer["Body"].read())
            except BotoCoreError as error:
                broken = error
        raise SourceUnavailable(
            f"Cannot read {location} whole from {S3}{bucket}, {_TRIES} times: {broken}"
        ) from broken


def _refused(location: str, bucket: str, error: Any, *, listed: bool) -> DataError:
    """What an error answer means: of this object, or of all of them."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in ("PreconditionFailed", "412"):
        return _changed(location)
    if code in ("NoSuchKey", "404"):
        when = " any more: it was removed after it was listed" if listed else ""
        return DataError(f"Source file {location} does not exist{when}.")
    if code in ("AccessDenied", "403"):
        return DataError(
            f"Source file {location} may not be read, or does not exist: a store where nobody may list says "
            f"the same of both ({error})."
        )
    return _unavailable(f"Cannot read anything from {S3}{bucket}", error)


_NEXT_STEPS = {
    "EndpointConnectionError": "Start the object store, or correct AWS_ENDPOINT_URL_S3 (empty: Amazon's).",
    "ConnectTimeoutError": "Start the object store, or correct AWS_ENDPOINT_URL_S3 (empty: Amazon's).",
    "NoCredentialsError": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, where runs start.",
    "NoSuchBucket": "Make the bucket, or correct `path`.",
    "InvalidAccessKeyId": "Correct AWS_ACCESS_KEY_ID where runs start.",
    "SignatureDoesNotMatch": "Correct AWS_SECRET_ACCESS_KEY where runs start.",
}
"""What to do, by the name of boto's error or the code of the store's."""


def _unavailable(what: str, error: Any) -> SourceUnavailable:
    """The error of a store that does not answer, or lets nobody in, with what to do where that is known."""
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    step = _NEXT_STEPS.get(code) or _NEXT_STEPS.get(type(error).__name__, "")
    return SourceUnavailable(f"{what}: {error}{'' if str(error).endswith('.') else '.'} {step}".rstrip())
