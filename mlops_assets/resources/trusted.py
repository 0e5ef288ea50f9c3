"""Which certificates our own HTTP requests trust.

Belongs here: one TLS context for all of them. Does not belong here: asking anybody anything (the clients
beside this file).
"""

import functools
import ssl


@functools.cache
def certificates() -> ssl.SSLContext:
    """What httpx trusts by default, read once in a process.

    httpx reads it anew for every client and every request, also of plain HTTP: 20 ms of a core each, where
    asking Ray or an endpoint costs 2.
    """
    import httpx

    return httpx.create_ssl_context(trust_env=False)
