"""The guards of identity, enrolment, tokens and the user's program, and how each is taken out: see ``tests.mutations``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Edit = tuple[str, str, str]
"""File, exact text that is there once, text in its place."""
Guard = tuple[str, tuple[Edit, ...], tuple[str, ...]]
"""Its name, the edits that take it out, and the test files of which one test must notice."""

GUARDS: Final[Mapping[str, tuple[Guard, ...]]] = {
    "who asks: proofs of every kind": (
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
            (
                "tests/certauth/identity/test_token_types.py",
                "tests/certauth/identity/test_workload.py",
            ),
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
            "provider keys: ROCA",
            (("certauth/identity/keyset.py", "    if roca.is_vulnerable(modulus):", "    if False:"),),
            (
                "tests/certauth/identity/test_keyset.py",
                "tests/certauth/identity/test_roca.py",
            ),
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
            "code: the purpose of a code",
            (
                (
                    "signer/codes.py",
                    "        if row is None or row.purpose is not Purpose.MACHINE or row.principal is None:",
                    "        if row is None or row.principal is None:",
                ),
            ),
            (
                "tests/signer/test_codes.py",
                "tests/signer/test_enrolment.py",
            ),
        ),
        (
            "code: one address is one in ASCII",
            (
                (
                    "signer/codes.py",
                    "    return one.isascii() and other.isascii() and one.lower() == other.lower()",
                    "    return one.lower() == other.lower()",
                ),
            ),
            ("tests/signer/test_codes.py",),
        ),
    ),
    "who becomes whom": (
        (
            "rules: assurance has the login as its ceiling",
            (("certauth/identity/mapping/outputs.py", "    return min(level, claims.identity.assurance)", "    return level"),),
            ("tests/certauth/identity/test_mapping_outputs.py",),
        ),
        (
            "rules: missing is no failure",
            (
                (
                    "certauth/identity/mapping/conditions.py",
                    "return Outcome.HOLDS if outcome is wanted else Outcome.FAILS",
                    "return Outcome.FAILS if (outcome is Outcome.HOLDS) is (wanted is Outcome.FAILS) else Outcome.HOLDS",
                ),
            ),
            ("tests/certauth/identity/test_mapping_conditions.py",),
        ),
        (
            "rules: claims have a namespace",
            (
                (
                    "certauth/identity/mapping/memberships.py",
                    'return f"{issuer_id}:" if prefix is None else prefix',
                    'return prefix or ""',
                ),
            ),
            ("tests/certauth/identity/test_mapping_outputs.py",),
        ),
        (
            "rules: long lists are refused and not cut",
            (("certauth/identity/mapping/claims.py", "        if len(values) > self._max_values:", "        if False:"),),
            ("tests/certauth/identity/test_mapping_claims.py",),
        ),
        (
            "rules: only the verified address",
            (
                (
                    "certauth/identity/mapping/claims.py",
                    "            return self.identity.email\n        return self._claims.get(head)",
                    "            return self._claims.get(head)\n        return self._claims.get(head)",
                ),
            ),
            (
                "tests/certauth/identity/test_mapping_claims.py",
                "tests/certauth/identity/test_mapping_outputs.py",
            ),
        ),
        (
            "rules: a claim is one segment",
            (("certauth/identity/mapping/templates.py", "        elif not SEGMENT.fullmatch(value):", "        elif False:"),),
            ("tests/certauth/identity/test_mapping_templates.py",),
        ),
        (
            "rules: authority of an entitlement",
            (("certauth/identity/mapping/memberships.py", " and authority in (None, stated_authority)", ""),),
            ("tests/certauth/identity/test_mapping_outputs.py",),
        ),
        (
            "rules: scopes have canonical paths",
            (
                (
                    "certauth/identity/mapping/scopes.py",
                    "        if colon and not is_canonical_path(path):",
                    "        if False:",
                ),
            ),
            (
                "tests/certauth/identity/test_mapping_outputs.py",
                "tests/certauth/identity/test_mapping_scopes.py",
            ),
        ),
        (
            "rules: true is not 1",
            (
                (
                    "certauth/identity/mapping/claims.py",
                    '            return "boolean", value',
                    '            return "number", value',
                ),
            ),
            ("tests/certauth/identity/test_mapping_claims.py",),
        ),
        (
            "rules: what cannot be read refuses",
            (("certauth/identity/mapping/rules.py", "    if taken is Outcome.UNREADABLE:", "    if taken is None:"),),
            ("tests/certauth/identity/test_mapping_rules.py",),
        ),
        (
            "rules: no login becomes root",
            (("certauth/identity/mapping/outputs.py", " or name in RESERVED_USERNAMES:", ":"),),
            ("tests/certauth/identity/test_mapping_outputs.py",),
        ),
        (
            "rules: namespaces of issuers are apart",
            (
                (
                    "certauth/identity/mapping/rules.py",
                    "            if not shared and (prefix.startswith(foreign) or foreign.startswith(prefix)):",
                    "            if False:",
                ),
            ),
            ("tests/certauth/identity/test_mapping_rules.py",),
        ),
        (
            "rules: names of issuers are apart",
            (("certauth/identity/mapping/rules.py", "            if one.meets(other):", "            if False:"),),
            ("tests/certauth/identity/test_mapping_rules.py",),
        ),
        (
            "admitting: an invitation is for one login",
            (("signer/admitting.py", "            or not _is_meant(found.row, identity)\n", ""),),
            ("tests/signer/test_enrolment.py",),
        ),
        (
            "admitting: an invitation runs out and is used once",
            (("signer/admitting.py", "            or unusable(found, Purpose.INVITE, now=at)\n", ""),),
            ("tests/signer/test_enrolment.py",),
        ),
        (
            "admitting: no login becomes an administrator",
            (("signer/admitting.py", "        if str(principal) in self._admins:", "        if False:"),),
            ("tests/signer/test_admitting.py",),
        ),
        (
            "admitting: a name that is taken stays",
            (("signer/admitting.py", "        if self._store.enrolled_principal(who) is not None:", "        if False:"),),
            ("tests/signer/test_enrolment.py",),
        ),
        (
            "linking: the proof is for the key of the session",
            (("signer/linking.py", "        if request.spki != peer.spki:", "        if False:"),),
            ("tests/signer/test_linking.py",),
        ),
        (
            "linking: the session is fresh",
            (("signer/linking.py", "now - current.row.session_at > RECENT:", "False:"),),
            ("tests/signer/test_linking.py",),
        ),
        (
            "linking: the login is nobody's",
            (
                (
                    "signer/linking.py",
                    "        if self._store.enrolment(issuer=identity.issuer, subject=identity.subject) is not None:",
                    "        if False:",
                ),
            ),
            ("tests/signer/test_linking.py",),
        ),
        (
            "linking: the rules of the provider",
            (("signer/linking.py", "                return _NOT_ADMITTED\n", "                return None\n"),),
            ("tests/signer/test_linking.py",),
        ),
    ),
    "what is granted": (
        (
            "person is issuer and subject",
            (
                (
                    "certauth/issuance.py",
                    "Login(identity.issuer, identity.subject) not in enrolment.logins:",
                    "identity.subject not in {one.subject for one in enrolment.logins}:",
                ),
            ),
            ("tests/certauth/test_issuance.py",),
        ),
        (
            "certificate lifetime: the signer's cap",
            (
                (
                    "certauth/issuance.py",
                    'issuer_id=identity.issuer_id,\n        caps=(\n            (max_lifetime, "the signer\'s settings"),\n',
                    "issuer_id=identity.issuer_id,\n        caps=(\n",
                ),
            ),
            ("tests/certauth/test_issuance.py",),
        ),
        (
            "kinds of proof: a login makes no machine",
            (
                (
                    "certauth/issuance.py",
                    '    Kind.SERVICE: frozenset({"workload", ',
                    '    Kind.SERVICE: frozenset({"id_token", "workload", ',
                ),
            ),
            ("tests/certauth/test_issuance.py",),
        ),
        (
            "kinds of proof: a machine is no person",
            (
                (
                    "certauth/issuance.py",
                    '    Kind.USER: frozenset({"id_token", "access_token"}),',
                    '    Kind.USER: frozenset({"id_token", "access_token", "workload", "code"}),',
                ),
            ),
            ("tests/certauth/test_issuance.py",),
        ),
        (
            "enrolment: networks",
            (
                (
                    "certauth/issuance.py",
                    " and not any(address in network for network in enrolment.networks if address is not None):",
                    " and False:",
                ),
            ),
            ("tests/certauth/test_issuance.py",),
        ),
        (
            "enrolment: its end",
            (
                (
                    "certauth/issuance.py",
                    "    if enrolment.expires_at is not None and now >= enrolment.expires_at:",
                    "    if False:",
                ),
            ),
            ("tests/certauth/test_issuance.py",),
        ),
        (
            "renewal: the end of the session",
            (
                (
                    "certauth/issuance.py",
                    "    if session_ends is not None and session_ends - start < MIN_LIFETIME:",
                    "    if False:",
                ),
                (
                    "certauth/issuance.py",
                    '            (None if session_ends is None else session_ends - start, "the end of the session"),\n',
                    "",
                ),
            ),
            ("tests/certauth/test_issuance.py",),
        ),
        (
            "renewal: the name of the certificate",
            (
                (
                    "certauth/issuance.py",
                    "    if enrolment is None or enrolment.principal != peer.principal:\n        return _not",
                    "    if enrolment is None:\n        return _not",
                ),
            ),
            ("tests/certauth/test_issuance.py",),
        ),
        (
            "agent: nothing that its owner lacks",
            (
                (
                    "signer/standing.py",
                    "common_rights(held, held_rights(owner, self.newest_terms(owner.principal), self._entitlements))",
                    "held",
                ),
            ),
            ("tests/signer/test_agents.py",),
        ),
        (
            "agent: ends with its owner",
            (("signer/standing.py", "    if owner is None or owner.disabled:", "    if owner is None:"),),
            (
                "tests/signer/test_admitting.py",
                "tests/signer/test_agents.py",
                "tests/signer/test_renewal.py",
            ),
        ),
        (
            "agent: given only what its owner holds",
            (("signer/agents_terms.py", "        if not any(_covers(other, right) for other in held):", "        if False:"),),
            ("tests/signer/test_agents.py",),
        ),
        (
            "agent: makes no agents",
            (("signer/agents_terms.py", "    if peer.principal.kind is not Kind.USER:", "    if False:"),),
            ("tests/signer/test_agents.py",),
        ),
        (
            "agent: no networks beyond its owner's",
            (
                (
                    "signer/agents_terms.py",
                    "not all(any(_within(one, network) for network in owner.networks) for one in wish.networks):",
                    "False:",
                ),
            ),
            ("tests/signer/test_agents.py",),
        ),
    ),
    "OAuth": (
        (
            "exchange: in the hands of the holder",
            (("signer/exchange.py", "    if token.holder != peer.fingerprint:", "    if False:"),),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "exchange: not withdrawn",
            (
                (
                    "signer/exchange.py",
                    "    if revocations is None or revocations.token(",
                    "    if revocations is None or False and revocations.token(",
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "exchange: not after its end",
            (("signer/exchange.py", "    if not usable_from(token) <= now < ends:", "    if False:"),),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "exchange: what cannot be repeated refuses",
            (
                (
                    "signer/exchange.py",
                    "                case _:\n                    return None\n    return rights",
                    "                case _:\n                    pass\n    return rights",
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "exchange: narrowed paths",
            (("signer/exchange.py", "                    rights = _below(rights, names)", "                    pass"),),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "exchange: a biscuit that was handed over stays",
            (
                (
                    "signer/minting.py",
                    '        if form.form == "biscuit" and subject is not None and subject.handed_over:',
                    "        if False:",
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "exchange: no more than the old token",
            (("signer/minting.py", "common_rights(rights, subject.rights), min(", "rights, min("),),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "exchange: no longer than the old token",
            (("signer/minting.py", "min(longest, subject.expires_at - whole_seconds(now))", "longest"),),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "JWT: for listed services only",
            (
                (
                    "signer/minting.py",
                    '        if form.form == "jwt" and form.audience not in self._settings.jwt_services:',
                    "        if False:",
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "JWT: scope has subtrees only",
            (("certauth/tokens/jwt_form.py", ' for right in rights if right.path.endswith("/")]', " for right in rights]"),),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "JWT: bound to the certificate",
            (
                (
                    "certauth/tokens/jwt_form.py",
                    '        "cnf": {"x5t#S256": b64url(bytes.fromhex(spec.peer_fingerprint))},\n',
                    "",
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "introspection: whom it concerns",
            (
                (
                    "signer/introspecting.py",
                    "        if found is None or not self._concerns(found, peer):",
                    "        if found is None:",
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "introspection: a withdrawn biscuit",
            (
                (
                    "signer/introspecting.py",
                    "        if withdrawn is not None or rights is None or not usable_from(token) <= now < ends:",
                    "        if rights is None or not usable_from(token) <= now < ends:",
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "introspection: a withdrawn JWT",
            (
                (
                    "signer/introspecting.py",
                    "        if withdrawn is not None or any(parents) or now >= row.expires_at:",
                    "        if any(parents) or now >= row.expires_at:",
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "client_id is of the certificate",
            (("signer/oauth.py", '    if form.get("client_id", str(client)) != str(client):', "    if False:"),),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "forms: each parameter once",
            (
                (
                    "signer/oauth.py",
                    "    if twice := sorted({name for name in names if names.count(name) > 1}):",
                    '    if twice := "":',
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
    ),
    "taking back": (
        (
            "revocation: of a part by whom it belongs to",
            (
                (
                    "signer/revoking.py",
                    "        return isinstance(self._may(block_id, found, peer), MayRevoke), int",
                    "        return True, int",
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "revocation: of a JWT by its user",
            (
                (
                    "signer/revoking.py",
                    "            (stored.row.principal, peer.fingerprint),",
                    "            (peer.principal, peer.fingerprint),",
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "revocation: of the whole by its user",
            (
                (
                    "signer/revoking.py",
                    "        if found.user == str(peer.principal) and len(found.block_ids) == 1:",
                    "        if len(found.block_ids) == 1:",
                ),
            ),
            ("tests/signer/test_oauth.py",),
        ),
        (
            "revocation: of one's own only",
            (
                (
                    "signer/revoking.py",
                    "        if not allowed and str(peer.principal) not in self._admins:",
                    "        if False:",
                ),
            ),
            ("tests/signer/test_issuing.py",),
        ),
        (
            "revocation: twice is once",
            (
                (
                    "signer/revoking.py",
                    '            request_id=request_id if before else entries.own_id("revoke", digest),',
                    "            request_id=request_id,",
                ),
            ),
            ("tests/signer/test_service.py",),
        ),
        (
            "refusals: repeated, one entry",
            (
                (
                    "signer/recording.py",
                    'request_id=entries.own_id("deny", digest), digest=digest, event=event',
                    'request_id=entries.own_id("deny", self._entropy(16)), digest=digest, event=event',
                ),
            ),
            ("tests/signer/test_service.py",),
        ),
        (
            "record: a refusal is recorded before it is answered",
            (("signer/recording.py", "        await self._handoff.record(denial)\n", "        del denial\n"),),
            ("tests/signer/test_issuing.py",),
        ),
    ),
    "logins through the signer": (
        (
            "login: a mediated login is the browser's in which the code was typed",
            (
                (
                    "signer/login.py",
                    '            if not login.is_of_browser(cookies.get(cookie_name(login.id), "")):\n                raise',
                    "            if login.browser_digest is None:\n                raise",
                ),
            ),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: only the login's browser confirms",
            (
                (
                    "signer/login.py",
                    '        if login is None or not login.is_of_browser(cookies.get(cookie_name(login_id), "")):',
                    "        if login is None:",
                ),
            ),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a code is the first browser's",
            (
                (
                    "signer/login.py",
                    "if login is not None and login.stage is Stage.PENDING:",
                    "if login is not None and login.stage in (Stage.PENDING, Stage.OPENED):",
                ),
            ),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: wrong codes are counted",
            (("signer/login.py", "        self._guesses.check(network, at=now)\n", ""),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: the secret of a login",
            (("signer/login.py", "if login is None or not known:", "if login is None:"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a login's result is for the key that began it",
            (("signer/login.py", "if not hmac.compare_digest(spki, login.spki):", "if not spki:"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a mediated login's proof is remembered until it cannot be claimed",
            (("signer/login.py", "return replace(identity, replay_until=max(identity.replay_until, end))", "return identity"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a mediated login is worth 2 at most",
            (("signer/login.py", "identity = identity.as_mediated()", "identity = replace(identity, mediated=True)"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a login finished elsewhere is worth 1 where that matters",
            (("signer/login.py", "if login.provider.same_address and elsewhere:", "if False and elsewhere:"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: an unknown address is elsewhere",
            (
                (
                    "signer/login.py",
                    "elsewhere = address is None or login.address is None or network_of",
                    "elsewhere = network_of",
                ),
            ),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: polling has its pace",
            (("signer/login.py", "if now < login.next_poll:", "if now < 0:"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a state works once",
            (
                (
                    "signer/login_register.py",
                    "login = self._by_state.pop(digest(state), None)\n",
                    "login = self._by_state.get(digest(state))\n",
                ),
            ),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: an older state is void",
            (
                (
                    "signer/login_register.py",
                    '        self._by_state.pop(login.state_digest or b"", None)\n        login.state_digest = digest',
                    "        login.state_digest = digest",
                ),
            ),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: logins per address",
            (
                (
                    "signer/login_register.py",
                    "if self._per_network[network_of(address)] >= self._limits.per_address:",
                    "if False:",
                ),
            ),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: logins in all",
            (("signer/login_register.py", "if len(self._living) >= self._limits.total:", "if False:"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: logins expire",
            (("signer/login_state.py", "if at >= self.expires_at:", "if False:"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: iss of RFC 9207",
            (("signer/login_client.py", "if issuer != expected or answer.iss != named:", "if issuer != expected:"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: iss announced and missing",
            (
                (
                    "signer/login_client.py",
                    "if must_name_itself or answer.iss is not None else None",
                    "if answer.iss is not None else None",
                ),
            ),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a provider's own callback",
            (("signer/login_client.py", "if issuer != expected or answer.iss != named:", "if answer.iss != named:"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: providers that could be mixed up",
            (
                (
                    "signer/login_client.py",
                    "if len(self._providers) > 1 and not (found",
                    "if len(self._providers) > 9 and not (found",
                ),
            ),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: PKCE",
            (("signer/login_client.py", "verifier=login.verifier,", 'verifier="",'),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: the nonce of a mediated login",
            (
                (
                    "signer/login_client.py",
                    "return BoundKey(signer_id=self._public_url, spki=login.spki, salt=login.salt)",
                    'return BoundKey(signer_id=self._public_url, spki=b"", salt=login.salt)',
                ),
            ),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: codes go to listed hosts",
            (("signer/login_provider.py", '    _check_place(provider, endpoint, "token endpoint")\n', ""),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a foreign form: cookie",
            (("signer/login_forms.py", "if not (fits and ours and same):", "if not (ours and same):"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a foreign form: origin",
            (("signer/login_forms.py", "if not (fits and ours and same):", "if not (fits and same):"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a foreign form: fetch metadata",
            (("signer/login_forms.py", "if not (fits and ours and same):", "if not (fits and ours):"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a hostile host",
            (("signer/login_pages.py", "{escape(shown.host)}", "{shown.host}"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: hostile words of a provider",
            (("signer/login_pages.py", "{escape(provider_says)}", "{provider_says}"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: a hostile name",
            (("signer/login_pages.py", "<b>{escape(who)}</b>", "<b>{who}</b>"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: invisible host names",
            (("signer/login_api.py", "if not text.isprintable():", "if False:"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: guessers of secrets are counted",
            (("signer/login_api.py", "            self._spend(request)\n            raise\n", "            raise\n"),),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
        (
            "login: words for its own browser only",
            (
                (
                    "signer/login_api.py",
                    'words = answer.description if error.code in ("provider-denied", "provider-refused") else None',
                    "words = answer.description",
                ),
            ),
            (
                "tests/signer/test_login.py",
                "tests/signer/test_login_api.py",
            ),
        ),
    ),
    "the user's program": (
        (
            "program: the redirect has our state",
            (
                (
                    "certauth/client/authorization.py",
                    '    if not hmac.compare_digest(given[0].encode("utf-8", "replace"), state.encode()):',
                    "    if False:",
                ),
            ),
            (
                "tests/certauth/client/test_authorization.py",
                "tests/certauth/client/test_paste.py",
            ),
        ),
        (
            "program: the signer's own page",
            (("certauth/client/mediated.py", "    if _origin(page) != attempt.metadata.signer:", "    if False:"),),
            ("tests/certauth/client/test_mediated.py",),
        ),
        (
            "program: a device token is bound",
            (
                (
                    "certauth/client/device.py",
                    '    if bound and str(members.get("token_type")).lower() != "dpop":',
                    "    if False:",
                ),
            ),
            ("tests/certauth/client/test_device.py",),
        ),
        (
            "program: a lock ends with its holder",
            (("certauth/client/lock.py", "            fcntl.flock(descriptor, fcntl.LOCK_UN)", "            pass"),),
            ("tests/certauth/client/test_lock.py",),
        ),
        (
            "program: who waited looks again",
            (
                (
                    "certauth/client/login.py",
                    "        if now is not None and (not force or now.credential.fingerprint != known):",
                    "        if False:",
                ),
            ),
            (
                "tests/certauth/client/test_lock.py",
                "tests/certauth/cli/test_login_methods.py",
            ),
        ),
        (
            "program: the facility vouches for verified requests",
            (
                (
                    "certauth/cli/token/vouch.py",
                    "            return verified(text, profile.bundle()).user",
                    '            return str(describe(text, now=system_clock())["user"])',
                ),
            ),
            ("tests/certauth/cli/test_token_vouch.py",),
        ),
        (
            "program: a revocation has its receipt",
            (
                (
                    "certauth/client/tokens.py",
                    ' or (recorded.get("kind"), recorded.get("value")) != (what.kind, what.value):',
                    ":",
                ),
            ),
            ("tests/certauth/client/test_tokens.py",),
        ),
        (
            "program: a token is for one origin",
            (("certauth/client/auth.py", "        if self._origin not in {None, origin}:", "        if False:"),),
            ("tests/certauth/client/test_auth.py",),
        ),
        (
            "program: a token leaves over TLS",
            (
                (
                    "certauth/client/auth.py",
                    "        origin = origin_of(str(request.url))\n",
                    '        from urllib.parse import urlsplit\n\n        parts = urlsplit(str(request.url))\n        origin = f"{parts.scheme}://{parts.netloc}"\n',
                ),
            ),
            ("tests/certauth/client/test_auth.py",),
        ),
        (
            "program: an empty list limits everything",
            (
                (
                    "certauth/tokens/attenuate.py",
                    '    if not found:\n        raise UsageError("bad-narrowing", "a list',
                    '    if False:\n        raise UsageError("bad-narrowing", "a list',
                ),
            ),
            ("tests/certauth/tokens/test_attenuate.py",),
        ),
        (
            "program: a token file of somebody else",
            (
                (
                    "certauth/client/sources.py",
                    "            if own and os.fstat(file.fileno()).st_uid not in (os.geteuid(), 0):",
                    "            if False:",
                ),
            ),
            ("tests/certauth/client/test_sources.py",),
        ),
    ),
    "the door: what a token depends on besides": (
        (
            "lint: facts of holders",
            (("certauth/tokens/lint.py", "        elif number and block.facts:", "        elif False:"),),
            ("tests/certauth/tokens/test_lint.py",),
        ),
        (
            "delegation: signed by the holder's key",
            (
                (
                    "certauth/tokens/delegate.py",
                    "    if key_ref(holder_key.public_key) != holder.delegate_key:",
                    "    if False:",
                ),
            ),
            ("tests/certauth/tokens/test_delegate.py",),
        ),
        (
            "delegation: by the present holder, at the door",
            (
                (
                    "certauth/tokens/lint.py",
                    "    if key == before.peer.delegate_key:",
                    "    if key == before.authority.peer.delegate_key:",
                ),
            ),
            ("tests/certauth/tokens/test_delegate.py",),
        ),
        (
            "delegation: depths fall",
            (
                (
                    "certauth/tokens/lint.py",
                    "            if to.delegate_key is not None and to.depth >= depth:",
                    "            if False:",
                ),
            ),
            (
                "tests/certauth/tokens/test_delegate.py",
                "tests/certauth/tokens/test_lint.py",
            ),
        ),
        (
            "vouching: members only",
            (
                (
                    "certauth/tokens/lint.py",
                    '                raise _refuse("lint-third-party", number, f"is by',
                    '                continue\n                raise _refuse("lint-third-party", number, f"is by',
                ),
            ),
            (
                "tests/certauth/tokens/test_attest.py",
                "tests/certauth/tokens/test_lint.py",
            ),
        ),
        (
            "uses: refused when used up",
            (
                (
                    "policy/uses.py",
                    "                if refused := used_up(used, limits):",
                    "                if (refused := used_up(used, limits)) and now is None:",
                ),
            ),
            ("tests/policy/test_uses.py",),
        ),
        (
            "uses: a door that does not count refuses",
            (
                (
                    "policy/stateful.py",
                    "    if uses is None:\n        return",
                    "    if uses is None:\n        return Settled(decision)\n        return",
                ),
            ),
            ("tests/policy/test_stateful.py",),
        ),
        (
            "body: the decision is taken with its digest",
            (
                (
                    "policy/stateful.py",
                    "        settled = await _counted(decide_again(body.sha256), uses, clock)",
                    "        settled = await _counted(permit, uses, clock)",
                ),
            ),
            ("tests/policy/test_stateful.py",),
        ),
        (
            "parts of a token: revoked by their holders",
            (("certauth/tokens/revoke.py", "    if number < since:", "    if False:"),),
            ("tests/certauth/tokens/test_revoke.py",),
        ),
    ),
}
"""By what they guard."""
