"""Others who hold tokens: a job, a colleague, a thief, each with a key and a certificate in files."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from certauth.certificates import dump_chain, fingerprint, load_chain
from certauth.keys import Algorithm, generate, save_private
from certauth.tokens import Right, TokenSpec, mint, to_text
from tests.simulator.hostile_signer import DOMAIN, HostileSigner


@dataclass(frozen=True)
class Holder:
    """Somebody's files."""

    key: Path
    certificate: Path
    fingerprint: str

    @classmethod
    def make(cls, signer: HostileSigner, directory: Path, name: str) -> Holder:
        """A principal of the simulated facility."""
        key = generate(Algorithm.P256)
        leaf = signer.leaf(key.public_key, principal=f"spiffe://{DOMAIN}/user/{name}")
        made = cls(directory / f"{name}.key", directory / f"{name}.crt", fingerprint(leaf))
        save_private(made.key, key, passphrase=None)
        made.certificate.write_bytes(dump_chain([leaf]))
        return made


def token_of(signer: HostileSigner, home: Path, **changes: Any) -> str:
    """A token for the user logged in at ``home``, with ``changes`` to its specification."""
    return str(answer_of(signer, home, **changes)["token"])


def answer_of(signer: HostileSigner, home: Path, **changes: Any) -> dict[str, object]:
    """What a signer answers who mints it."""
    leaf = load_chain((home / str(DOMAIN) / "chain.pem").read_bytes())[0]
    now = datetime.now(UTC).replace(microsecond=0)
    usual: dict[str, Any] = {
        "issuer": f"spiffe://{DOMAIN}",
        "jti": secrets.token_hex(16),
        "user": signer.subject_uri,
        "issued_at": now,
        "not_before": now - timedelta(seconds=60),
        "expires_at": now + timedelta(hours=1),
        "audience": ("data",),
        "rights": (Right("data", "read", "/data/"),),
        "peer_fingerprint": fingerprint(leaf),
        "delegate_key": leaf.public_key(),
    }
    spec = TokenSpec(**(usual | changes))
    token = mint(spec, signer.token_key)
    return {"token": to_text(token), "receipt": signer.receipt(signer.token_event(spec, token)).to_dict()}


def ended(*, ago: timedelta = timedelta(hours=1)) -> dict[str, datetime]:
    """Times of a token that was good for an hour and ended so long ago; later than now if negative."""
    end = datetime.now(UTC).replace(microsecond=0) - ago
    return {"issued_at": end - timedelta(hours=1), "not_before": end - timedelta(hours=1), "expires_at": end}
