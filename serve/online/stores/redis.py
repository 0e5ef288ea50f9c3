"""Redis or Valkey (6.2 or newer): for gateways on many hosts.

Belongs here: where values lie there, how a commit becomes visible, how the server is reached. Does not belong
here: what is held (``serve/online/held.py``).

The values of a view are one hash, the *base*. A commit first writes its values, piece by piece, to a hash of
its own that nobody reads. One short script then compares the head, and renames that hash to the *layer*, over
the base: readers, who ask both at once, see the whole commit or nothing of it. Then the layer's values go
into the base, piece by piece and unseen, because the layer lies over them; last the layer goes. So no commit
keeps the server from others for longer than one piece takes, however large it is, and a writer that dies
leaves either values that expire unread or a layer that the next commit puts away. A commit that replaces
everything becomes the base by itself.

The server does each of these steps whole and in order, and so do its replicas and what it keeps on disk: one
that lost its last seconds holds an earlier head with exactly the values of that head.
"""

import functools
import hashlib
import importlib.util
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from serve.online.held import HEAD
from serve.online.stores._base import Content, OnlineStore, StoreLost, StoreMoved, StoreNotSetUp

VARIABLE = "MLOPS_ONLINE_REDIS_URL"
"""Environment variable with the server's address. It may hold a password: only host and port are told."""
FORM = "redis://user:password@host:port/db, or rediss:// for TLS"
READ_S, COMMIT_S = 0.5, 30.0
"""How long a server may be silent: to those who ask a gateway for keys, and to a writer."""
PAUSE_S = 1.0
"""After a server was silent or away, how long readers take it for lost without asking again."""
PIECE_KEYS, PIECE_BYTES = 500, 1 << 20
READ_KEYS = 1_000
STAGED_S = 3600
"""When values expire whose writer died."""
TRIES = 5
TOKEN_BYTES = 16
KEPT, GONE = b"+", b"-"
"""The first byte of a stored value; what is gone stands in a layer until it is put away."""

logger = logging.getLogger(__name__)

# Values of fields, of layer and base in turns, so many at once as a script may unpack.
READ = """
local found = {}
local layered = redis.call('EXISTS', KEYS[2]) == 1
for first = 1, #ARGV, 1000 do
  local last = math.min(first + 999, #ARGV)
  found[#found + 1] = layered and redis.call('HMGET', KEYS[2], unpack(ARGV, first, last)) or {}
  found[#found + 1] = redis.call('HMGET', KEYS[1], unpack(ARGV, first, last))
end
return found
"""
STAGE = """
for at = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
return redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
# The same commit tried twice, because an answer was lost, is done already.
SHOW = """
local layered = redis.call('EXISTS', KEYS[2]) == 1
local head = redis.call('HGET', KEYS[layered and 2 or 1], ARGV[1])
if head and string.sub(head, 2, 17) == ARGV[2] then return 'shown' end
local found = head and '+' .. string.sub(head, 18) or ''
if found ~= ARGV[3] then return 'moved' end
if layered and ARGV[4] == '' then return 'layered' end
if redis.call('PERSIST', KEYS[3]) == 0 then return 'expired' end
if head and ARGV[4] == '' then
  redis.call('RENAME', KEYS[3], KEYS[2])
else
  redis.call('UNLINK', KEYS[1], KEYS[2])
  redis.call('RENAME', KEYS[3], KEYS[1])
end
return 'shown'
"""
FOLD = """
local piece = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
for at = 1, #piece[2], 2 do
  if string.sub(piece[2][at + 1], 1, 1) == '-' then
    redis.call('HDEL', KEYS[1], piece[2][at])
  else
    redis.call('HSET', KEYS[1], piece[2][at], piece[2][at + 1])
  end
