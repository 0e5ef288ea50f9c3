"""Loading the code location imports nothing heavy: every run and every code server pays it."""

import subprocess
import sys

HEAVY = (
    "evidently", "great_expectations", "mlflow", "feast", "torch", "ray", "lightgbm", "xgboost", "sklearn",
    "scipy", "pandas", "pyarrow", "duckdb", "deltalake", "matplotlib", "dagster_mlflow",
    "dagster_aws", "boto3", "confluent_kafka", "fastavro",
)  # fmt: skip


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    code = (
        "import sys, mlops_assets.definitions as d; d.defs();"
        f"print(sorted(set({HEAVY!r}) & {{name.split('.')[0] for name in sys.modules}}))"
    )
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
