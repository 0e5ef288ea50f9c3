"""What the README tells people to type exists and fits the declarations."""

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_file_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", README) + re.findall(r"@(docs/\S+)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_the_readme_names_exists() -> None:
    targets = set(re.findall(r"make ([a-z]+)", README)) - {"it", "sure"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets >= {"up", "down", "test", "check", "bench"}
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)] == []


def test_the_example_requests_hold_exactly_what_is_declared() -> None:
    text = (ROOT / "mlops_assets/defs/flights/defs.yaml").read_text(encoding="utf-8")
    view = next(d for d in yaml.safe_load_all(text) if d["type"].endswith("FeatureViewComponent"))
    example = json.loads((ROOT / "docs/examples/flights.json").read_text(encoding="utf-8"))
    by_key = json.loads((ROOT / "docs/examples/flights-by-key.json").read_text(encoding="utf-8"))
    assert set(by_key["request"]) == set(view["attributes"]["online"]["request"])
    assert set(by_key["entity"]) == set(view["attributes"]["entity"]["join_keys"])
    assert set(example["features"]) == {feature["name"] for feature in view["attributes"]["features"]}
