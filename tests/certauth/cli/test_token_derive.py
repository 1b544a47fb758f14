"""``certauth token attenuate``, ``delegate`` and ``seal`` as their users see them."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import click
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certauth.certificates import dump_chain, fingerprint, load_chain
from certauth.cli import options
from certauth.errors import KeyMaterialError
from certauth.keys import Algorithm, generate, load_private, save_private
from tests.certauth.cli.conftest import Run
from tests.certauth.cli.holders import Holder, token_of
from tests.simulator.hostile_signer import HostileSigner


@pytest.fixture
def job(signer: HostileSigner, tmp_path: Path) -> Holder:
    """A job with a key and a certificate of its own."""
    return Holder.make(signer, tmp_path, "job")


def test_attenuate_prints_stores_or_writes(run: Run, tmp_path: Path):
    """The narrowed token goes to stdout, under a name, or to a private file; exactly one of them."""
    printed = run("token", "attenuate", "data", "--read", "/data/run7/", "--for", "10m", "--from", "10.0.0.0/8")
    assert printed.status == 0
    inspected = run("token", "inspect", "-", "--json", stdin=printed.out)
    assert inspected.status == 0
    assert len(inspected.data["narrowings"]) == 1  # type: ignore[arg-type]  # a list
    assert json.loads(run("token", "attenuate", "data", "--read", "/data/x", "--json").out)["token"]
    assert run("token", "attenuate", "data", "--read", "/data/x", "--as", "run7").status == 0
    assert "run7" in run("token", "list").text
    out = tmp_path / "run7.token"
    assert run("token", "attenuate", "data", "--read", "/data/x", "-o", out).status == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert run("token", "verify", out).status == 0
    assert run("token", "attenuate", "data", "--read", "/d", "--output", out, "--as", "x").status == 2
    assert run("token", "attenuate", "data", "--read", "/d", "--as", "../x").status == 2


def test_every_wish_in_one_line(run: Run, job: Holder, tmp_path: Path):
    """Service, path, end, network, project, uses, body, certificate and a group that must be vouched for."""
    body, group = tmp_path / "body", generate(Algorithm.ED25519)
    body.write_bytes(b"x" * 100_000)
    (tmp_path / "als.pem").write_bytes(group.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    wishes = ("--service", "data", "--read", "/data/run7/", "--for", "1h", "--to", job.certificate, "--from", "10.0.0.0/8")
    more = ("--uses", 5, "--body", body, "--project", "p-17", "--member", f"als:run7@{tmp_path / 'als.pem'}")
    done = run("token", "attenuate", "data", *wishes, *more, "--as", "all")
    assert done.status == 0, done.err
    assert "pinned to that certificate and not handed on" in done.text
    (narrowing,) = run("token", "inspect", "all", "--json").data["narrowings"]  # type: ignore[misc]  # a list of one
    said = "; ".join(narrowing)
    for part in ("at data", "to read", "below /data/run7/", "until ", job.fingerprint[:16], "10.0.0.0/8", "5 times", "p-17"):
        assert part in said, (part, said)
    assert hashlib.sha256(body.read_bytes()).hexdigest()[:16] in said
    assert "als:run7, vouched for by key" in said
    assert run("token", "attenuate", "data", "--body", "sha256:" + "ab" * 32).status == 0
    assert run("token", "attenuate", "data", "--member", f"job@{job.certificate}").status == 0
    assert run("token", "verify", "all").status == 0


@pytest.mark.parametrize(
    "wish",
    [
        (),
        ("--to", "nothing"),
        ("--to", "x" * 5000),
        ("--read", "/a", "--write", "/b"),
        ("--read", "a"),
        ("--right", "nocolon"),
        ("--from", "10.0.0.1/8"),
        ("--uses", "0"),
        ("--body", "/nowhere"),
        ("--body", "sha256:short"),
        ("--member", "nokey"),
        ("--member", "group@/nowhere"),
        ("--member", "group@NOT-A-KEY"),
        ("--member", "@JOB"),
    ],
)
def test_wishes_that_cannot_be(run: Run, job: Holder, tmp_path: Path, wish: tuple[str, ...]):
    """What cannot be said, and nothing at all, is a usage error with a hint, and makes no token."""
    (tmp_path / "not-a-key").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    words = [word.replace("NOT-A-KEY", str(tmp_path / "not-a-key")).replace("JOB", str(job.certificate)) for word in wish]
    done = run("token", "attenuate", "data", *words, "--json")
    assert (done.status, done.out) == (2, b""), done.err
    assert done.error["hint"]


def test_pipes(run: Run):
    """Tokens go through pipes: each command reads one from standard input and prints one."""
    first = run("token", "attenuate", "data", "--read", "/data/run7/")
    second = run("token", "attenuate", "-", "--for", "5m", stdin=first.out)
    third = run("token", "seal", "-", stdin=second.out)
    assert third.out.count(b"\n") == 1
    facts = run("token", "inspect", "-", "--json", stdin=third.out).data
    assert facts["sealed"] is True
    assert len(facts["block_ids"]) == 3  # type: ignore[arg-type]  # a list
    refused = run("token", "attenuate", "-", "--for", "1m", "--json", stdin=third.out)
    assert (refused.status, refused.error["code"]) == (3, "token-sealed")


def test_narrowing_needs_no_login(run: Run, stranger: Run, tmp_path: Path):
    """A job that was handed a token can narrow and inspect it without any profile."""
    out = tmp_path / "t"
    run("token", "attenuate", "data", "--read", "/data/", "--output", out)
    assert stranger("token", "attenuate", out, "--read", "/data/x", "--output", tmp_path / "u").status == 0
    assert stranger("token", "inspect", tmp_path / "u").status == 0
    assert stranger("token", "seal", out).status == 0
    refused = stranger("token", "attenuate", out, "--read", "/data/x", "--as", "u", "--json")
    assert (refused.status, refused.error["hint"]) == (4, "use --output FILE")
    assert stranger("token", "verify", out).status == 2
    assert stranger("token", "delegate", out, "--to", "ab" * 32).status == 4


def test_delegate_hands_on_once(run: Run, job: Holder, tmp_path: Path):
    """The delegated token works in the hands of the certificate named, and cannot be handed on again."""
    out = tmp_path / "job.token"
    done = run("token", "delegate", "data", "--to", job.certificate, "--read", "/data/run7/", "--for", "1h", "--output", out)
    assert done.status == 0
    assert run("token", "verify", out, "--json").data["holder"] == job.fingerprint
    again = run("token", "delegate", out, "--to", "ab" * 32)
    assert (again.status, "token-not-delegable" in again.err) == (3, True)
    assert run("token", "delegate", "data").status == 2
    assert run("token", "delegate", "data", "--to", "ab" * 32).status == 0


def test_a_chain_of_hands(signer: HostileSigner, run: Run, stranger: Run, job: Holder, home: Path, tmp_path: Path):
    """Who was allowed to hand it on does so with their own key, without a login; nobody else can, and not beyond the depth."""
    step, thief = Holder.make(signer, tmp_path, "step"), Holder.make(signer, tmp_path, "thief")
    (home / "hostile.example" / "tokens" / "data").write_text(token_of(signer, home, delegation_depth=2))
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("token", "delegate", "data", "--to", job.certificate, "--delegations", 1, "-o", first).status == 0
    stolen = stranger("token", "delegate", first, "--key", thief.key, "--to", thief.certificate, "--json")
    assert (stolen.status, stolen.error["code"]) == (3, "token-wrong-holder")
    handed = stranger("token", "delegate", first, "--key", job.key, "--to", step.certificate, "-o", second)
    assert handed.status == 0, handed.err
    facts = run("token", "verify", second, "--json").data
    assert (facts["holder"], facts["delegable"]) == (step.fingerprint, False)
    assert run("token", "inspect", second, "--json").data["delegated_to"] == [job.fingerprint, step.fingerprint]
    further = stranger("token", "delegate", second, "--key", step.key, "--to", thief.certificate, "--json")
    assert (further.status, further.error["code"]) == (3, "token-not-delegable")
    nameless = run("token", "delegate", "data", "--to", job.fingerprint, "--delegations", 1, "--json")
    assert (nameless.status, nameless.error["code"]) == (2, "certificate-needed")


def test_a_key_with_a_passphrase(run: Run, job: Holder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A locked key is opened with a private file or what is typed, and says so if there is neither."""
    locked, secret = tmp_path / "locked.pem", tmp_path / "secret"
    save_private(locked, load_private(job.key, passphrase=None), passphrase=b"open sesame")
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    words = ("token", "delegate", "data", "--to", job.certificate, "--key", locked, "--json")
    nobody = run(*words)
    assert (nobody.status, nobody.error["code"], nobody.error["hint"]) == (
        1,
        "key-locked",
        "name a file with it: --passphrase-file FILE",
    )
    # The key is read, and is not the holder's.
    assert run(*words, "--passphrase-file", secret).error["code"] == "token-wrong-holder"
    secret.chmod(0o644)
    assert run(*words, "--passphrase-file", secret).error["code"] == "key-file-open"
    wrong = tmp_path / "wrong"
    wrong.write_text("guess")
    wrong.chmod(0o600)
    assert run(*words, "--passphrase-file", wrong).error["code"] == "bad-key"
    asked: list[str] = []

    def typed(text: str, **_: object) -> str:
        asked.append(text)
        return "open sesame"

    monkeypatch.setattr(click, "prompt", typed)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert options.read_key(locked, None).public_key == load_private(job.key, passphrase=None).public_key
    assert asked == [f"passphrase of {locked}"]
    locked.chmod(0o644)
    with pytest.raises(KeyMaterialError) as caught:
        options.read_key(locked, None)
    assert caught.value.code == "key-file-open"


def test_the_certificate_that_is_named_is_the_first_of_its_file(signer: HostileSigner, run: Run, job: Holder):
    """A chain file stands for its leaf."""
    job.certificate.write_bytes(job.certificate.read_bytes() + dump_chain([signer.issuing]))
    done = run("token", "delegate", "data", "--to", job.certificate)
    facts = run("token", "inspect", "-", "--json", stdin=done.out).data
    assert facts["delegated_to"] == [fingerprint(load_chain(job.certificate.read_bytes())[0])]
