"""Who asks: proofs of every kind, and what is said of them."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
    (
        "proof: nonce bound to the key",
        (("certauth/identity/id_token.py", '        if not same(claims.get("nonce"), key.nonce()):', "        if False:"),),
        ("tests/certauth/identity/test_proof.py",),
    ),
    (
        "proof: audience",
        (("certauth/identity/id_token.py", "    if issuer.audience not in named:", "    if False:"),),
        ("tests/certauth/identity/test_proof.py",),
    ),
    (
        "proof: issuer is the configured one",
        (("certauth/identity/proof.py", "    if claimed != issuer:", "    if False:"),),
        ("tests/certauth/identity/test_proof.py",),
    ),
    (
        "proof: expiry",
        (("certauth/identity/proof.py", "    if moment >= expires_at + tolerance:", "    if False:"),),
        ("tests/certauth/identity/test_proof.py",),
    ),
    (
        "proof: the kind is one that its issuer may sign",
        (("certauth/identity/proof.py", "    if kind not in issuer.kinds:", "    if False:"),),
        ("tests/certauth/identity/test_id_token.py",),
    ),
    (
        "proof: unbound only where that is allowed",
        (("certauth/identity/proof.py", "        if binding in issuer.bindings:", "        if True:"),),
        ("tests/certauth/identity/test_id_token.py",),
    ),
    (
        "proof: unbound is worth little",
        (
            (
                "certauth/identity/proof.py",
                "assurance=min(issuer.assurance, UNBOUND_ASSURANCE) if binding is Binding.NONE else issuer.assurance,",
                "assurance=issuer.assurance,",
            ),
        ),
        ("tests/certauth/identity/test_id_token.py",),
    ),
    (
        "proof: every cnf names the key",
        (("certauth/identity/binding.py", "        if not all(same(one, ours) for one in named):", "        if False:"),),
        ("tests/certauth/identity/test_id_token.py",),
    ),
    (
        "ID token: bound and shown as unbound",
        (
            (
                "certauth/identity/id_token.py",
                '        if claims.get("nonce") is not None and Binding.NONCE not in found:',
                "        if False:",
            ),
        ),
        ("tests/certauth/identity/test_id_token.py",),
    ),
    (
        "machine token: no login in disguise",
        (("certauth/identity/token_types.py", "claims.keys() & (_PERSON | _ACCESS)", "False"),),
        ("tests/certauth/identity/test_token_types.py", "tests/certauth/identity/test_workload.py"),
    ),
    (
        "machine token: no audience besides us",
        (("certauth/identity/workload.py", "    elif named != {issuer.audience}:", "    elif False:"),),
        ("tests/certauth/identity/test_workload.py",),
    ),
    (
        "access token: a client's own is no person",
        (("certauth/identity/access_token.py", "    if subject in clients:", "    if False:"),),
        ("tests/certauth/identity/test_access_token.py",),
    ),
    (
        "access token: active is true and nothing like it",
        (
            (
                "certauth/identity/access_token.py",
                '    if answer.get("active") is not True:',
                '    if not answer.get("active"):',
            ),
        ),
        ("tests/certauth/identity/test_access_token.py",),
    ),
    (
        "access token: a JWT is not introspected",
        (
            (
                "certauth/identity/access_token.py",
                "    if len(token) > MAX_PROOF or not _OPAQUE.fullmatch(token):",
                "    if len(token) > MAX_PROOF:",
            ),
        ),
        ("tests/certauth/identity/test_access_token.py",),
    ),
    (
        "assertion: for one key",
        (("certauth/identity/client_assertion.py", "    if not key.is_confirmed_by(claims):", "    if False:"),),
        ("tests/certauth/identity/test_client_assertion.py",),
    ),
    (
        "assertion: for one signer",
        (
            (
                "certauth/identity/client_assertion.py",
                "    if len(named) != 1 or not named <= {key.signer_id, signer_id_of(key.signer_id)}:",
                "    if False:",
            ),
        ),
        ("tests/certauth/identity/test_client_assertion.py",),
    ),
    (
        "assertion: its author is its subject",
        (
            (
                "certauth/identity/client_assertion.py",
                "    check_issuer(check_subject(claims), principal)",
                "    check_subject(claims)",
            ),
        ),
        ("tests/certauth/identity/test_client_assertion.py",),
    ),
    (
        "address: verified in the same document",
        (
            (
                "certauth/identity/proof.py",
                'if unsaid or claims.get("email_verified") is True else None',
                'if unsaid or claims.get("email_verified") else None',
            ),
        ),
        (
            "tests/certauth/identity/test_id_token.py",
            "tests/certauth/identity/test_userinfo.py",
            "tests/certauth/identity/test_proof.py",
        ),
    ),
    (
        "replay: no proof after its memory ends",
        (
            (
                "signer/writer.py",
                "        if submission.replay is not None and at >= submission.replay.until:",
                "        if False:",
            ),
        ),
        ("tests/signer/test_clock.py",),
    ),
    (
        "explaining: a proof that was used is said",
        (("signer/foreseeing.py", "        if self._store.has_used(identity.proof_digest):", "        if False:"),),
        ("tests/properties/test_explain_outcome.py",),
    ),
    (
        "explaining: the address counts",
        (("signer/foreseeing.py", "            address=wish.address,", "            address=None,"),),
        ("tests/properties/test_explain_outcome.py",),
    ),
    (
        "two clients: the signer's own takes no program's token",
        (("signer/providers.py", "            issuer=issuer.own_client(),", "            issuer=issuer.issuer(),"),),
        ("tests/signer/test_public_client.py",),
    ),
    (
        "two clients: programs' tokens are for their client",
        (
            (
                "signer/settings.py",
                "        return self._as_client(self.program_client_id)",
                "        return self._as_client(self.client_id)",
            ),
        ),
        ("tests/signer/test_public_client.py",),
    ),
    (
        "two clients: every token is bound",
        (("signer/settings.py", '        if "none" in self.bindings:', "        if False:"),),
        ("tests/signer/test_public_client.py",),
    ),
    (
        "proof: a refused one is in the signer's log",
        (
            (
                "signer/proving.py",
                '        log.info("proof.refused", code=error.code, proof=digest.hex(), reason=error.message)',
                "        pass",
            ),
        ),
        ("tests/signer/test_refused_proofs.py",),
    ),
)
