"""Proofs that already exist, and secrets in files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from certauth.client.attempt import Method, Wishes
from certauth.client.given import read_secret
from certauth.encoding import b64url
from certauth.errors import ProofError, UsageError
from tests.certauth.client.conftest import LogIn
from tests.simulator.hostile_signer import HostileSigner


def token(signer: HostileSigner, *, typ: str | None = None, **claims: Any) -> str:
    """A token of the simulator's issuer; its signature is nobody's business here."""
    header = {"alg": "RS256"} | ({} if typ is None else {"typ": typ})
    body = {"iss": f"{signer.url}/idp", "sub": "alice", "aud": "cli"} | claims
    return ".".join(b64url(json.dumps(part).encode()) for part in (header, body, "signature"))


@pytest.mark.parametrize(
    ("kinds", "typ", "claims", "kind"),
    [
        (["id_token"], None, {}, "id_token"),
        (["id_token", "workload"], "JWT", {"aud": ["x", "cli"]}, "id_token"),
        (["workload"], None, {}, "workload"),
        (["id_token", "workload"], None, {"aud": "https://signer.example"}, "workload"),
        (["id_token", "access_token"], "at+jwt", {}, "access_token"),
        (["id_token", "access_token"], "application/AT+JWT", {}, "access_token"),
        (["access_token"], "JWT", {}, "access_token"),
    ],
)
def test_what_kind_of_proof_a_token_is(
    signer: HostileSigner, log_me_in: LogIn, kinds: list[str], typ: str | None, claims: dict[str, Any], kind: str
):
    """The token's type and audience, and what its issuer's proofs may be, decide what it is presented as."""
    signer.offers = {"kinds": kinds, "bindings": ["none"]}
    text = token(signer, typ=typ, **claims)
    done = log_me_in(method=Method.TOKEN, token=text)
    assert signer.proofs == [{"type": kind, "token": text}]
    assert done.profile.signer().issuer == "campus"


def test_an_opaque_token_is_an_access_token(signer: HostileSigner, log_me_in: LogIn):
    """Text without structure can only be introspected, where the facility does that."""
    signer.offers = {"kinds": ["access_token"], "bindings": ["none"]}
    log_me_in(method=Method.TOKEN, token="opaque-and-random")
    assert signer.proofs == [{"type": "access_token", "token": "opaque-and-random", "issuer": "campus"}]
    signer.offers = {"kinds": ["id_token"], "bindings": ["none"]}
    with pytest.raises(UsageError) as caught:
        log_me_in(method=Method.TOKEN, token="opaque-and-random")
    assert caught.value.code == "proof-not-accepted"
    assert "opaque" not in str(caught.value)


def test_a_token_that_proves_nothing_here_is_not_sent(signer: HostileSigner, log_me_in: LogIn):
    """A bearer token is shown to no signer that would refuse it: not unbound where bound ones are wanted, not of a stranger,
    not of a kind that is not taken, not malformed.
    """
    text = token(signer)
    with pytest.raises(UsageError) as unbound:
        log_me_in(method=Method.TOKEN, token=text)
    assert unbound.value.code == "proof-not-accepted"
    signer.offers = {"bindings": ["none"], "kinds": ["workload"]}
    with pytest.raises(UsageError) as stranger:
        log_me_in(method=Method.TOKEN, token=token(signer, iss="https://evil.example"))
    assert stranger.value.code == "unknown-issuer"
    with pytest.raises(UsageError) as kind:
        log_me_in(method=Method.TOKEN, token=token(signer, typ="at+jwt"))
    assert kind.value.code == "proof-not-accepted"
    with pytest.raises(ProofError):
        log_me_in(method=Method.TOKEN, token="a.b.c")
    with pytest.raises(UsageError):
        log_me_in(method=Method.TOKEN)
    assert signer.proofs == []
    assert not any(text.encode() in body for _, _, _, body in signer.seen)


def test_a_token_with_a_key_of_its_own_is_for_the_signer_to_judge(signer: HostileSigner, log_me_in: LogIn):
    """What carries ``cnf`` is not unbound."""
    text = token(signer, cnf={"jkt": "x"})
    log_me_in(method=Method.TOKEN, token=text, issuer="campus")
    assert signer.proofs == [{"type": "id_token", "token": text}]


def test_a_one_time_code(signer: HostileSigner, log_me_in: LogIn):
    """A service, host or agent shows the code it was given, and is of no identity provider."""
    done = log_me_in(method=Method.CODE, code="the-code")
    assert signer.proofs == [{"type": "code", "code": "the-code"}]
    assert done.profile.signer().issuer == ""
    with pytest.raises(UsageError):
        log_me_in(method=Method.CODE)


def test_wishes_do_not_show_their_secrets():
    """Token, code and invitation are in no repr."""
    shown = repr(Wishes(token="hidden-token", code="hidden-code", invite="hidden-invite"))
    assert "hidden" not in shown


def test_a_secret_from_a_file_or_standard_input(tmp_path: Path):
    """One line, trimmed; the file may be called anything."""
    (tmp_path / "code").write_text("  abc-def\n")
    assert read_secret(str(tmp_path / "code"), "a code", io.BytesIO()) == "abc-def"
    assert read_secret("-", "a code", io.BytesIO(b"abc-def\n")) == "abc-def"


@pytest.mark.parametrize("content", [b"", b" \n", b"a\nb", b"\xff\xfe", b"a\x00b", b"x" * 5000])
def test_a_secret_that_is_none(tmp_path: Path, content: bytes):
    """Empty, two lines, binary, or far too long: refused, and not repeated."""
    with pytest.raises(UsageError) as caught:
        read_secret("-", "a code", io.BytesIO(content))
    assert caught.value.code == "secret-unreadable"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("ABCD-EFGH-IJKL-MNOP", "secret-in-arguments"),
        ("/no/such/file", "secret-unreadable"),
        ("no such file", "secret-unreadable"),
        ("a\0b", "secret-unreadable"),
    ],
)
def test_a_secret_on_the_command_line(source: str, code: str):
    """Text that looks like the code itself is refused and not repeated; a file that is not there is named."""
    with pytest.raises(UsageError) as caught:
        read_secret(source, "a code", io.BytesIO())
    assert caught.value.code == code
    assert ("ABCD" in f"{caught.value}{caught.value.hint}") is False


def test_a_file_whose_name_looks_like_a_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is there as a file is a file."""
    monkeypatch.chdir(tmp_path)
    Path("ABCD-EFGH-IJKL-MNOP").write_text("inside")
    assert read_secret("ABCD-EFGH-IJKL-MNOP", "a code", io.BytesIO()) == "inside"
