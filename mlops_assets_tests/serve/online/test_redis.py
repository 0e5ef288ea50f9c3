"""Redis as a store: a commit that ends anywhere, a server that goes back in time, how it is reached."""

import os
import shutil
import signal
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.exceptions import ConnectionError as RedisConnectionError

from mlops_assets.testing.redis_server import RedisServer, running_redis
from serve.online.held import HEAD
from serve.online.stores import StoreLost, StoreMoved, StoreNotSetUp
from serve.online.stores import redis as redis_store
from serve.online.stores.redis import PAUSE_S, SHOW, VARIABLE, RedisStore

FIRST, SECOND, THIRD = b"first", b"second", b"third"
BEFORE = {**{f"key {n}": b"1" for n in range(30)}, "gone": b"1"}
PUTS = {**{f"key {n}": b"2" for n in range(20, 50)}, "gone": None}
AFTER = {**{f"key {n}": b"1" if n < 20 else b"2" for n in range(50)}}


def opened(**how: Any) -> RedisStore:
    return RedisStore("", view="flights-1", **how)


def held(store: RedisStore) -> dict[str, bytes]:
    """All there is, by scanning and by reading."""
    found = dict(store.scan(""))
    assert store.read([*found, "gone"]) == [*found.values(), found.get("gone")]
    return found


class Ended(BaseException):
    """The writer's process ends here, for its server."""


class Ending(RedisStore):
    """Ends at the given script, before or after the server ran it."""

    def __init__(self, *, at: int, ran: bool) -> None:
        super().__init__("", view="flights-1")
        self.scripts, self._at, self._ran = 0, at, ran

    def _run(self, client: Any, script: str, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        self.scripts += 1
        if self.scripts == self._at and not self._ran:
            raise Ended
        found = super()._run(client, script, names, arguments)
        if self.scripts == self._at:
            raise Ended
        return found


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("ran", [False, True])
def test_a_commit_that_ends_anywhere_left_all_or_nothing_and_the_next_goes_on(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, clear: bool, ran: bool
) -> None:
    monkeypatch.setattr(redis_store, "PIECE_KEYS", 10)
    before = {**BEFORE, HEAD: FIRST}
    after = {**(AFTER if not clear else {key: value for key, value in PUTS.items() if value}), HEAD: SECOND}
    client, seen = redis.client(), []
    for at in range(1, 100):
        client.flushall()
        opened().commit(BEFORE, head=FIRST, expected=None)
        writer = Ending(at=at, ran=ran)
        try:
            writer.commit(PUTS, head=SECOND, expected=FIRST, clear=clear)
        except Ended:
            pass
        else:
            assert writer.scripts == at - 1
            break
        reader = opened()
        left = held(reader)
        seen.append(left[HEAD])
        assert left == (before if left[HEAD] == FIRST else after)
        # What nobody reads goes by itself, and what is read stays.
        for name in client.keys("*"):
            assert (client.ttl(name) > 0) == (b":staged:" in name)
        reader.commit({"gone": b"3"}, head=THIRD, expected=left[HEAD])
        assert held(reader) == {**left, "gone": b"3", HEAD: THIRD}
        assert not client.exists("mlops:online:{flights-1}:layer")
    # With ``clear`` the script that shows the commit is the last one.
    assert seen == sorted(seen) and set(seen) == ({FIRST} if clear and not ran else {FIRST, SECOND})


def test_an_answer_that_got_lost_is_no_other_writer(redis: RedisServer) -> None:
    class Deaf(RedisStore):
        def _run(self, client: Any, script: str, names: Sequence[str], arguments: Sequence[Any]) -> Any:
            # The client sends again what it got no answer to.
            if script == SHOW:
                super()._run(client, script, names, arguments)
            return super()._run(client, script, names, arguments)

    store = Deaf("", view="flights-1")
    store.commit(BEFORE, head=FIRST, expected=None)
    store.commit(PUTS, head=SECOND, expected=FIRST)
    store.commit(PUTS, head=THIRD, expected=SECOND, clear=True)
    assert held(store)[HEAD] == THIRD


def test_a_commit_is_there_although_the_server_went_while_it_was_put_away(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    store.commit(BEFORE, head=FIRST, expected=None)

    class Going(RedisStore):
        def _run(self, client: Any, script: str, names: Sequence[str], arguments: Sequence[Any]) -> Any:
            if script == redis_store.FOLD:
                raise RedisConnectionError("gone")
            return super()._run(client, script, names, arguments)

    Going("", view="flights-1").commit(PUTS, head=SECOND, expected=FIRST)
    assert held(store) == {**AFTER, HEAD: SECOND}
    assert "took a commit; the next one finishes putting it away: gone" in caplog.text


def test_a_server_that_lost_its_last_commits_holds_an_earlier_state_and_is_filled_from_there(
    redis: RedisServer,
) -> None:
    client, store = redis.client(), opened()
    store.commit(BEFORE, head=FIRST, expected=None)
    client.save()
    snapshot, older = redis.folder / "dump.rdb", redis.folder / "older.rdb"
    shutil.copy(snapshot, older)
    store.commit(PUTS, head=SECOND, expected=FIRST)
    redis.stop()
    shutil.copy(older, snapshot)
    redis.start()
    assert held(opened()) == {**BEFORE, HEAD: FIRST}
    # Whoever goes on from what is lost is told; whoever reads the head first brings it up to date.
    with pytest.raises(StoreMoved, match="was written meanwhile; read its head"):
        opened().commit({"key 1": b"3"}, head=THIRD, expected=SECOND)
    opened().commit(PUTS, head=SECOND, expected=FIRST)
    assert held(opened()) == {**AFTER, HEAD: SECOND}


def told(error: BaseException) -> str:
    """All that a log would show of an error."""
    return "".join(traceback.format_exception(error))


def test_a_lost_server_is_told_with_its_address_and_without_its_password(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    store = opened(clock=lambda: now)
    store.commit({"a": b"1"}, head=FIRST, expected=None)
    with redis.client() as client:
        client.save()
    redis.stop()
    try:
        for use in (lambda: store.read(["a"]), lambda: store.commit({}, head=SECOND, expected=FIRST)):
            with pytest.raises(StoreLost, match=r"cannot be used: .*refused") as caught:
                use()
            said = told(caught.value)
            assert f"flights-1 in Redis at {redis.address} (environment variable {VARIABLE})" in said
            assert "Start that server, or correct the variable" in said
            assert "se:cr" not in said and "se%3Acr" not in said
    finally:
        redis.start()
    # A gateway does not wait for a lost server with each request.
    with pytest.raises(StoreLost, match="refused"):
        store.read(["a"])
    now += PAUSE_S
    assert store.read(["a"]) == [b"1"]


def test_a_server_that_is_silent_is_lost_soon(redis: RedisServer) -> None:
    store = opened()
    store.commit({"a": b"1"}, head=FIRST, expected=None)
    assert store.read(["a"]) == [b"1"]
    redis.signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreLost, match="Timeout"):
            store.read(["a"])
    finally:
        redis.signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("url", "kind", "problem"),
    [
        ("redis://:wr0ng-secret@{}", StoreLost, "cannot be used: .*invalid username-password pair"),
        ("redis://:wr0ng-secret@127.0.0.1:64x", StoreNotSetUp, "holds no address of a Redis: redis://user:"),
        ("http://:wr0ng-secret@{}", StoreNotSetUp, "holds no address of a Redis"),
        ("", StoreNotSetUp, f"{VARIABLE} is not set: it says where the online store 'redis' is"),
    ],
)
def test_a_wrong_address_or_password_is_told_without_it(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, url: str, kind: type[Exception], problem: str
) -> None:
    monkeypatch.setenv(VARIABLE, url.format(redis.address))
    with pytest.raises(kind, match=problem) as caught:
        opened().read(["a"])
    assert "wr0ng" not in told(caught.value)


def test_without_its_client_the_store_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StoreNotSetUp, match=r"pip install 'mlops-assets\[redis\]'"):
        opened()


