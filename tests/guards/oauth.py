"""Tokens for tokens, and questions about them (RFC 8693, RFC 7662)."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
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
                "                case _:\n                    return None\n    return minimal(list(rights))",
                "                case _:\n                    pass\n    return minimal(list(rights))",
            ),
        ),
        ("tests/signer/test_oauth.py",),
    ),
    (
        "exchange: no path of two readings",
        (
            (
                "signer/exchange.py",
                "case Paths(names) if not all(map(_is_canonical, names)):",
                "case Paths(names) if not names:",
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
        (("signer/minting.py", " and (subject.handed_over or subject.user != peer.principal):", " and False:"),),
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
        (("certauth/tokens/jwt_form.py", '        "cnf": {"x5t#S256": b64url(bytes.fromhex(spec.peer_fingerprint))},\n', ""),),
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
                "        if not known or withdrawn is not None or any(parents) or now >= row.expires_at:",
                "        if not known or any(parents) or now >= row.expires_at:",
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
    (
        "JWT: scope has characters of a scope",
        (("certauth/tokens/jwt_form.py", "bool(_SCOPE.fullmatch(text))", "True"),),
        ("tests/signer/test_oauth.py",),
    ),
    (
        "exchange: a canonical path only",
        (("signer/exchange.py", "return canonical_path(path) == path", "return True"),),
        ("tests/signer/test_oauth.py",),
    ),
    (
        "exchange: a bad subject token is an invalid request",
        (("signer/oauth.py", "isinstance(error, Refused) and not exchange", "isinstance(error, Refused)"),),
        ("tests/signer/test_oauth.py",),
    ),
    (
        "answers with tokens are not cached",
        (
            (
                "signer/api/oauth.py",
                '_PRIVATE = {"cache-control": "no-store", "pragma": "no-cache"}',
                "_PRIVATE: dict[str, str] = {}",
            ),
        ),
        ("tests/signer/test_oauth.py",),
    ),
    (
        "introspection: no scope wider than the right",
        (
            (
                "signer/introspecting.py",
                '"scope": " ".join(scopes_of(rights)),',
                '"scope": " ".join(f"{right.operation}:{right.path}" for right in rights),',
            ),
        ),
        ("tests/signer/test_oauth.py",),
    ),
    (
        "introspection: tokens made here only",
        (("signer/introspecting.py", "if not was_minted(token, self._store):", "if False:"),),
        ("tests/signer/test_key_theft.py",),
    ),
    (
        "exchange: tokens made here only",
        (("signer/minting.py", " and not was_minted(found, self._store):", " and False:"),),
        ("tests/signer/test_key_theft.py",),
    ),
    (
        "tokens made here: the very token, not its number",
        (("signer/genuine.py", 'entry["grant"].get("block") == token.block_ids[0]', "True"),),
        ("tests/signer/test_key_theft.py",),
    ),
    (
        "exchange: no actor is ignored",
        (("signer/oauth.py", '    if "actor_token" in form or "actor_token_type" in form:', "    if False:"),),
        ("tests/signer/test_oauth.py",),
    ),
    (
        "exchange: no resource is ignored",
        (("signer/oauth.py", '    if form.get("resource", form["audience"]) != form["audience"]:', "    if False:"),),
        ("tests/signer/test_oauth.py",),
    ),
    (
        "jwt: the signature is verified before it leaves",
        (("certauth/tokens/jwt_form.py", "signed(key, signing_input)", "key.sign(signing_input)"),),
        ("tests/certauth/tokens/test_jwt_form.py",),
    ),
)
