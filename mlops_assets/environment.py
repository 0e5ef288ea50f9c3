"""Every environment variable the platform reads: name, default, meaning. The only reader of os.environ.

Belongs here: declaring a variable and reading it. Does not belong here: what the value is used for
(``resources/``, ``local_stack/``). The README's table is compared with ``VARIABLES`` by a test.
Nothing is read at import.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.errors import SourceUnavailable, UnknownName
from mlops_assets.rollout.orphans import POLICIES, OrphanPolicy
from mlops_assets.secrets import secret

PROJECT_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Variable:
    """One environment variable; ``default`` is the text used when it is unset or empty."""

    name: str
    default: str
    meaning: str

    def read(self) -> str:
        """The value, or the default; ``{state}`` and ``{root}`` in a default are filled in."""
        value = os.environ.get(self.name)
        if value:
            return value
        if "{state}" in self.default:
            return self.default.replace("{state}", str(state_dir()))
        return self.default.replace("{root}", str(PROJECT_ROOT))


STATE_DIR = Variable("MLOPS_STATE_DIR", "{root}/.mlops", "Folder of all local state.")
DAGSTER_HOME = Variable("DAGSTER_HOME", "{state}/dagster", "Folder of the Dagster instance, absolute.")
LAKE_URI = Variable("MLOPS_LAKE_URI", "{state}/lake", "Delta Lake root: a local path or s3://bucket/prefix.")
S3_ENDPOINT = Variable("AWS_ENDPOINT_URL_S3", "", "Endpoint of an S3-compatible store; empty means AWS.")
S3_REGION = Variable("AWS_DEFAULT_REGION", "us-east-1", "Region of the S3 store.")
MLFLOW_TRACKING_URI = Variable(
    "MLFLOW_TRACKING_URI", "sqlite:///{state}/mlflow/mlflow.db", "MLflow tracking and registry store."
)
MLFLOW_ARTIFACTS = Variable(
    "MLOPS_MLFLOW_ARTIFACTS", "{state}/mlflow/artifacts", "Artifact root of new MLflow experiments."
)
DAGSTER_PORT = Variable("MLOPS_DAGSTER_PORT", "3000", "Port of the Dagster UI.")
MLFLOW_PORT = Variable("MLOPS_MLFLOW_PORT", "5000", "Port of the MLflow UI.")
SERVE_PORT = Variable("MLOPS_SERVE_PORT", "8000", "Port of the HTTP endpoint (Ray Serve).")
RAY_DASHBOARD_PORT = Variable("MLOPS_RAY_DASHBOARD_PORT", "8265", "Port of Ray's dashboard and deploy API.")
RAY_GCS_PORT = Variable("MLOPS_RAY_GCS_PORT", "6379", "Port of Ray's control store.")
METRICS_PORT = Variable("MLOPS_METRICS_PORT", "9464", "Port of the metrics of `mlops exporter`.")
RAY_CPUS = Variable("MLOPS_RAY_CPUS", "", "Logical CPUs given to the local Ray; empty means eight.")
SERVE_URL = Variable("MLOPS_SERVE_URL", "", "Base URL of the endpoint; empty: loopback at MLOPS_SERVE_PORT.")
SERVE_HOST = Variable(
    "MLOPS_SERVE_HOST",
    "",
    "Address that the endpoint listens on; empty: the host of its URL. On several hosts `0.0.0.0`.",
)
RAY_DASHBOARD_URL = Variable(
    "MLOPS_RAY_DASHBOARD_URL", "", "Ray dashboard that deployments are PUT to; empty: loopback at its port."
)
SERVING_TARGET = Variable(
    "MLOPS_SERVING_TARGET",
    "ray",
    "Where deployments are declared: a target of `mlops_assets/resources/serving/`.",
)
RAY_TOKEN = Variable(
    "RAY_AUTH_TOKEN", "", "Token that Ray asks for; of `make up`'s own Ray it lies in a file."
)
RAY_TOKEN_FILE = Variable(
    "RAY_AUTH_TOKEN_PATH", "", "File with that token; empty: the one that `make up` made for its own Ray."
)
API_KEYS_FILE = Variable(
    "MLOPS_API_KEYS_FILE",
    "",
    "File of hashed API keys; `off`: no keys (what `make up` says unless it is set); empty: refused.",
)
KEYS_OFF = "off"
"""What MLOPS_API_KEYS_FILE says when nobody needs a key."""
API_KEY = Variable(
    "MLOPS_API_KEY", "", "Key (role operate) that the platform itself sends to the endpoint when keys are on."
)
PREDICTION_LOG_URI = Variable(
    "MLOPS_PREDICTION_LOG_URI",
    "{state}/predictions",
    "Where gateways log answers: a local path or s3://bucket/prefix.",
)
ONLINE_URI = Variable(
    "MLOPS_ONLINE_URI",
    "{state}/online",
    "Where stores of online features without a server lie: a folder of this host.",
)
ONLINE_REDIS_URL = Variable(
    "MLOPS_ONLINE_REDIS_URL",
    "",
    "Redis of views with `store: redis`, like `redis://user:password@host:6379/0`. A secret.",
)
ONLINE_FEAST_REPO = Variable(
    "MLOPS_ONLINE_FEAST_REPO",
    "",
    "Feast feature repository of views with `store: feast`: the folder of its `feature_store.yaml`.",
)
CLOCK_FILE = Variable(
    "MLOPS_CLOCK_FILE",
    "",
    "File with one ISO-8601 instant with its zone: the time of answers and of monitoring; empty: the "
    "machine's clock.",
)
ALERT_WEBHOOK = Variable(
    "MLOPS_ALERT_WEBHOOK", "", "Slack-compatible webhook for alerts; empty: the alert log only."
)
ALERT_SECRET = Variable(
    "MLOPS_ALERT_SECRET",
    "",
    "Key that alerts to the webhook are signed with (HMAC-SHA256); empty: not signed.",
)
ORPHANS = Variable(
    "MLOPS_ORPHANS",
    "keep",
    "Deployments that no document declares any more: `keep` them until a person retires them, or `retire`.",
)
GIT_SHA = Variable("MLOPS_GIT_SHA", "", "Commit recorded with models; empty: asked of git.")

VARIABLES: tuple[Variable, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Variable)
)


def value_of(name: str, what: str) -> str:
    """The value of a variable that a document names; SourceUnavailable, which says what it is, when unset."""
    value = secret(name)
    if not value:
        raise SourceUnavailable(
            f"Environment variable {name} is not set: it is {what}. Set it where runs start."
        )
    return value


def state_dir() -> Path:
    """Folder of local state, absolute. It is not created here."""
    return Path(os.environ.get(STATE_DIR.name) or PROJECT_ROOT / ".mlops").absolute()


def clock_file() -> str:
    """The clock file, absolute; empty: the machine's clock."""
    file = CLOCK_FILE.read()
    # Gateways and sensors work in folders of their own.
    return str(Path(file).absolute()) if file else ""


