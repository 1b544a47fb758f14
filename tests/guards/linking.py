"""A second login of a person who has one."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
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
                "        if found is not None:\n            return _ALREADY",
                "        if False:\n            return _ALREADY",
            ),
        ),
        ("tests/signer/test_linking.py",),
    ),
    (
        "linking: the rules of the provider",
        (("signer/linking.py", "                return _NOT_ADMITTED\n", "                return None\n"),),
        ("tests/signer/test_linking.py",),
    ),
    (
        "linking: the login's token is bound to the key",
        (("signer/linking.py", "if identity.binding is Binding.NONE:", "if False:"),),
        ("tests/signer/test_linking.py",),
    ),
    (
        "linking: a login that was denied stays denied",
        (("signer/linking.py", "if earlier is not None and earlier.state is ApplicationState.DENIED:", "if False:"),),
        ("tests/signer/test_linking.py",),
    ),
    (
        "linking: the program asks for the receipt",
        (("certauth/client/linking.py", "    _check(answer, credential, bundle, signer.url)\n", ""),),
        ("tests/certauth/client/test_linking.py",),
    ),
    (
        "linking: no login above the session",
        (("signer/linking.py", "> peer.assurance:", "> 9:"),),
        ("tests/signer/test_linking.py",),
    ),
    (
        "linking: one after another",
        (("signer/linking.py", "async with self._linking:", "if True:"),),
        ("tests/signer/test_linking.py",),
    ),
    (
        "linking: the login was begun to link",
        (("signer/linking.py", "request, link=peer.principal)", "request)"),),
        ("tests/signer/test_linking.py",),
    ),
    (
        "linking: not from a session that was bound to no key",
        (("signer/linking.py", "return _UNBOUND if self._is_unbound(current) else None", "return None"),),
        ("tests/signer/test_linking.py",),
    ),
    (
        "linking: not from such a session renewed",
        (
            (
                "signer/linking.py",
                "                        found = self._store.certificate(before)\n",
                "                        return False\n",
            ),
        ),
        ("tests/signer/test_linking.py",),
    ),
)
