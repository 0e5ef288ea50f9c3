"""The YAML of ``docs/use-case.md``, as it stands there.

Belongs here: taking blocks out of the page. Does not belong here: what is tested about them.
"""

import re
import textwrap

from mlops_assets import environment

PAGE = (environment.PROJECT_ROOT / "docs" / "use-case.md").read_text(encoding="utf-8")
BLOCKS = [
    textwrap.dedent(block) for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
]
DOCUMENTS = [block for block in BLOCKS if block.startswith("type: ")]
OF_MODELS = [block for block in BLOCKS if block.startswith("candidates:")]
FRAGMENTS = [block for block in BLOCKS if not block.startswith("type: ") and block not in OF_MODELS]
IRIS = next(block for block in DOCUMENTS if "\n---\n" in block)
"""The whole use case of the page, for a ``raw.csv`` beside it."""
