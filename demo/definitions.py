"""The entry point of the loop's code location: its own documents under the platform's policy.

Belongs here: where those documents are. Does not belong here: what they say (``documents.py``), the policy
(``mlops_assets/definitions.py``).
"""

import sys

import dagster as dg
from dagster.components.core.component_tree import ComponentTree

from demo.documents import PROJECT
from mlops_assets import environment
from mlops_assets.components.use_cases import load_use_cases
from mlops_assets.definitions import with_platform_policy


@dg.definitions
def defs() -> dg.Definitions:
    """Every document of the loop; all of them must load."""
    project = environment.state_dir() / PROJECT
    if str(project) not in sys.path:
        sys.path.insert(0, str(project))
    return with_platform_policy(load_use_cases(ComponentTree.for_project(project), strict=True))
