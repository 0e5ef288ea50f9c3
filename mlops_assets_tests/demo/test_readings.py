"""The graph is asked over HTTP: metadata only of what is new, and a refusal is an error in words."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from demo.readings import Watch
from mlops_assets.errors import StackError

ASSETS = ("flights_model", "flights_drift")
READY = {"stable": "v1", "routes": {"v1": {"weight": 10_000, "shadow": 0, "tripped": None}}}


class Platform:
    """Answers the questions of a watch; ``made`` are the versions of the model that there are."""

    def __init__(self):
        self.made, self.detailed, self.status, self.up = [1], [], 200, True

    def graphql(self, query, variables):
        if "staleStatus" in query:
            return {"assetNodes": [{"assetKey": {"path": ["flights_model"]}, "staleStatus": "FRESH",
                                    "staleCauses": []}]}  # fmt: skip
        if "runsOrError" in query:
            return {"runsOrError": {"results": []}}
        if "repositoriesOrError" in query:
            tick = {
                "status": "SKIPPED",
                "timestamp": 5.0,
                "skipReason": "nothing new",
                "runIds": [],
                "error": None,
            }
            sensors = [
                {"name": "drift_flights", "sensorState": {"ticks": [tick]}},
                {"name": "new", "sensorState": {"ticks": []}},
            ]
            return {"repositoriesOrError": {"nodes": [{"sensors": sensors}]}}
        keys = ["/".join(key["path"]) for key in variables["keys"]]
        if "metadataEntries" in query:
            self.detailed.append(keys)
        return {"assetNodes": [self.node(key) for key in keys]}

    def node(self, key):
        events = [
            {
                "runId": f"run-{version}", "timestamp": str(version * 1000), "partition": None,
                "description": None, "tags": [],
                "metadataEntries": [{"label": "model_version", "__typename": "IntMetadataEntry",
                                     "intRepr": str(version)}],
            }
            for version in self.made
        ]  # fmt: skip
        model = key == "flights_model"
        return {
            "assetKey": {"path": [key]},
            "assetMaterializations": events if model else [],
            "assetObservations": [],
        }


@pytest.fixture
def platform():
    known = Platform()

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if known.status == 200:
                self.tell(200, {"data": known.graphql(asked["query"], asked["variables"])})
            else:
                self.tell(known.status, {"errors": [{"message": "no such field"}]})

        def do_GET(self):
            if not known.up:
                self.tell(503, {"error": {}})
            elif self.path.endswith("/evidence"):
                shadows = {"v2": {"requests": 40}}
                self.tell(
                    200, {"versions": {"v1": {"requests": 90}, "v2": {"requests": 2}}, "shadows": shadows}
                )
            else:
                self.tell(200, READY)

        def tell(self, status, content):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known.url = f"http://127.0.0.1:{server.server_port}"
    yield known
    server.shutdown()
    server.server_close()


def test_metadata_is_fetched_once_and_only_of_assets_with_something_new(platform):
    with Watch(platform.url, f"{platform.url}/flights", ASSETS) as watch:
        first, again = watch.look(), watch.look()
        platform.made.append(2)
        second = watch.look()

    assert [event.facts for event in first.events] == [{"model_version": 1}]
    assert again.events == first.events
    assert [event.facts["model_version"] for event in second.events] == [1, 2]
    assert platform.detailed == [["flights_model"], ["flights_model"]]
    assert first.endpoint is not None and first.endpoint.stable == "v1"
    assert first.staleness["flights_model"].status == "FRESH"


def test_samples_and_ticks_are_read(platform):
    with Watch(platform.url, f"{platform.url}/flights", ASSETS) as watch:
        assert [watch.samples(version) for version in ("v1", "v2", "v3")] == [90, 42, 0]
        (tick,) = watch.ticks().values()
        assert (tick.sensor, tick.at, tick.told) == ("drift_flights", 5.0, "nothing new")


def test_an_endpoint_that_is_not_ready_is_not_known(platform):
    platform.up = False
    with Watch(platform.url, f"{platform.url}/flights", ASSETS) as watch:
        found = watch.look()
        assert (found.endpoint, found.served_stale, watch.samples("v1")) == (None, None, 0)


def test_a_refused_question_is_an_error(platform):
    platform.status = 400
    with (
        Watch(platform.url, f"{platform.url}/flights", ASSETS) as watch,
        pytest.raises(StackError, match=r"HTTP 400.*no such field"),
    ):
        watch.look()


def test_a_webserver_that_is_gone_is_an_error():
    with (
        Watch("http://127.0.0.1:9", "http://127.0.0.1:9/flights", ASSETS) as watch,
        pytest.raises(StackError, match="did not answer 3 times"),
    ):
        watch.look()


def test_staleness_is_asked_again_when_something_happened(platform):
    asked = []
    answer = platform.graphql

    def graphql(query, variables):
        asked.append("staleStatus" in query)
        return answer(query, variables)

    platform.graphql = graphql
    with Watch(platform.url, f"{platform.url}/flights", ASSETS) as watch:
        first, second = watch.look(), watch.look()
        assert first.staleness == second.staleness != {}
        assert sum(asked) == 1
        platform.made.append(2)
        watch.look()
        assert sum(asked) == 2
