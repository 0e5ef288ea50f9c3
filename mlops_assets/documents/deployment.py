"""What the YAML of a deployment may say, but for its rollout (``rollout.py``).

Belongs here: the declaration and its own rules. Does not belong here: rolling out (``deploying/``), the
assets (``components/deployment.py``).
"""

from pydantic import Field, model_validator

from mlops_assets.documents._base import Declaration
from mlops_assets.documents.rollout import RolloutDeclaration
from mlops_assets.rollout.approval import Mode
from mlops_assets.rollout.capacity import share_problem
from mlops_assets.rollout.plan import QUALITY
from serve.schema import Device, GuardRules


class ApprovalDeclaration(Declaration):
    """Who approves."""

    mode: Mode = Field(
        default="auto",
        description="auto: what the gate promotes is approved; manual: a person approves each model.",
    )


class DeploymentDeclaration(RolloutDeclaration):
    """Attributes of a ``DeploymentComponent`` document."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", description="Name of the application and of its route /<name>."
    )
    model: str = Field(description="The ModelComponent whose approved version is deployed.")
    description: str = ""
    approval: ApprovalDeclaration = ApprovalDeclaration()
    replicas: int = Field(default=1, ge=1, description="Replicas of each model version.")
    gateway_replicas: int = Field(default=1, ge=1, description="Replicas of the gateway that callers reach.")
    num_gpus: float = Field(default=0, ge=0, description="GPUs (fractions allowed) of each model replica.")
    device: Device = Field(
        default="auto",
        description="auto: a GPU (num_gpus of it, else a quarter) if one is free, else CPU; gpu: or nothing.",
    )
    guard: GuardRules = Field(
        default_factory=GuardRules, description="When a gateway takes a canary out of the traffic by itself."
    )
    stable_in_gateway: bool = Field(
        default=True, description="The gateway scores small requests of the stable CPU model itself: faster."
    )
    prediction_log: bool = Field(default=True, description="Log every answer with its inputs.")
    timeout_s: float = Field(default=5.0, gt=0, description="How long one model call may take.")
    max_batch_rows: int = Field(default=1_000, ge=1, description="Largest accepted batch.")
    max_body_bytes: int = Field(default=1_048_576, ge=1_024, description="Largest accepted request body.")
    api_keys_file: str | None = Field(
        default=None, description="File of hashed API keys, or off; MLOPS_API_KEYS_FILE when not given here."
    )

    @model_validator(mode="after")
    def _can_be_placed_and_judged(self) -> "DeploymentDeclaration":
        problem = share_problem(self.device, self.num_gpus)
        if problem:
            raise ValueError(problem)
        if not self.prediction_log and any(one.metric == QUALITY for one in self.analysis or ()):
            raise ValueError("quality is measured on logged answers, and prediction_log is false")
        cut_off_ms = 1_000 * min(self.timeout_s, self.guard.timeout_s)
        slowest = self.guard.max_p95_ms
        if slowest is not None and "max_p95_ms" in self.guard.model_fields_set and slowest > cut_off_ms:
            raise ValueError(
                f"guard.max_p95_ms is {slowest:g}, and a call of a new version is cut off after "
                f"{cut_off_ms:g} ms (timeout_s, guard.timeout_s): it can never take so long"
            )
        for one in self.analysis or ():
            limit = one.analysis().condition
            if limit.quantity == "value_ms" and limit.number > cut_off_ms:
                raise ValueError(
                    f"latency_p95 {limit} always holds: a call of a new version is cut off after "
                    f"{cut_off_ms:g} ms (timeout_s, guard.timeout_s)"
                )
        return self
