"""A Ray cluster behind its dashboard: the state is PUT to Ray's REST API.

Belongs here: that API, without importing ray, and the file that remembers what Ray forgets with its head.
Does not belong here: what every target can do (``_base.py``), the endpoint (``resources/serve_client.py``).
"""

import json
import os
from pathlib import Path

from mlops_assets import environment
from mlops_assets.errors import ClusterUnreachable, RayRefused
from mlops_assets.resources import trusted
from mlops_assets.resources.bearer import bearer, same_address
from mlops_assets.resources.serving._base import Document, ServingTarget
from mlops_assets.rollout.capacity import ClusterResources, cluster_resources

STATE_LIMIT = 10_000
"""The most that Ray's state API gives at once."""


class RayDashboard(ServingTarget):
    """One Ray cluster. What was declared is saved to a file first, so that a cluster that was lost can be
    declared again.
    """

    name = "ray"

    def applications(self) -> dict[str, Document]:
        """Every application Ray knows: {name: {status, message, deployed_app_config, ...}}."""
        return dict(self._dashboard("GET", "/api/serve/applications/").get("applications", {}))

    def apply(self, document: Document) -> None:
        """Saves and declares the whole state. Applications that are not in it are deleted."""
        before = self._save(json.dumps(document, indent=1))
        try:
            self._dashboard("PUT", "/api/serve/applications/", document)
        except RayRefused:
            # It was never declared, so it must not be what a lost cluster gets back.
            self._save(before)
            raise

    def _save(self, text: str | None) -> str | None:
        """Replaces the saved state (None: removes it) and gives what it was."""
        path = Path(self.site.state_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else None
        if text is None:
            path.unlink(missing_ok=True)
        else:
            partial = path.with_suffix(".partial")
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        return before

    def saved_document(self) -> Document | None:
        path = Path(self.site.state_file)
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def cluster_resources(self) -> ClusterResources:
        """What the cluster has and who holds it, as Ray's dashboard tells it."""
        return cluster_resources(
            nodes=self._state("nodes"),
            actors=self._state("actors"),
            measured=self._dashboard("GET", "/nodes?view=summary")["data"]["summary"],
            replicas=[
                replica
                for application in self.applications().values()
                for deployment in application.get("deployments", {}).values()
                for replica in deployment.get("replicas", ())
            ],
        )

    def _state(self, kind: str) -> list[Document]:
        """A list of Ray's state API, whole: without a limit it gives the first hundred."""
        answer = self._dashboard("GET", f"/api/v0/{kind}?detail=1&limit={STATE_LIMIT}")
        return list(answer["data"]["result"]["result"])

    def _dashboard(self, method: str, path: str, body: Document | None = None) -> Document:
        import httpx

        own = same_address(self.site.dashboard_url, environment.ray_dashboard_url())
        headers = bearer(environment.ray_token() if own else "")
        dashboard = self.site.dashboard_url
        url = f"{dashboard.rstrip('/')}{path}"
        try:
            response = httpx.request(
                method,
                url,
                json=body,
                headers=headers,
                timeout=60.0,
                trust_env=False,
                verify=trusted.certificates(),
            )
        except httpx.TransportError as error:
            raise ClusterUnreachable(
                f"Ray's dashboard at {dashboard} does not answer ({error}). Start the cluster with "
                "`make up`, or point MLOPS_RAY_DASHBOARD_URL at a running one."
            ) from error
        if response.status_code in (401, 403):
            raise RayRefused(
                f"Ray's dashboard at {dashboard} refuses {'this' if headers else 'a missing'} token "
                f"(HTTP {response.status_code}: {response.text[:200]}). Set "
                f"{environment.RAY_TOKEN_FILE.name} to the file with the cluster's token and "
                f"{environment.RAY_DASHBOARD_URL.name} to this dashboard; the token is sent nowhere else."
            )
        if response.is_error:
            raise RayRefused(
                f"Ray refused {method} {path} with HTTP {response.status_code}: {response.text[:2000]}"
            )
        return dict(response.json()) if response.content else {}
