"""The door: what a token depends on besides."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
    (
        "lint: facts of holders",
        (("certauth/tokens/lint.py", "        elif number and block.facts:", "        elif False:"),),
        ("tests/certauth/tokens/test_lint.py",),
    ),
    (
        "delegation: signed by the holder's key",
        (("certauth/tokens/delegate.py", "    if key_ref(holder_key.public_key) != holder.delegate_key:", "    if False:"),),
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
        ("tests/certauth/tokens/test_delegate.py", "tests/certauth/tokens/test_lint.py"),
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
        ("tests/certauth/tokens/test_attest.py", "tests/certauth/tokens/test_lint.py"),
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
    (
        "uses: counted by one process at a time",
        (
            (
                "policy/uses.py",
                '        connection = opened.connection\n        connection.execute("BEGIN IMMEDIATE")',
                '        connection = opened.connection\n        connection.execute("BEGIN")',
            ),
        ),
        ("tests/policy/test_uses.py",),
    ),
    (
        "uses: the file is the one that was opened",
        (("policy/uses.py", "            if self._identity() != opened.file:", "            if False:"),),
        ("tests/policy/test_uses.py",),
    ),
    (
        "signatures: one form of each",
        (("certauth/tokens/codec.py", "key.algorithm == P256 and not is_low_s(signature):", "False:"),),
        ("tests/certauth/tokens/test_signing.py",),
    ),
    (
        "delegation: not more often than was given",
        (("certauth/tokens/delegate.py", "    if not 0 <= depth < holder.depth:", "    if False:"),),
        ("tests/certauth/tokens/test_delegate.py",),
    ),
    (
        "delegation: only where it was given",
        (("certauth/tokens/delegate.py", "    if holder.delegate_key is None:", "    if False:"),),
        ("tests/certauth/tokens/test_delegate.py",),
    ),
    (
        "server: a signal to stop is not lost",
        (("policy/server.py", "lambda _number, _frame: server.stop()", "lambda _number, _frame: None"),),
        ("tests/policy/test_server.py",),
    ),
    (
        "token: a text is no list of texts",
        (("certauth/tokens/vocabulary.py", "return not is_text(several) and 0", "return 0"),),
        ("tests/certauth/tokens/test_vocabulary.py",),
    ),
    (
        "vouching: a text is no list of groups",
        (("certauth/tokens/attest.py", "if isinstance(groups, str) or not 1", "if not 1"),),
        ("tests/certauth/tokens/test_attest.py",),
    ),
    (
        "rights: at the service that is asked",
        (("certauth/tokens/authorizer.py", "right({s}, {o}, $below), path", "right($s, {o}, $below), path"),),
        ("tests/certauth/tokens/test_authorizer.py",),
    ),
    (
        "rights: to what is asked for",
        (("certauth/tokens/authorizer.py", "right({s}, {o}, $below), path", "right({s}, $o, $below), path"),),
        ("tests/certauth/tokens/test_authorizer.py",),
    ),
)
