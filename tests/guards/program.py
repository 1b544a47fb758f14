"""The user's program."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
    (
        "program: the redirect has our state",
        (
            (
                "certauth/client/authorization.py",
                '    if not hmac.compare_digest(given[0].encode("utf-8", "replace"), state.encode()):',
                "    if False:",
            ),
        ),
        ("tests/certauth/client/test_authorization.py", "tests/certauth/client/test_paste.py"),
    ),
    (
        "program: the signer's own page",
        (("certauth/client/mediated.py", "    if _origin(page) != attempt.metadata.signer:", "    if False:"),),
        ("tests/certauth/client/test_mediated.py",),
    ),
    (
        "program: a device token is bound",
        (("certauth/client/device.py", '    if bound and str(members.get("token_type")).lower() != "dpop":', "    if False:"),),
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
        ("tests/certauth/client/test_lock.py", "tests/certauth/cli/test_login_methods.py"),
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
        (("certauth/client/tokens.py", ' or (recorded.get("kind"), recorded.get("value")) != (what.kind, what.value):', ":"),),
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
    (
        "login: another provider is another login",
        (("certauth/client/login.py", "stated[1] != wishes.issuer", "False"),),
        ("tests/certauth/client/test_lock.py",),
    ),
)
