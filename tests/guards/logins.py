"""Logins through the signer."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
    (
        "login: a mediated login is the browser's in which the code was typed",
        (
            (
                "signer/login.py",
                '            if not login.is_of_browser(cookies.get(cookie_name(login.id), "")):\n                raise',
                "            if login.browser_digest is None:\n                raise",
            ),
        ),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
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
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
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
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: wrong codes are counted",
        (("signer/login.py", "        self._guesses.check(network, at=now)\n", ""),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: the secret of a login",
        (("signer/login.py", "if login is None or not known:", "if login is None:"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: a login's result is for the key that began it",
        (("signer/login.py", "if not hmac.compare_digest(spki, login.spki):", "if not spki:"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: a mediated login's proof is remembered until it cannot be claimed",
        (("signer/login.py", "return replace(identity, replay_until=max(identity.replay_until, end))", "return identity"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: a mediated login is worth 2 at most",
        (("signer/login.py", "identity = identity.as_mediated()", "identity = replace(identity, mediated=True)"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: a login finished elsewhere is worth 1 where that matters",
        (("signer/login.py", "if login.provider.same_address and elsewhere:", "if False and elsewhere:"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: an unknown address is elsewhere",
        (("signer/login.py", "elsewhere = address is None or login.address is None or network_of", "elsewhere = network_of"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: polling has its pace",
        (("signer/login.py", "if now < login.next_poll:", "if now < 0:"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
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
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
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
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: logins per address",
        (("signer/login_register.py", "if self._per_network[network_of(address)] >= self._limits.per_address:", "if False:"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: logins in all",
        (("signer/login_register.py", "if len(self._living) >= self._limits.total:", "if False:"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: logins expire",
        (("signer/login_state.py", "if at >= self.expires_at:", "if False:"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: iss of RFC 9207",
        (("signer/login_client.py", "if issuer != expected or answer.iss != named:", "if issuer != expected:"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
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
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: a provider's own callback",
        (("signer/login_client.py", "if issuer != expected or answer.iss != named:", "if answer.iss != named:"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
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
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: PKCE",
        (("signer/login_client.py", "verifier=login.verifier,", 'verifier="",'),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
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
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: codes go to listed hosts",
        (("signer/login_provider.py", '    _check_place(provider, endpoint, "token endpoint")\n', ""),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: a foreign form: cookie",
        (("signer/login_forms.py", "if not (fits and ours and same):", "if not (ours and same):"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: a foreign form: origin",
        (("signer/login_forms.py", "if not (fits and ours and same):", "if not (fits and same):"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: a foreign form: fetch metadata",
        (("signer/login_forms.py", "if not (fits and ours and same):", "if not (fits and ours):"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: a hostile host",
        (("signer/login_pages.py", "{escape(shown.host)}", "{shown.host}"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: hostile words of a provider",
        (("signer/login_pages.py", "{escape(provider_says)}", "{provider_says}"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: a hostile name",
        (("signer/login_pages.py", "<b>{escape(who)}</b>", "<b>{who}</b>"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: invisible host names",
        (("signer/login_api.py", "if not text.isprintable():", "if False:"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: guessers of secrets are counted",
        (("signer/login_api.py", "            self._spend(request)\n            raise\n", "            raise\n"),),
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
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
        ("tests/signer/test_login.py", "tests/signer/test_login_api.py"),
    ),
    (
        "login: guessers with many IPv6 addresses are one",
        (("signer/login_api.py", "network_of(address) if address else", "address or"),),
        ("tests/signer/test_bounds_live.py",),
    ),
    (
        "login: what was confirmed is what is done",
        (("signer/login.py", "if link != login.link:", "if False:"),),
        ("tests/signer/test_login.py",),
    ),
    (
        "login: the page says what a login is for",
        (("signer/login_pages.py", "if shown.link is not None:", "if False:"),),
        ("tests/signer/test_login_pages.py",),
    ),
)
