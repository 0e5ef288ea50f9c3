"""Sessions of an object store's client that know already what botocore says of its services.

Belongs here: one reading of those descriptions for all sessions of a process. Does not belong here: which
store, its credentials and what is asked of it (``lake.py``, ``conditional_store.py``).
"""

import functools
from typing import Any


def session(profile: str | None) -> Any:
    """A botocore session of its own, as threads and credentials need one; ``profile``: of AWS's own files.

    Botocore reads 2 MB of JSON anew for each session, 65 ms of a core where the rest of a client costs 10.
    """
    from botocore.session import Session

    made = Session(profile=profile)
    made.register_component("data_loader", _descriptions(made.get_config_variable("data_path")))
    return made


@functools.cache
def _descriptions(more: str | None) -> Any:
    """Botocore's own, and what the user has of them in the folders ``more``."""
    from botocore.loaders import create_loader

    return create_loader(more)
