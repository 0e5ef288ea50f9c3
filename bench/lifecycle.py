"""``python -m bench.lifecycle``: a version's whole life under load, measured.

Belongs here: the entry point. Does not belong here: the life and its measurements
(``mlops_assets/testing/life_cycle.py``), whose short form is a test.
"""

from mlops_assets.testing.life_cycle import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