end
return piece[1]
"""
# Only the layer that was put away whole: another may lie there by now.
DROP = """
local head = redis.call('HGET', KEYS[1], ARGV[1])
if head and string.sub(head, 2, 17) == ARGV[2] then redis.call('UNLINK', KEYS[1]) end
return 'dropped'
"""


class RedisStore(OnlineStore):
    """``MLOPS_ONLINE_REDIS_URL`` says where the server is; ``uri`` says nothing here.

    A cluster is found out by itself. The keys of a view share a hash tag: it lies on one of the shards.
    """

    name: ClassVar[str] = "redis"
    waits: ClassVar[bool] = True

    def __init__(self, uri: str, *, view: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.check_installed()
        self._url, self._address = _url_and_address()
        self._view, self._clock = view, clock
        tag = f"mlops:online:{{{view}}}"
        self._base, self._layer, self._staged = f"{tag}:base", f"{tag}:layer", f"{tag}:staged:"
        self._reader: Any = None
        self._lost_until = (0.0, "")

    @classmethod
    def check_installed(cls) -> None:
        if importlib.util.find_spec("redis") is None:
            raise StoreNotSetUp(
                "The online store 'redis' needs the client of Redis, which is not installed: install the "
                "extra 'redis' (pip install 'mlops-assets[redis]')."
            )

    def read(self, keys: Sequence[str]) -> list[Content]:
        fields = [key.encode() for key in keys]
        with self._reading() as client:
            found = self._read_many(client, fields)
        return [_content(key, value) for key, value in zip(keys, found, strict=True)]

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        for _ in range(TRIES):
            with self._reading() as client:
                before = self._read(client, [HEAD.encode()])
                # The layer first: what is put away meanwhile is found in the base.
                layer = dict(self._scanned(client, self._layer, prefix))
                found = {**dict(self._scanned(client, self._base, prefix)), **layer}
                after = self._read(client, [HEAD.encode()])
            if before == after:
                for field, value in found.items():
                    key = field.decode()
                    content = _content(key, value)
                    if content is not None:
                        yield key, content
                return
        raise StoreLost(f"{self._told()} was written to whenever it was scanned; try again.")

    def commit(
        self, puts: Mapping[str, Content], *, head: bytes, expected: Content, clear: bool = False
    ) -> None:
        token = secrets.token_bytes(TOKEN_BYTES)
        staged = f"{self._staged}{token.hex()}"
        alone = clear or expected is None
        with self._using(COMMIT_S) as client:
            self._refuse_eviction(client)
            [found] = self._read(client, [HEAD.encode()])
            if _content(HEAD, found) != expected:
                raise self._moved()
            for piece in _pieces(puts, head=KEPT + token + head, without_gone=alone):
                self._run(client, STAGE, [staged], [STAGED_S, *piece])
            told = b"layered"
            while told == b"layered":
                self._put_away(client)
                told = self._run(
                    client,
                    SHOW,
                    [self._base, self._layer, staged],
                    [HEAD, token, b"" if expected is None else KEPT + expected, b"1" if alone else b""],
                )
            if told == b"shown":
                self._put_away_shown(client)
                return
            client.unlink(staged)
        if told == b"expired":
            raise StoreLost(f"{self._told()} took longer than {STAGED_S} s to take a commit; try again.")
        raise self._moved()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    # -- the server --------------------------------------------------------------------------------

    def _read(self, client: Any, fields: Sequence[bytes]) -> list[Content]:
        """Stored values of one moment."""
        parts = iter(self._run(client, READ, [self._base, self._layer], fields))
        found: list[Content] = []
        for layer, base in zip(parts, parts, strict=True):
            found += [over or under for over, under in zip(layer, base, strict=True)] if layer else base
        return found

    def _read_many(self, client: Any, fields: Sequence[bytes]) -> list[Content]:
        """Stored values of one moment, in parts that all have its head, so that others are served between."""
        for _ in range(TRIES if len(fields) > READ_KEYS else 0):
            found: list[Content] = []
            heads = set()
            for start in range(0, len(fields), READ_KEYS):
                head, *values = self._read(client, [HEAD.encode(), *fields[start : start + READ_KEYS]])
                heads.add(head)
                found += values
            if len(heads) == 1:
                return found
        return self._read(client, fields)

    def _scanned(self, client: Any, name: str, prefix: str) -> Iterator[tuple[bytes, bytes]]:
        pattern = "".join(f"\\{one}" if one in "*?[]\\" else one for one in prefix) + "*"
        cursor = 0
        while True:
            cursor, found = client.hscan(name, cursor, match=pattern, count=READ_KEYS)
            yield from found.items()
            if not cursor:
                return

    def _put_away(self, client: Any) -> None:
        """The layer, if there is one, goes into the base."""
        head = client.hget(self._layer, HEAD)
        if head is None:
            return
        average = (client.memory_usage(self._layer) or 0) / (client.hlen(self._layer) or 1)
        count = max(1, min(PIECE_KEYS, int(PIECE_BYTES / max(1.0, average))))
        cursor = b"0"
        while True:
            cursor = self._run(client, FOLD, [self._base, self._layer], [cursor, count])
            if cursor == b"0":
                break
        self._run(client, DROP, [self._layer], [HEAD, head[1 : 1 + TOKEN_BYTES]])

    def _put_away_shown(self, client: Any) -> None:
        from redis.exceptions import RedisError

        try:
            self._put_away(client)
        except (RedisError, OSError) as error:
            logger.warning("%s took a commit; the next one finishes putting it away: %s", self._told(), error)

    def _refuse_eviction(self, client: Any) -> None:
        memory = self._memory(client)
        policy = str(memory["maxmemory_policy"])
        if memory["maxmemory"] and policy.startswith("allkeys"):
            raise StoreLost(
                f"{self._told()} may evict what it holds (maxmemory-policy {policy}), and half a store would "
                "answer wrongly: set maxmemory-policy to noeviction, or to one that begins with volatile."
            )

    def _memory(self, client: Any) -> Mapping[str, Any]:
        from redis.cluster import RedisCluster

        if isinstance(client, RedisCluster):
            node = client.get_node_from_key(self._base)
            return client.info("memory", target_nodes=node)
        return client.info("memory")

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        until, problem = self._lost_until
        if self._clock() < until:
            raise StoreLost(problem)
        try:
            with self._told_errors():
                if self._reader is None:
                    self._reader = self._connect(READ_S)
                yield self._reader
        except StoreLost as error:
            self.close()
            self._lost_until = self._clock() + PAUSE_S, str(error)
            raise

    @contextmanager
    def _using(self, timeout_s: float) -> Iterator[Any]:
        with self._told_errors():
            client = self._connect(timeout_s)
            try:
                yield client
            finally:
                client.close()

    def _connect(self, timeout_s: float) -> Any:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.cluster import RedisCluster
        from redis.retry import Retry

        options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            # A server that was started anew has closed the connection.
            "retry": Retry(NoBackoff(), 1),
        }
        client = Redis.from_url(self._url, **options)
        told = client.execute_command("HELLO")
        facts = told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))
        if facts[b"mode"] != b"cluster":
            return client
        client.close()
        return RedisCluster.from_url(self._url, **options)

    def _run(self, client: Any, script: str, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        from redis.exceptions import NoScriptError

        try:
            return client.evalsha(_digest(script), len(names), *names, *arguments)
        except NoScriptError:
            return client.eval(script, len(names), *names, *arguments)

    @contextmanager
    def _told_errors(self) -> Iterator[None]:
        from redis.exceptions import OutOfMemoryError, RedisClusterException, RedisError

        try:
            yield
        except (RedisError, RedisClusterException, OSError) as error:
            advice = "Start that server, or correct the variable where gateways and runs start."
            if isinstance(error, OutOfMemoryError):
                advice = "Give that server more memory; what it holds is as it was."
            raise StoreLost(f"{self._told()} cannot be used: {str(error).rstrip('.')}. {advice}") from error

    def _told(self) -> str:
        return f"The online store {self._view} in Redis at {self._address} (environment variable {VARIABLE})"

    def _moved(self) -> StoreMoved:
        return StoreMoved(f"{self._told()} was written meanwhile; read its head and try again.")


def _url_and_address() -> tuple[str, str]:
    """What the variable holds, and the part of it that may be told. Raises StoreNotSetUp."""
    from redis.connection import parse_url

    url = os.environ.get(VARIABLE, "")
    if not url:
        raise StoreNotSetUp(
            f"Environment variable {VARIABLE} is not set: it says where the online store 'redis' is "
            f"({FORM}). Set it where gateways (Ray) and runs (Dagster) start."
        )
    try:
        parts: Mapping[str, Any] = parse_url(url)
    except ValueError:
        # The reason repeats a part of the address, which may be the password.
        raise StoreNotSetUp(f"Environment variable {VARIABLE} holds no address of a Redis: {FORM}.") from None
    if "path" in parts:
        return url, str(parts["path"])
    return url, f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}"


@functools.cache
def _digest(script: str) -> str:
    # The server calls scripts by this.
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _content(key: str, stored: Content) -> Content:
    """A value as it was given; the head's has the token of its commit before it."""
    if stored is None or stored.startswith(GONE):
        return None
    return stored[1 + TOKEN_BYTES :] if key == HEAD else stored[1:]


def _pieces(puts: Mapping[str, Content], *, head: bytes, without_gone: bool) -> Iterator[list[Any]]:
    """Fields and stored values in turns, in pieces that a server takes quickly; the head in the first."""
    piece: list[Any] = [HEAD, head]
    size = 0
    for key, value in puts.items():
        if value is None and without_gone:
            continue
        if len(piece) >= 2 * PIECE_KEYS or size > PIECE_BYTES:
            yield piece
            piece, size = [], 0
        piece += [key, GONE if value is None else KEPT + value]
        size += len(value or b"")
    yield piece
