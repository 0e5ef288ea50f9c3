"""Clients that others wrote, each in an environment of its own, as a caller somewhere else has it.

Belongs here: what each is installed from, and what it does to an endpoint. Does not belong here: the endpoint
and what its answers must be (``test_clients.py``).

``<name>/requirements.in`` names the client; ``requirements.txt`` pins it and all that it needs, by hash::

    uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \\
        requirements.in -o requirements.txt

``<name>/ask.py`` runs there, and knows nothing of this project: one JSON object in, one out.
"""