def orphan_policy() -> OrphanPolicy:
    """What becomes of deployments that nothing declares; UnknownName when it is no policy."""
    policy = ORPHANS.read()
    for known in POLICIES:
        if policy == known:
            return known
    raise UnknownName(ORPHANS.name, policy, POLICIES)


def serve_url() -> str:
    """Base URL of the HTTP endpoint, without a trailing slash."""
    return (SERVE_URL.read() or f"http://127.0.0.1:{SERVE_PORT.read()}").rstrip("/")


def ray_dashboard_url() -> str:
    """Base URL of Ray's dashboard REST API, without a trailing slash."""
    return (RAY_DASHBOARD_URL.read() or f"http://127.0.0.1:{RAY_DASHBOARD_PORT.read()}").rstrip("/")


def own_ray_token_file() -> Path:
    """Where `make up` puts the token of its own Ray; only this user may read it."""
    return state_dir() / "run" / "ray_token"


def ray_token() -> str:
    """The token that the Ray at ``ray_dashboard_url`` asks for; empty when none is set. A secret."""
    token = RAY_TOKEN.read()
    if token:
        return token
    # Another cluster has no business with the token of this machine's.
    file = RAY_TOKEN_FILE.read() or ("" if RAY_DASHBOARD_URL.read() else str(own_ray_token_file()))
    return Path(file).read_text(encoding="ascii").strip() if file and Path(file).exists() else ""


def batch_dagster_events() -> None:
    """Lets Dagster hand events of many partitions to its storage together, unless a size is set already."""
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "500")


@contextmanager
def restored(*, without: str = "") -> Iterator[None]:
    """Afterwards every variable is what it was before. Inside, none that starts with ``without`` is set."""
    before = dict(os.environ)
    if without:
        for name in before:
            if name.startswith(without):
                del os.environ[name]
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def definitions_are_checked() -> bool:
    """Whether Dagster loads the definitions only to check them: `dg check defs`, `make check`."""
    return bool(os.environ.get("DAGSTER_IS_DEFS_VALIDATION_CLI"))


def process_environment() -> dict[str, str]:
    """A copy of this process's environment, as the base of a child's."""
    return dict(os.environ)
