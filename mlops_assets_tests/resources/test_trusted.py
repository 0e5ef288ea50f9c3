"""The certificates that are read once are those that httpx would read each time."""

import ssl

import httpx

from mlops_assets.resources import trusted


def test_what_is_read_once_trusts_what_httpx_trusts_and_nobody_else() -> None:
    held, each_time = trusted.certificates(), httpx.create_ssl_context(trust_env=False)
    assert held is trusted.certificates()
    assert held.get_ca_certs(binary_form=True) == each_time.get_ca_certs(binary_form=True) != []
    assert held.verify_mode is ssl.CERT_REQUIRED and held.check_hostname
