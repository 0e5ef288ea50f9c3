"""Small objects in S3 that are written only if nobody else wrote them meanwhile.

Belongs here: reading an object with its tag, writing it on the condition that the tag still holds, whether a
store keeps to such conditions. Does not belong here: what is written (``resources/log_hour.py``), large
objects, tables (Delta Lake writes its own conditions).

pyarrow's file system has no conditions, so this is boto3. Some stores ignore them and answer 200: two writers
then both believe that they were first. ``require_conditions`` finds out.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlops_assets.errors import DataError

ANOTHER_WAS_FIRST = frozenset({404, 409, 412})
"""HTTP: the object is gone, is being written this moment, or has another tag."""


@dataclass(frozen=True)
class StoredObject:
    """An object's content, and the tag that stands for exactly this content."""

    content: bytes
    tag: str


class ConditionalStore:
    """The store that deltalake's ``options`` describe. Paths are ``bucket/key``."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._client = _client(options)
        self._has_conditions = False

    def read(self, path: str) -> StoredObject | None:
        """The object as it is now; None when there is none. DataError when it cannot be read."""
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, key = path.partition("/")
        try:
            found = self._client.get_object(Bucket=bucket, Key=key)
            return StoredObject(found["Body"].read(), found["ETag"])
        except ClientError as error:
            if _status(error) == 404:
                return None
            raise DataError(f"Cannot read s3://{path}: {error}") from error
        except BotoCoreError as error:
            raise DataError(f"Cannot read s3://{path}: {error}") from error

    def write(self, path: str, content: bytes, *, replacing: str | None) -> bool:
        """Writes the object if its tag is still ``replacing`` (None: if there is none yet); whether it did.

        False may also mean that it did and the answer was lost: read it to know. DataError for anything else.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, key = path.partition("/")
        condition = {"IfNoneMatch": "*"} if replacing is None else {"IfMatch": replacing}
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=content, **condition)
        except ClientError as error:
            if _status(error) in ANOTHER_WAS_FIRST:
                return False
            raise DataError(f"Cannot write s3://{path}: {error}") from error
        except BotoCoreError as error:
            raise DataError(f"Cannot write s3://{path}: {error}") from error
        return True

    def require_conditions(self, folder: str) -> None:
        """Raises DataError unless the store keeps to conditions; asked once, with an object in ``folder``."""
        if self._has_conditions:
            return
        path = f"{folder}/.conditional-{uuid.uuid4().hex}"
        bucket, _, key = path.partition("/")
        try:
            first = self.write(path, b"first", replacing=None)
            ignored = [
                name
                for name, replacing in (("If-None-Match", None), ("If-Match", '"0"'))
                if self.write(path, b"second", replacing=replacing)
            ]
        finally:
            self._client.delete_object(Bucket=bucket, Key=key)
        if ignored or not first:
            raise DataError(
                f"The store of s3://{folder} ignores conditional writes ({' and '.join(ignored)}): of two "
                "writers at once both would believe that they were first, and answers would be lost. Keep "
                "the log in a store that has them, like AWS S3 or SeaweedFS, or in a local folder"
                if first
                else f"The store of s3://{folder} refuses to write a new object with If-None-Match: *"
            )
        self._has_conditions = True


def _client(options: Mapping[str, str]) -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    endpoint = options.get("AWS_ENDPOINT_URL")
    unsigned = options.get("AWS_SKIP_SIGNATURE") == "true"
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=options.get("AWS_REGION"),
        aws_access_key_id=options.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=options.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=options.get("AWS_SESSION_TOKEN"),
        config=Config(
            # Other stores than AWS have no host name per bucket, and need not know newer checksums.
            s3={"addressing_style": "path" if endpoint else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            **({"signature_version": UNSIGNED} if unsigned else {}),
        ),
    )


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
