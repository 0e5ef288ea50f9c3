"""The HTTP contract as one ASGI application: paths, roles, bodies, answers.

Belongs here: what each path takes and gives. Does not belong here: the refusals' codes
(``serve/errors.py``), value rules (``serve/validation.py``), who may ask (``serve/security.py``),
which version answers (``serve/traffic.py``), Ray (``serve/gateway.py``).

Written on plain ASGI: a table lookup instead of a router, no model objects per request; a framework
would cost more than scoring a row does. Every answer, refusals included, carries ``x-request-id``, and every
prediction ``x-answer-id``.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from pydantic import ValidationError

from serve import inference_protocol, openapi
from serve.aggregator import AggregatorLink
from serve.bodies import json_coding, parse_object, refuse_repeated
from serve.errors import (
    ApiError,
    Internal,
    InvalidFields,
    MethodNotAllowed,
    NoAggregator,
    NoModel,
    Overloaded,
    Problems,
    UnknownPath,
)
from serve.evidence import Reason
from serve.identity import HEADER_ID_REASON, answer_ids, is_header_id
from serve.inference_log import Answered, PredictionLog
from serve.metrics import CONTENT_TYPE, NONE, GatewayMetrics
from serve.online.lookup import Looked
from serve.online.request import KeyedRow, sent_row, sent_rows
from serve.online.transform import TransformFailed
from serve.schema import MonitoringReport, OnlineView
from serve.security import Protection, Role
from serve.shortcut import DIRECT
from serve.traffic import CANARY, SHADOW, STABLE, Mirrored, Scored, Traffic
from serve.validation import Entity, Row, batch_rows, request_entities, single_row
from serve.versions import LiveVersion

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = dict[bytes, bytes]

JSON_TYPE = b"application/json"
BINARY_TYPE = b"application/octet-stream"
HTML_TYPE = b"text/html; charset=utf-8"
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
MAX_REASON_LENGTH = 500
WATCH_INTERVAL_S = 1.0
OTHER = "other"
"""Endpoint label of paths that do not exist: a caller must not be able to make new series."""

logger = logging.getLogger(__name__)
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


class Request:
    """One request; from ``variant`` on it is filled in once known, for headers, metrics, log and shadows.

    ``answer_id`` is ours, ``request_id`` the caller's where one was sent. ``sent_id`` is the caller's header
    as it goes back; ``odd_id``: the header is none that is taken. Written out, because it is made for every
    request, and what has its default costs nothing here.
    """

    variant: str = NONE
    version: str = NONE
    unit: str | None = None
    rows: Sequence[Row] = ()
    scored: Scored | None = None
    fell_back_from: str | None = None
    entities: Sequence[Entity | None] | None = None
    looked: Looked | None = None
    """What was looked up for rows of keys."""
    asked_version: str | None = None
    """The version that the path names; it answers, whatever the routing would have drawn."""
    at: float = 0.0
    """When it was answered, in Unix seconds; before the answer is sent, so that no caller is ahead of it."""
    sent_id: bytes | None = None
    odd_id: bool = False

    def __init__(
        self, answer_id: str, scope: Scope, headers: Headers, root_path: str, receive: Receive, started: float
    ) -> None:
        self.answer_id = self.request_id = answer_id
        self.scope, self.headers, self.root_path = scope, headers, root_path
        self.receive, self.started = receive, started
        self.endpoint = scope["path"].removeprefix(root_path)
        sent = headers.get(b"x-request-id")
        if sent:
            if is_header_id(sent):
                self.sent_id, self.request_id = sent, sent.decode("ascii")
            else:
                self.odd_id = True


class Response(NamedTuple):
    """Status, body and the headers that are not on every answer."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON_TYPE
    headers: Mapping[str, str] = MappingProxyType({})


Handler = Callable[[Request], Awaitable[Response]]
Methods = dict[str, tuple[Role | None, Handler]]
"""By HTTP method: the role that it needs, None for nobody's, and what answers. GET answers HEAD too."""


