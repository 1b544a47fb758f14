"""Who becomes whom: codes, rules and invitations."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
    (
        "code: the purpose of a code",
        (
            (
                "signer/codes.py",
                "        if row is None or row.purpose is not Purpose.MACHINE or row.principal is None:",
                "        if row is None or row.principal is None:",
            ),
        ),
        ("tests/signer/test_codes.py", "tests/signer/test_enrolment.py"),
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
        ("tests/certauth/identity/test_mapping_claims.py", "tests/certauth/identity/test_mapping_outputs.py"),
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
        (("certauth/identity/mapping/scopes.py", "        if colon and not is_canonical_path(path):", "        if False:"),),
        ("tests/certauth/identity/test_mapping_outputs.py", "tests/certauth/identity/test_mapping_scopes.py"),
    ),
    (
        "rules: true is not 1",
        (("certauth/identity/mapping/claims.py", '            return "boolean", value', '            return "number", value'),),
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
        "admitting: approval is waited for",
        (
            (
                "signer/admitting.py",
                "return self._applying(identity, admission, at=at)",
                'return self._newcomer(identity, admission, terms, by="nobody", at=at)',
            ),
        ),
        ("tests/signer/test_enrolment.py",),
    ),
    (
        "admitting: an application that was denied stays denied",
        (("signer/admitting.py", "if earlier is not None and earlier.state is ApplicationState.DENIED:", "if False:"),),
        ("tests/signer/test_enrolment.py",),
    ),
    (
        "admitting: no name without an invitation",
        (
            (
                "signer/admitting.py",
                "return Admitted(refusal=_INVITE_NEEDED)",
                'return self._newcomer(identity, admission, terms, by="nobody", at=at)',
            ),
        ),
        ("tests/signer/test_enrolment.py",),
    ),
    (
        "admitting: an invitation is for a person",
        (
            (
                "signer/admitting.py",
                "            identity.kind is ProofKind.WORKLOAD  # whoever is invited is a person\n            or found",
                "            found",
            ),
        ),
        ("tests/signer/test_admitting.py",),
    ),
)
