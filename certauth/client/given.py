"""A proof that already exists: a token from a file, from standard input, or from where WLCG tools keep one.

Nothing binds such a token to the key, so it is sent only where the facility says that it takes unbound proofs. What kind of
proof it is follows from the token and from what its issuer's proofs may be; the signer verifies it as that kind and no other.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from certauth.client.attempt import Attempt, Proven, access_token
from certauth.client.metadata import LoginIssuer, Metadata
from certauth.errors import UsageError
from certauth.identity import UnverifiedProof, read_proof

_MAX_SECRET = 4096
_LOOKS_SECRET = re.compile(r"[A-Za-z0-9_=.-]{16,}")


def given(attempt: Attempt, token: str) -> Proven:
    """The proof that ``token`` is; ``UsageError`` (``proof-not-accepted``) if this signer takes no such proof."""
    proof = read_proof(token) if token.count(".") == 2 else None
    issuer = _issuer(attempt.metadata, attempt.wishes.issuer, proof)
    kind = _kind(issuer, proof)
    if "none" not in issuer.bindings and not (proof is not None and "cnf" in proof.unverified_claims):
        raise UsageError(
            "proof-not-accepted",
            f"this signer takes no token of {issuer.id} that was made without knowing your key",
            hint="log in without --token, so that the proof is made for your new key",
        )
    if kind == "access_token":
        return Proven(proof=access_token(token, issuer), issuer=issuer.id)
    return Proven(proof={"type": kind, "token": token}, issuer=issuer.id)


def _issuer(metadata: Metadata, wanted: str | None, proof: UnverifiedProof | None) -> LoginIssuer:
    if wanted is None and proof is not None:
        for issuer in metadata.issuers:
            if issuer.url == proof.unverified_issuer:
                return issuer
        raise UsageError(
            "unknown-issuer",
            f"this signer knows no issuer {proof.unverified_issuer[:120]!r}",
            hint=f"it knows: {', '.join(issuer.url for issuer in metadata.issuers)}",
        )
    return metadata.issuer(wanted, lambda issuer: proof is not None or "access_token" in issuer.kinds)


def _kind(issuer: LoginIssuer, proof: UnverifiedProof | None) -> str:
    """``id_token``, ``access_token`` or ``workload``, as far as one can tell without verifying."""
    if proof is None or (proof.typ is not None and proof.typ.lower() in {"at+jwt", "application/at+jwt"}):
        candidates = ["access_token"]
    else:
        audience = proof.unverified_claims.get("aud")
        ours = issuer.client_id in (audience if isinstance(audience, list) else [audience])
        candidates = ["id_token", "workload", "access_token"] if ours else ["workload", "access_token", "id_token"]
    for kind in candidates:
        if kind in issuer.kinds:
            return kind
    raise UsageError(
        "proof-not-accepted",
        f"this signer takes no token of this kind from {issuer.id}",
        hint=f"it takes: {', '.join(sorted(issuer.kinds))}",
    )


def read_secret(source: str, what: str, stdin: BinaryIO) -> str:
    """One line of text from the file ``source``, or from standard input for ``-``: a code must not be an argument.

    ``UsageError``: ``secret-in-arguments`` for text that looks like the code itself, ``secret-unreadable``.
    """
    if source == "-":
        data, where = stdin.read(_MAX_SECRET + 1), "standard input"
    else:
        path = Path(source)
        if _LOOKS_SECRET.fullmatch(source) and not os.path.lexists(path):
            raise UsageError(
                "secret-in-arguments",
                f"{what} does not belong on the command line, where others can see it",
                hint="name a file that holds it, or - for standard input",
            )
        try:
            with path.open("rb") as file:
                data, where = file.read(_MAX_SECRET + 1), str(path)
        except (OSError, ValueError) as error:
            raise UsageError(
                "secret-unreadable", f"there is no readable file {source[:200]!r}", hint=f"name the file that holds {what}"
            ) from error
    text = data.decode("ascii", "replace").strip()
    if not text or len(data) > _MAX_SECRET or not (text.isascii() and text.isprintable()):
        raise UsageError(
            "secret-unreadable", f"{where} does not hold {what} on one line", hint="write it there, and nothing else"
        )
    return text
