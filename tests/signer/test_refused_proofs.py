"""A proof that is refused can be found again: by its digest in the signer's log, which never holds the proof."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from certauth import keys
from certauth.audit import record
from certauth.keys import Algorithm
from tests.signer.kit import Site, facility, make_csr


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A facility with one enrolled person."""
    with facility(tmp_path) as made:
        made.enroll("alice")
        yield made


def digest_of(body: dict[str, Any]) -> str:
    """What identifies the proof in a body: SHA-256 of its signing input."""
    return hashlib.sha256(body["proof"]["token"].rpartition(".")[0].encode()).hexdigest()


def test_a_stolen_and_a_used_proof_are_told_by_their_digest(site: Site) -> None:
    """The thief's attempt, the use, and the second use have one digest, which is also in the entry of the grant."""
    own, stolen = keys.generate(Algorithm.P256), keys.generate(Algorithm.P256)
    body = site.body("alice", own)
    said: list[MutableMapping[str, Any]]
    with structlog.testing.capture_logs() as said, site.serving() as service, site.client() as client:
        for wish, status in (({**body, "csr": make_csr(stolen)}, 401), (body, 201), ({**body, "request_id": "again-123"}, 409)):
            assert client.post("/v1/certificates", json=wish).status_code == status
        client.post("/v1/certificates", json={**body, "proof": {"type": "client_assertion", "token": body["proof"]["token"]}})
        with service.store.log() as reader:
            entries: list[Any] = [record.decode(entry.body) for entry in reader.entries()]
    told = [(line["code"], line["proof"]) for line in said if line["event"] == "proof.refused"]
    assert told == [(code, digest_of(body)) for code in ("key-not-bound", "replayed", "unknown-issuer")]
    [granted] = [entry for entry in entries if entry["kind"] == "grant.cert" and entry["proof"]["kind"] == "id_token"]
    assert granted["proof"]["digest"] == digest_of(body)
    for part in body["proof"]["token"].split("."):
        assert part not in json.dumps(said, default=str)