def test_a_server_that_may_evict_or_is_full_takes_nothing(redis: RedisServer) -> None:
    client, store = redis.client(), opened()
    store.commit(BEFORE, head=FIRST, expected=None)
    try:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 100_000)
        client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreLost, match=r"may evict what it holds \(maxmemory-policy allkeys-lru\)"):
            store.commit(PUTS, head=SECOND, expected=FIRST)
        client.config_set("maxmemory-policy", "volatile-ttl")
        with pytest.raises(StoreLost, match=r"cannot be used: .*maxmemory.*Give that server more"):
            store.commit({f"{n}": bytes(100_000) for n in range(40)}, head=SECOND, expected=FIRST)
        assert held(opened()) == {**BEFORE, HEAD: FIRST}
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
    store.commit(PUTS, head=SECOND, expected=FIRST)
    assert held(opened()) == {**AFTER, HEAD: SECOND}


def test_a_view_lies_on_one_shard_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_redis(options=("--cluster-enabled", "yes")) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO", **{"NEVER_DECODE": 1}):
                time.sleep(0.02)
        monkeypatch.setenv(VARIABLE, server.url)
        store = opened()
        store.commit(BEFORE, head=FIRST, expected=None)
        store.commit(PUTS, head=SECOND, expected=FIRST)
        assert held(store) == {**AFTER, HEAD: SECOND}
        store.commit({"a": b"1"}, head=THIRD, expected=SECOND, clear=True)
        assert held(store) == {"a": b"1", HEAD: THIRD}
        with pytest.raises(StoreMoved):
            store.commit({}, head=FIRST, expected=SECOND)


def test_tls_is_spoken_with_a_server_that_the_certificate_names(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = tmp_path / "cert.pem"
    with _tls_before(redis, certificate) as address:
        monkeypatch.setenv(VARIABLE, redis.url.replace("redis:", "rediss:").replace(redis.address, address))
        with pytest.raises(StoreLost, match=rf"{address} .*CERTIFICATE_VERIFY_FAILED"):
            opened().read(["a"])
        trusting = f"{os.environ[VARIABLE]}?ssl_ca_certs={certificate}"
        monkeypatch.setenv(VARIABLE, trusting)
        store = opened()
        store.commit({"a": b"1"}, head=FIRST, expected=None)
        assert store.read(["a", HEAD]) == [b"1", FIRST]
        store.close()


@contextmanager
def _tls_before(server: RedisServer, certificate: Path) -> Iterator[str]:
    """An address of this machine at which the server answers over TLS, with its certificate in the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = certificate.with_name("key.pem")
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                secure = context.wrap_socket(plain, server_side=True)
            except OSError:
                plain.close()
                continue
            behind = socket.create_connection(("127.0.0.1", server.port))
            for source, sink in ((secure, behind), (behind, secure)):
                threading.Thread(target=_forward, args=(source, sink), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(listener,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _forward(source: socket.socket, sink: socket.socket) -> None:
    try:
        while content := source.recv(65_536):
            sink.sendall(content)
        sink.shutdown(socket.SHUT_RDWR)
    except OSError:
        # Either side is gone; the other learns it by its own socket.
        source.close()
        sink.close()
