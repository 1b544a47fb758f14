"""``certauth call`` and ``certauth cert inspect`` as their users see them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from certauth.certificates import load_chain
from certauth.cli import call as module
from tests.certauth.cli.conftest import Run
from tests.simulator.hostile_signer import HostileSigner, Raw, problem

HELLO = "/data/hello"


def test_the_body_goes_to_stdout_as_it_is(signer: HostileSigner, run: Run):
    """A pipe receives exactly the body; an empty one is remarked on stderr."""
    signer.lies[HELLO] = lambda _: Raw(content_type="application/octet-stream", pieces=(b"\x00\xff\x1b[2J",))
    done = run("call", "get", signer.url + HELLO, "--token", "data")
    assert (done.status, done.out, done.err) == (0, b"\x00\xff\x1b[2J", "")
    assert signer.seen[-1][0] == "GET"
    signer.lies[HELLO] = lambda _: Raw(status=204, content_type="text/plain")
    assert run("call", "GET", signer.url + HELLO).err == "status 204, no body\n"


def test_json_carries_text_and_admits_what_is_not(signer: HostileSigner, run: Run, monkeypatch: pytest.MonkeyPatch):
    """With --json the body is a member; bytes that are no text are null, and too many are refused."""
    done = run("call", "GET", signer.url + HELLO, "--json")
    assert done.data == {"status": 200, "content_type": "text/plain", "size": 6, "body": "hello\n"}
    signer.lies[HELLO] = lambda _: Raw(pieces=(b"\xff",))
    assert run("call", "GET", signer.url + HELLO, "--json").data["body"] is None
    monkeypatch.setattr(module, "_SHOWN", 10)
    signer.lies[HELLO] = lambda _: Raw(pieces=(b"x" * 20,))
    assert run("call", "GET", signer.url + HELLO, "--json").error["code"] == "answer-too-large"


def test_files_up_and_down(signer: HostileSigner, run: Run, tmp_path: Path):
    """A file is uploaded as it is, and an answer is written to a file."""
    up, down = tmp_path / "up", tmp_path / "down"
    up.write_bytes(bytes(range(256)) * 1000)
    done = run("call", "PUT", signer.url + HELLO, "--upload", up, "--output", down, "--content-type", "x/y", "--json")
    assert done.data == {"status": 200, "content_type": "text/plain", "size": 6, "output": str(down)}
    assert signer.seen[-1][3] == up.read_bytes()
    assert down.read_bytes() == b"hello\n"
    run("call", "POST", signer.url + HELLO, "--data", "text")
    assert signer.seen[-1][3] == b"text"


def test_a_denial_shows_code_and_reason_and_leaves_the_file_alone(signer: HostileSigner, run: Run, tmp_path: Path):
    """Exit status 3, the problem's code and sentence, and no half-written output."""
    signer.lies[HELLO] = lambda _: problem(403, "token-path", "the token does not reach there\x1b[2J")
    output = tmp_path / "out"
    done = run("call", "GET", signer.url + HELLO, "--token", "data", "--output", output)
    assert (done.status, done.out) == (3, b"")
    assert done.err == "certauth: error: the token does not reach there\\x1b[2J [token-path]\n"
    assert not output.exists()
    denied = run("call", "GET", signer.url + HELLO, "--json")
    assert (denied.status, denied.error["code"]) == (3, "token-path")
    signer.lies[HELLO] = lambda _: problem(503, "engine-limit", "busy")
    assert run("call", "GET", signer.url + HELLO).status == 5


def test_where_the_token_comes_from(signer: HostileSigner, run: Run, home: Path):
    """A stored name, standard input, or WLCG discovery; never the command line."""
    text = (home / "hostile.example" / "tokens" / "data").read_text().strip()

    def sent() -> str | None:
        return {name.lower(): value for name, value in signer.seen[-1][2].items()}.get("authorization")

    for given in ({"stdin": text.encode()}, {"BEARER_TOKEN": text}):
        arguments = ["--token", "-"] if "stdin" in given else []
        run("call", "GET", signer.url + HELLO, *arguments, **given)  # type: ignore[arg-type]  # bytes or text by name
        assert sent() == f"Bearer {text}"
    run("call", "GET", signer.url + HELLO)
    assert sent() is None
    assert run("call", "GET", signer.url + HELLO, "--token", text).status == 2


def test_usage(signer: HostileSigner, run: Run, stranger: Run, tmp_path: Path):
    """What cannot be is refused before anything is sent."""
    (tmp_path / "f").touch()
    seen = len(signer.seen)
    assert run("call", "GE T", signer.url).status == 2
    assert run("call", "GET", signer.url, "--data", "x", "--upload", tmp_path / "f").status == 2
    assert run("call", "GET", "http://plain.example/").status == 2
    assert run("call", "GET", "ftp:x").status == 2
    assert stranger("call", "GET", signer.url).status == 4
    assert len(signer.seen) == seen


def test_cert_inspect_reads_own_pem_der_and_stdin(signer: HostileSigner, run: Run, home: Path, tmp_path: Path):
    """A certificate is described the same from every form; what is none is refused."""
    chain = home / "hostile.example" / "chain.pem"
    der = tmp_path / "c.der"
    der.write_bytes(load_chain(chain.read_bytes())[0].public_bytes(serialization.Encoding.DER))
    own = run("cert", "inspect", "--json")
    assert (own.status, own.data["principal"]) == (0, signer.subject_uri)
    for given in (run("cert", "inspect", chain, "--json"), run("cert", "inspect", der, "--json")):
        assert given.data["fingerprint"] == own.data["fingerprint"]
    assert signer.subject_uri in run("cert", "inspect", "-", stdin=chain.read_bytes()).text
    der.write_bytes(b"nothing")
    assert run("cert", "inspect", der).status == 3