@dataclass(frozen=True)
class Limits:
    """How much one gateway replica takes."""

    max_batch_rows: int
    max_in_flight: int = 512


class Endpoint:
    """ASGI application of one deployment. ``wall_clock`` gives the time of answers, in Unix seconds.

    ``adds_request_id`` False: Serve adds the ``x-request-id`` response header itself, and twice would
    be wrong.
    """

    def __init__(
        self,
        name: str,
        traffic: Traffic,
        protection: Protection,
        metrics: GatewayMetrics,
        limits: Limits,
        link: AggregatorLink,
        *,
        log: PredictionLog | None = None,
        replica: str = "local",
        adds_request_id: bool = True,
        clock: Callable[[], float] = time.perf_counter,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._traffic, self._protection, self._metrics = name, traffic, protection, metrics
        self._limits, self._link, self._log, self._replica = limits, link, log, replica
        self._adds_request_id, self._clock, self._wall_clock = adds_request_id, clock, wall_clock
        self.in_flight = 0
        self._new_id = answer_ids()
        model = f"/v2/models/{name}"
        self._versions = f"{model}/versions/"
        self._routes: dict[str, Methods] = {
            "/predict": {"POST": ("predict", self._predict)},
            "/batch-predict": {"POST": ("predict", self._batch_predict)},
            "/health": {"GET": (None, self._health)},
            "/ready": {"GET": (None, self._ready)},
            "/metrics": {"GET": ("observe", self._metrics_text)},
            "/evidence": {"GET": ("observe", self._evidence)},
            "/trip": {"POST": ("operate", self._trip)},
            "/monitoring": {"POST": ("operate", self._monitoring)},
            "/openapi.json": {"GET": ("observe", self._openapi)},
            "/docs": {"GET": ("observe", self._docs)},
            "/v2": {"GET": ("observe", self._v2_server)},
            "/v2/health/live": {"GET": (None, self._v2_live)},
            "/v2/health/ready": {"GET": (None, self._v2_ready)},
            model: {"GET": ("observe", self._v2_model)},
            f"{model}/ready": {"GET": (None, self._v2_model_ready)},
            f"{model}/infer": {"POST": ("predict", self._v2_infer)},
        }
        # Below the path of a version.
        self._version_routes: dict[str, Methods] = {
            "": {"GET": ("observe", self._v2_version)},
            "/ready": {"GET": (None, self._v2_version_ready)},
            "/infer": {"POST": ("predict", self._v2_infer)},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"this endpoint speaks HTTP only, not {scope['type']}")
        request = Request(
            self._new_id(), scope, dict(scope["headers"]), scope.get("root_path", ""), receive, self._clock()
        )
        method, path = scope["method"], request.endpoint
        response = await self._answer(request, method, path)
        self._metrics.count_request(
            path if path in self._routes else self._label(request),
            response.status,
            request.variant,
            request.version,
        )
        await send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": self._headers(
                    request, response, adds_request_id=self._adds_request_id or DIRECT in scope
                ),
            }
        )
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else response.body})
        if request.scored is not None:
            self._after(request, request.scored)

    async def watch(self) -> None:
        """Refuses bodies that do not come, and looks how old online features are, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            self._protection.refuse_late_bodies()
            await self._traffic.measure_online_ages()

    async def _answer(self, request: Request, method: str, path: str) -> Response:
        try:
            if self.in_flight >= self._limits.max_in_flight:
                raise Overloaded("Too many requests at once.")
            self.in_flight += 1
            self._metrics.set_in_flight(self.in_flight)
            try:
                if len(request.headers) != len(request.scope["headers"]):
                    refuse_repeated(request.scope["headers"])
                methods = self._routes.get(path) or self._version_methods(request)
                # Strangers do not learn which paths exist: the key comes first.
                route = methods.get("GET" if method == "HEAD" else method) if methods else None
                self._protection.admit(request.headers, role=route[0] if route else "observe")
                if methods is None:
                    raise UnknownPath(path, self._routes)
                if route is None:
                    return _options(methods) if method == "OPTIONS" else _not_allowed(method, path, methods)
                return await route[1](request)
            finally:
                self.in_flight -= 1
                self._metrics.set_in_flight(self.in_flight)
        except ApiError as error:
            return self._refusal(request, error)
        except Exception:  # The boundary: the log gets everything, the caller the request id.
            logger.exception(
                "Request %r failed (answer id %s, version %s)",
                request.request_id,
                request.answer_id,
                request.version,
            )
            return self._refusal(request, Internal(request.request_id, request.answer_id))

    def _refusal(self, request: Request, error: ApiError) -> Response:
        self._metrics.count_error(error.code)
        of_protocol = request.endpoint == "/v2" or request.endpoint.startswith("/v2/")
        body = error.v2_body() if of_protocol else error.body()
        return Response(body, status=error.status, headers=error.headers)

    def _version_methods(self, request: Request) -> Methods | None:
        """What the path of a version takes; sets which version it names. None: it is no such path."""
        path = request.endpoint
        if not path.startswith(self._versions):
            return None
        version, slash, below = path.removeprefix(self._versions).partition("/")
        methods = self._version_routes.get(slash + below)
        if methods is not None and version:
            request.asked_version = version
            return methods
        return None

    def _label(self, request: Request) -> str:
        """The endpoint label of a path that names a version, or of one that does not exist."""
        if request.asked_version is None:
            return OTHER
        below = request.endpoint.removeprefix(self._versions + request.asked_version)
        return f"{self._versions}VERSION{below}"

    def _headers(
        self, request: Request, response: Response, *, adds_request_id: bool
    ) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"content-type", response.content_type),
            (b"content-length", b"%d" % len(response.body)),
        ]
        if adds_request_id:
            headers.append((b"x-request-id", request.sent_id or request.answer_id.encode()))
        if request.scored is not None:
            headers.append((b"x-answer-id", request.answer_id.encode()))
        if request.version is not NONE:
            headers.append((b"x-model-version", request.version.encode("latin-1", "replace")))
            headers.append((b"x-variant", request.variant.encode()))
        if response.headers:
            for name, value in response.headers.items():
                headers.append((name.encode(), value.encode("latin-1", "replace")))
        return headers

    # -- predictions ---------------------------------------------------------------------------------

    async def _predict(self, request: Request) -> Response:
        coding = json_coding(request.headers)
        document = parse_object(await self._protection.read_body(request.receive, coding))
        chosen, rows = await self._valid(
            request, self._choose(request, document), lambda live: self._row(request, document, live)
        )
        request.entities = request_entities(document, chosen.validator)
        live, scores = await self._score(request, chosen, rows)
        return self._answered(request, live.answer(scores[0]))

    async def _batch_predict(self, request: Request) -> Response:
        coding = json_coding(request.headers)
        document = parse_object(await self._protection.read_body(request.receive, coding))
        chosen, rows = await self._valid(
            request,
            self._choose(request, document),
            lambda live: self._batch(request, document, live),
        )
        request.entities = request_entities(document, chosen.validator)
        live, scores = await self._score(request, chosen, rows)
        return self._answered(request, {"predictions": list(map(live.answer, scores))})

    async def _v2_infer(self, request: Request) -> Response:
        coding = json_coding(request.headers, also="application/octet-stream")
        sent = inference_protocol.read(
            await self._protection.read_body(request.receive, coding),
            request.headers.get(b"inference-header-content-length"),
            name=self._name,
            max_rows=self._limits.max_batch_rows,
        )
        asked = request.asked_version or sent.version
        if asked is None:
            feature = self._traffic.routing.unit_feature if self._traffic.routing else None
            cohort = sent.instances(feature) if feature is not None else []
            chosen = self._choose(request, {"unit": sent.unit, "instances": cohort})
            chosen, (rows, request.entities) = await self._valid(
                request, chosen, lambda live: self._tensors(request, sent, live)
            )
        else:
            chosen, (rows, request.entities) = await self._named(request, sent, asked)
        request.request_id = sent.request_id or request.request_id
        live, scores = await self._score(request, chosen, rows)
        body, json_end = inference_protocol.response(
            sent,
            live.manifest,
            list(map(live.answer, scores)),
            name=self._name,
            version=live.version,
            variant=request.variant,
            request_id=request.request_id,
            answer_id=request.answer_id,
        )
        if json_end is None:
            return Response(body)
        return Response(
            body, content_type=BINARY_TYPE, headers={"inference-header-content-length": str(json_end)}
        )

    async def _named(
        self, request: Request, sent: inference_protocol.Sent, version: str
    ) -> tuple[LiveVersion, Any]:
        """The version that a request names, and its valid rows. No other version answers for it."""
        if request.odd_id:
            raise _odd_id()
        if sent.version not in (None, version):
            reason = f"must be the version of the path, {version}"
            raise InvalidFields([{"field": "model_version", "reason": reason}])
        live = self._traffic.asked(version)
        request.asked_version, request.unit = version, sent.unit
        request.endpoint = f"{self._versions}{version}/infer"
        request.version, request.variant = version, self._traffic.variant_of(live)
        return live, await self._tensors(request, sent, live)

    async def _tensors(
        self, request: Request, sent: inference_protocol.Sent, live: LiveVersion
    ) -> tuple[list[Row], Sequence[Entity | None] | None]:
        """The valid rows of an infer request, and their join keys."""
        if live.online is None or not inference_protocol.is_keyed(sent, live.manifest):
            return inference_protocol.rows_of(sent, live.manifest, live.validator)
        rows = inference_protocol.keyed_rows(sent, live.manifest, live.online.view, live.validator)
        entities = live.validator.entities([one.entity for one in rows])
        found = await self._looked_up(request, live, rows, lambda number: f"row {number}")
        return found, entities

    async def _row(self, request: Request, document: dict[str, Any], live: LiveVersion) -> list[Row]:
        """The valid row of a body: its features, or those that are looked up by its keys."""
        if "request" not in document:
            return [single_row(document, live.validator)]
        view = _view_of(live, "request", "features")
        sent = sent_row(document, view, live.validator)
        return await self._looked_up(request, live, sent, lambda _: "request")

    async def _batch(self, request: Request, document: dict[str, Any], live: LiveVersion) -> list[Row]:
        most = self._limits.max_batch_rows
        if "requests" not in document:
            return batch_rows(document, live.validator, max_rows=most)
        view = _view_of(live, "requests", "instances")
        sent = sent_rows(document, view, live.validator, max_rows=most)
        return await self._looked_up(request, live, sent, lambda number: f"requests[{number}]")

    async def _looked_up(
        self, request: Request, live: LiveVersion, sent: Sequence[KeyedRow], field: Callable[[int], str]
    ) -> list[Row]:
        """Rows of one look-up, which every variant of this request scores; the features are valid."""
        assert live.online is not None
        looked = await live.online.look_up_aside(sent, field)
        self._metrics.count_looked_up(live.online.view.name, looked.state, len(sent))
        found: Problems = []
        for number, row in enumerate(looked.rows):
            found += live.validator.problems(row, f"{field(number)}: computed")
        if found:
            raise InvalidFields(found)
        request.looked = looked
        return looked.rows

    def _choose(self, request: Request, document: dict[str, Any]) -> LiveVersion:
        """The version for the request's unit; a request without one counts as a unit of its own."""
        if request.odd_id:
            raise _odd_id()
        unit = document.get("unit")
        request.unit = unit if type(unit) is str else self._cohort(document)
        # Not the caller's id: one that is always the same would always be drawn the same.
        chosen = self._traffic.choose(request.unit or request.answer_id)
        request.version, request.variant = chosen.version, self._traffic.variant_of(chosen)
        return chosen

    async def _valid(
        self, request: Request, chosen: LiveVersion, read: Callable[[LiveVersion], Awaitable[Any]]
    ) -> tuple[LiveVersion, Any]:
        """The valid rows, and the version they are valid for: stable where the chosen one takes less.

        Raises the chosen version's refusal only when stable refuses too.
        """
        try:
            return chosen, await read(chosen)
        except InvalidFields:
            stable = self._traffic.wider_than(chosen)
            if stable is None:
                raise
            reason: Reason = "schema"
            rows = await read(stable)
        except TransformFailed as error:
            stable = self._traffic.stable
            if stable is None or stable is chosen:
                raise
            logger.warning("Version %s: %s; stable answers", chosen.version, error)
            reason = "model_error"
            rows = await read(stable)
        self._traffic.count_narrower(chosen, reason)
        request.fell_back_from = chosen.version
        request.version, request.variant = stable.version, self._traffic.variant_of(stable)
        return stable, rows

    def _cohort(self, document: dict[str, Any]) -> str | None:
        """The declared cohort feature's value; None when there is none, or when rows of a batch differ."""
        routing = self._traffic.routing
        if routing is None or routing.unit_feature is None:
            return None
        one = document.get("features") or document.get("request")
        rows = document.get("instances") or document.get("requests") or [one]
        if type(rows) is not list:
            return None
        # Not validated yet: only a value that is one can be a cohort.
        found = {_cohort_name(row.get(routing.unit_feature)) if type(row) is dict else None for row in rows}
        return found.pop() if len(found) == 1 else None

    async def _score(
        self, request: Request, chosen: LiveVersion, rows: list[Row]
    ) -> tuple[LiveVersion, list[Any]]:
        score = self._traffic.score if request.asked_version is None else self._traffic.score_asked
        scored = await score(chosen, rows)
        live = scored.live
        if live is not chosen:
            request.version, request.variant = live.version, self._traffic.variant_of(live)
        request.rows, request.scored, request.at = rows, scored, self._wall_clock()
        self._metrics.count_answer(
            request.variant, live.version, rows=len(rows), seconds=self._clock() - request.started
        )
        return live, scored.scores

    def _after(self, request: Request, scored: Scored) -> None:
        """Log and shadows, once the caller has the answer."""
        log = self._log
        if log is not None:
            log.put(
                self._logged(request, request.variant, scored.live.version, scored.scores,
                             self._clock() - request.started,
                             scored.fell_back_from or request.fell_back_from)
            )  # fmt: skip
        if request.asked_version is not None:
            return  # No draw of the routing: nothing is compared on it.
        self._traffic.mirror(
            request.answer_id,
            scored,
            request.rows,
            lambda mirrored: self._log_shadow(request, mirrored),
        )

    def _log_shadow(self, request: Request, mirrored: Mirrored) -> None:
        if self._log is not None:
            self._log.put(
                self._logged(request, SHADOW, mirrored.version, mirrored.scores, mirrored.seconds, None)
            )

    def _logged(
        self,
        request: Request,
        variant: str,
        version: str,
        scores: list[Any],
        seconds: float,
        fell_back_from: str | None,
    ) -> Answered:
        routing = self._traffic.routing
        return Answered(
            at=request.at,
            answer_id=request.answer_id,
            request_id=request.request_id,
            unit=request.unit,
            variant=variant,
            version=version,
            revision=routing.revision if routing else 0,
            weight=self._traffic.weight_of(version),
            endpoint=request.endpoint,
            latency_s=seconds,
            rows=request.rows,
            scores=scores,
            fell_back_from=fell_back_from,
            entities=request.entities,
            requests=request.looked.requests if request.looked else None,
            knew=request.looked.knew if request.looked else None,
        )

    @staticmethod
    def _answered(request: Request, answer: dict[str, Any]) -> Response:
        body = {
            "request_id": request.request_id,
            "answer_id": request.answer_id,
            "model_version": request.version,
            "variant": request.variant,
            **answer,
        }
        return Response(_encode(body).encode())

    # -- state ---------------------------------------------------------------------------------------

    async def _health(self, _: Request) -> Response:
        stable = self._require_stable()
        return Response(_encode({"status": "ok", "model_version": stable.version}).encode())

    async def _ready(self, _: Request) -> Response:
        ready = self._traffic.is_ready
        headers = {} if ready else {"retry-after": "1"}
        return Response(
            _encode(await self._state(ready)).encode(), status=200 if ready else 503, headers=headers
        )

    async def _state(self, ready: bool) -> dict[str, Any]:
        traffic = self._traffic
        # Of one moment, also where asking a store takes time.
        routing, states = traffic.routing, traffic.states
        state: dict[str, Any] = {
            "name": self._name,
            "ready": ready,
            "replica": self._replica,
            "revision": routing.revision if routing else None,
            "stable": routing.stable if routing else None,
            "config_error": traffic.config_error,
            "api_keys": {"enabled": self._protection.is_on, "problem": self._protection.problem},
            "prediction_log": {
                "enabled": self._log is not None,
                "problem": self._log.problem if self._log else None,
            },
            "clock_problem": getattr(self._wall_clock, "problem", None),
            "referee_problem": self._link.problem,
            "rollout": routing.rollout.model_dump(mode="json") if routing and routing.rollout else None,
            "routes": {},
        }
        for version, route in routing.routes.items() if routing else ():
            known = states[version]
            live = known.live
            state["routes"][version] = {
                "application": route.application,
                "weight": route.weight,
                "variant": STABLE if routing and version == routing.stable else CANARY,
                "answers": known.answers,
                "problem": known.problem,
                "digest": live.digest if live else None,
                "shadow": route.shadow,
                "tripped": traffic.trips[version].reason if version in traffic.trips else None,
                "device": live.info.get("device") if live else None,
                "in_gateway": live is not None and live.local is not None,
                "in_gateway_problem": known.local_problem,
                "online": await live.online.report_aside() if live and live.online else None,
            }
        if not ready:
            why = states[routing.stable].problem if routing else "no routing has been declared"
            message = f"The stable version does not answer: {why}."
            self._metrics.count_error(NoModel.code)
            state["error"] = {"code": NoModel.code, "message": message, "details": []}
        return state

    async def _metrics_text(self, _: Request) -> Response:
        await self._traffic.measure_online_ages()
        return Response((await self._link.gather())[1], content_type=CONTENT_TYPE.encode())

    async def _evidence(self, _: Request) -> Response:
        return Response((await self._link.gather())[0].model_dump_json().encode())

    async def _trip(self, request: Request) -> Response:
        """The hand on the emergency brake: this version gets no traffic on any replica, at once."""
        coding = json_coding(request.headers)
        document = parse_object(await self._protection.read_body(request.receive, coding))
        routing = self._traffic.routing
        if routing is None:
            raise NoModel("No routing has been declared.")
        found: Problems = [
            {"field": name, "reason": "is not a field of this request; allowed: version, reason"}
            for name in document
            if name not in ("version", "reason")
        ]
        version, reason = document.get("version"), document.get("reason")
        others = [name for name in routing.routes if name != routing.stable]
        if type(version) is not str or version not in others:
            allowed = ", ".join(others) or "none, only stable has traffic"
            found.append(
                {"field": "version", "reason": f"must be a version other than stable; there is: {allowed}"}
            )
        if type(reason) is not str or not 0 < len(reason) <= MAX_REASON_LENGTH:
            found.append(
                {"field": "reason", "reason": f"must be a text of 1 to {MAX_REASON_LENGTH} characters"}
            )
        if found:
            raise InvalidFields(found)
        assert type(version) is str
        trip = self._link.trip(version, f"tripped by hand: {reason}", by="operator")
        await self._link.gather()
        return Response(_encode({"trip": trip.model_dump(mode="json")}).encode())

    async def _monitoring(self, request: Request) -> Response:
        """What was found out about the stable version, to be shown with the metrics of every replica."""
        coding = json_coding(request.headers)
        document = parse_object(await self._protection.read_body(request.receive, coding))
        routing = self._traffic.routing
        if routing is None:
            raise NoModel("No routing has been declared.")
        try:
            report = MonitoringReport.model_validate(document, strict=True)
        except ValidationError as error:
            raise InvalidFields(
                [
                    {"field": ".".join(map(str, one["loc"])), "reason": one["msg"]}
                    for one in error.errors(include_url=False, include_input=False, include_context=False)
                ]
            ) from error
        if report.version != routing.stable:
            reason = f"must be the stable version, which is {routing.stable}"
            raise InvalidFields([{"field": "version", "reason": reason}])
        if not await self._link.monitor(report):
            raise NoAggregator(str(self._link.problem))
        return Response(_encode({"monitoring": report.model_dump(mode="json")}).encode())

    def _require_stable(self) -> LiveVersion:
        if self._traffic.stable is None:
            raise NoModel("No model version answers yet.")
        return self._traffic.stable

    # -- description ---------------------------------------------------------------------------------

    async def _described(self, request: Request) -> tuple[LiveVersion, dict[str, Any]]:
        stable = self._require_stable()
        return stable, openapi.document(
            stable.manifest,
            name=self._name,
            version=stable.version,
            server=request.root_path,
            keys=self._protection.is_on,
            max_rows=self._limits.max_batch_rows,
            by_key=await stable.online.example_aside() if stable.online else None,
        )

    async def _openapi(self, request: Request) -> Response:
        return Response(_encode((await self._described(request))[1]).encode())

    async def _docs(self, request: Request) -> Response:
        stable, described = await self._described(request)
        page = openapi.page(stable.manifest, described)
        return Response(
            page.encode(), content_type=HTML_TYPE, headers={"content-security-policy": PAGE_POLICY}
        )

    async def _v2_server(self, _: Request) -> Response:
        return Response(
            _encode(
                {"name": self._name, "version": "2", "extensions": list(inference_protocol.EXTENSIONS)}
            ).encode()
        )

    async def _v2_live(self, _: Request) -> Response:
        return Response(_encode({"live": True}).encode())

    async def _v2_ready(self, _: Request) -> Response:
        self._require_ready()
        return Response(_encode({"ready": True}).encode())

    async def _v2_model(self, _: Request) -> Response:
        stable = self._require_stable()
        versions = list(self._traffic.states)
        made = inference_protocol.metadata(stable.manifest, name=self._name, versions=versions)
        return Response(_encode(made).encode())

    async def _v2_model_ready(self, _: Request) -> Response:
        self._require_ready()
        return Response(_encode({"name": self._name, "ready": True}).encode())

    async def _v2_version(self, request: Request) -> Response:
        live = self._traffic.asked(str(request.asked_version))
        made = inference_protocol.metadata(live.manifest, name=self._name, versions=[live.version])
        return Response(_encode(made).encode())

    async def _v2_version_ready(self, request: Request) -> Response:
        live = self._traffic.asked(str(request.asked_version))
        made = {"name": self._name, "version": live.version, "ready": True}
        return Response(_encode(made).encode())

    def _require_ready(self) -> None:
        if not self._traffic.is_ready:
            raise NoModel("The stable version does not answer.")


def _view_of(live: LiveVersion, field: str, instead: str) -> OnlineView:
    """The view that a version looks keys up in. InvalidFields for one whose callers send features."""
    if live.online is None:
        reason = f"is not taken: this model looks nothing up; send {instead}"
        raise InvalidFields([{"field": field, "reason": reason}])
    return live.online.view


def _odd_id() -> InvalidFields:
    return InvalidFields([{"field": "x-request-id", "reason": HEADER_ID_REASON}])


def _cohort_name(value: Any) -> str:
    """17 and 17.0 are one cohort, as they are one number to the model."""
    return str(int(value) if type(value) is float and value.is_integer() else value)


def _allowed(methods: Methods) -> list[str]:
    return sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])})


def _options(methods: Methods) -> Response:
    allowed = _allowed(methods)
    return Response(_encode({"allow": allowed}).encode(), headers={"allow": ", ".join(allowed)})


def _not_allowed(method: str, path: str, methods: Methods) -> NoReturn:
    raise MethodNotAllowed(method, path, _allowed(methods))


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
