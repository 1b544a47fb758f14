"""The door: whom it trusts, and what it remembers of a decision."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
    (
        "trust: a tainted key's token is withdrawn, not unknown",
        (("policy/token.py", " and decode(from_text(unverified_token)).kid in state.tainted", ""),),
        ("tests/policy/test_token.py",),
    ),
    (
        "trust: other attesters are another state",
        (("policy/trust.py", "same = known == old.attesters and all", "same = all"),),
        ("tests/policy/test_trust_file.py",),
    ),
    (
        "trust: a file that cannot be read changes nothing",
        (
            (
                "policy/trust_file.py",
                "            self._report(error)\n            return None",
                "            self._report(error)\n            return {}",
            ),
        ),
        ("tests/policy/test_trust_file.py",),
    ),
    (
        "remembered: not under another state of trust",
        (("policy/remembered.py", "known.state is not state or ", ""),),
        ("tests/policy/test_remembered.py",),
    ),
    (
        "remembered: not after what it rests on ends",
        (("policy/remembered.py", "return known if now < known.until else None", "return known"),),
        ("tests/policy/test_remembered.py",),
    ),
    (
        "remembered: for one certificate",
        (
            (
                "policy/remembered.py",
                "headers.authorization, headers.biscuit, offered, chain,",
                "headers.authorization, headers.biscuit, offered,",
            ),
        ),
        ("tests/policy/test_remembered.py",),
    ),
    (
        "remembered: nothing that is counted or has a body",
        (("policy/remembered.py", " or permit.token.limits or permit.token.body_sha256:", ":"),),
        ("tests/policy/test_remembered.py",),
    ),
    (
        "remembered: every time that a check names",
        (
            (
                "certauth/tokens/authorizer.py",
                "named |= {check.not_before or 0, check.before}",
                "named |= {check.not_before or 0}",
            ),
        ),
        ("tests/certauth/tokens/test_authorizer.py",),
    ),
    (
        "trust: a verified token is verified again in a new state",
        (("policy/token.py", "key = (unverified_token, state.generation)", "key = (unverified_token, 0)"),),
        ("tests/policy/test_token.py",),
    ),
    (
        "fetched bundle: same anchors",
        (("policy/bundle_source.py", "if not same_anchors(bundle, pinned):", "if False:"),),
        ("tests/policy/test_bundle_source.py",),
    ),
    (
        "fetched bundle: self-made issuers are anchors, too",
        (("policy/bundle_source.py", "frozenset((*bundle.x509_roots, *self_made))", "frozenset(bundle.x509_roots)"),),
        ("tests/policy/test_bundle_source.py",),
    ),
    (
        "fetched bundle: never goes back",
        (("policy/bundle_source.py", "if bundle.sequence < current.sequence:", "if False:"),),
        ("tests/policy/test_bundle_source.py",),
    ),
    (
        "fetched bundle: one sequence, one bundle",
        (("policy/bundle_source.py", "if bundle.to_json() != current.to_json():", "if False:"),),
        ("tests/policy/test_bundle_source.py",),
    ),
    (
        "fetched bundle: of its domain",
        (("policy/bundle_source.py", "if bundle.domain != pinned.domain:", "if False:"),),
        ("tests/policy/test_bundle_source.py",),
    ),
    (
        "fetched bundle: so large at most",
        (("policy/bundle_source.py", "limit=MAX_BUNDLE", "limit=2**30"),),
        ("tests/policy/test_bundle_source.py",),
    ),
    (
        "fetched: no redirect is followed",
        (("policy/fetching.py", "follow_redirects=False", "follow_redirects=True"),),
        ("tests/policy/test_bundle_source.py",),
    ),
    (
        "trust: no key of small order in a bundle",
        (("certauth/trust_bundle.py", "is_small_order(raw(key)) for key", "False for key"),),
        ("tests/certauth/test_bundles.py",),
    ),
    (
        "trust: no log key of small order",
        (("certauth/audit/checkpoint.py", "if is_small_order(material[1:]):", "if False:"),),
        ("tests/certauth/test_bundles.py",),
    ),
    (
        "trust: no attester of small order",
        (
            (
                "policy/attesters.py",
                "case Ed25519PublicKey() if is_small_order(raw(public)):",
                "case Ed25519PublicKey() if False:",
            ),
        ),
        ("tests/policy/test_trust.py",),
    ),
)
