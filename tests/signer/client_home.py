"""A user's home at a real signer, filled as a login fills it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from certauth import keys
from certauth.bundles import TrustBundle
from certauth.client.login import check_answer
from certauth.client.profile import Home, Profile, SignerRecord
from certauth.clock import Clock, system_clock
from certauth.keys import Algorithm
from certauth.names import TrustDomain
from tests.signer.kit import DOMAIN, Site


def log_in(site: Site, subject: str, directory: Path, *, clock: Clock = system_clock, **wishes: Any) -> tuple[Home, Profile]:
    """A home in ``directory`` with a fresh certificate of ``subject``."""
    key = keys.generate(Algorithm.P256)
    with site.client() as client:
        answer = client.post("/v1/certificates", json=site.body(subject, key) | wishes)
        bundle = client.get("/.well-known/certauth/bundle").content
    assert answer.status_code == 201, answer.text
    trusted = TrustBundle.parse(bundle, allow_example_keys=False)
    credential, _, receipt = check_answer(answer.json(), key=key, bundle=trusted, url=site.url, clock=clock)
    home = Home(directory)
    profile = home.profile(TrustDomain(DOMAIN))
    record = SignerRecord(
        url=site.url,
        domain=DOMAIN,
        issuer="campus",
        certificates=f"{site.url}/v1/certificates",
        tokens=f"{site.url}/v1/tokens",
        system_roots=False,
        example_keys=False,
    )
    profile.store_login(credential, signer=record, bundle=bundle, extra_roots=site.root.read_bytes(), receipt=receipt)
    home.activate(profile)
    return home, profile
