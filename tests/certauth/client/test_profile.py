"""Credential files: private, whole, locked, and nowhere else than where they belong."""

from __future__ import annotations

import json
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certauth.audit.receipt import Receipt
from certauth.client.profile import Home, Profile
from certauth.clock import system_clock
from certauth.errors import KeyMaterialError, LoginRequired, RequestError, StoreError, UsageError
from certauth.keys import Algorithm, generate, save_private
from certauth.names import TrustDomain
from tests.simulator.hostile_signer import HostileSigner

LogIn = Callable[..., Any]
DOMAIN = TrustDomain.parse("hostile.example")


def test_where_the_home_is(tmp_path: Path):
    """CERTAUTH_HOME decides, else the XDG state directory; a profile may be named in the environment or directly."""
    assert Home.find({"CERTAUTH_HOME": str(tmp_path)}).directory == tmp_path
    assert Home.find({}).directory.name == "certauth"
    code = "from certauth.client.profile import Home; print(Home.find({}).directory)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / "certauth")


def test_without_a_login_the_command_is_named(home: Home):
    """Every question to an empty home is answered with how to log in."""
    for ask in (
        home.active,
        lambda: home.profile(DOMAIN).credential(now=system_clock()),
        lambda: home.profile(DOMAIN).signer(),
        lambda: home.profile(DOMAIN).bundle(),
    ):
        with pytest.raises(LoginRequired) as caught:
            ask()
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("certauth login")
    assert home.profiles() == []
    assert home.by_signer("https://x.example") is None


def test_a_login_without_further_roots_forgets_those_of_the_last(log_me_in: LogIn):
    """A signer that moved under a root of the system needs no file any more."""
    done = log_me_in()
    profile = done.profile
    assert profile.extra_roots() is not None
    receipt = Receipt.parse(next((profile.directory / "receipts").iterdir()).read_bytes())
    bundle = (profile.directory / "bundle.json").read_bytes()
    profile.store_login(done.credential, signer=profile.signer(), bundle=bundle, extra_roots=None, receipt=receipt)
    assert profile.extra_roots() is None


def test_a_named_profile_must_exist(tmp_path: Path, log_me_in: LogIn):
    """An unknown or climbing profile name is refused, with the known ones."""
    log_me_in()
    directory = tmp_path / "home"
    assert Home(directory, chosen="hostile.example").active().domain == DOMAIN
    assert Home.find({"CERTAUTH_HOME": str(directory), "CERTAUTH_PROFILE": "hostile.example"}).active().domain == DOMAIN
    with pytest.raises(UsageError) as caught:
        Home(directory, chosen="als.example").active()
    assert caught.value.hint == "known profiles: hostile.example"
    with pytest.raises(RequestError):
        Home(directory, chosen="../signer").active()
    (directory / "active").write_text("../signer\n")
    with pytest.raises(RequestError):
        Home(directory).active()


@pytest.mark.parametrize("name", ["../key.pem", "..", "a/b", "/etc/passwd", "", ".lock", "a\x00b", "A", "x" * 65, "a..b"])
def test_token_names_cannot_leave_their_directory(home: Home, name: str):
    """A name that climbs, hides or is not a label is refused for reading and writing."""
    profile = home.profile(DOMAIN)
    with pytest.raises(RequestError):
        profile.token(name)
    with pytest.raises(RequestError):
        profile.store_token(name, "text")
    with pytest.raises(RequestError):
        profile.token_path(name)
    assert not (home.directory / "hostile.example" / "tokens").exists()


def test_tokens_are_stored_private_and_listed(home: Home):
    """A token is one private line; an unfinished write is not a token."""
    profile = home.profile(DOMAIN)
    assert profile.token_names() == []
    path = profile.store_token("run7", "text")
    assert path.read_text() == "text\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    (path.parent / ".run8.1.2").touch()
    assert (profile.token("run7"), profile.token("run8"), profile.token_names()) == ("text", None, ["run7"])


def test_a_token_id_from_a_signer_cannot_climb(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """The id a signer gave a token names its receipt's file, and is refused if it is not a label."""
    done = log_me_in()
    from certauth.audit.record import Denied

    receipt = signer.receipt(Denied(operation="token", code="x"))
    with pytest.raises(RequestError):
        done.profile.store_token("run7", "text", jti="../../x", receipt=receipt)
    assert done.profile.token("run7") is None
    done.profile.store_token("run7", "text", jti="abcd", receipt=receipt)
    assert (done.profile.directory / "receipts" / "token-abcd.json").read_bytes() == receipt.to_json()


def test_an_expired_certificate_means_logging_in_again(signer: HostileSigner, log_me_in: LogIn):
    """After its end a certificate is not used, and the hint is the exact command."""
    done = log_me_in()
    end = done.credential.leaf.not_valid_after_utc
    done.profile.credential(now=end - timedelta(seconds=1))
    for ask in (
        lambda: done.profile.credential(now=end),
        lambda: done.profile.present(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), now=end),
    ):
        with pytest.raises(LoginRequired) as caught:
            ask()
        assert (caught.value.code, caught.value.hint) == ("certificate-expired", f"certauth login {signer.url}")


def test_a_key_that_does_not_belong_to_the_certificate_is_noticed(log_me_in: LogIn):
    """A pair torn apart by a crash or a copy is not used."""
    done = log_me_in()
    save_private(done.profile.directory / "key.pem", generate(Algorithm.P256), passphrase=None)
    with pytest.raises(LoginRequired) as caught:
        done.profile.credential(now=system_clock())
    assert caught.value.code == "credential-damaged"


@pytest.mark.parametrize("name", ["key.pem", "chain.pem", "bundle.json", "signer.json", "ca.pem"])
def test_files_that_others_can_read_or_write_are_refused(log_me_in: LogIn, name: str):
    """Neither a key nor what we trust is read from a file that is open to others."""
    profile = log_me_in().profile
    (profile.directory / name).chmod(0o644)
    with pytest.raises(KeyMaterialError) as caught:
        profile.credential(now=system_clock()), profile.bundle(), profile.extra_roots()
    assert caught.value.code == "key-file-open"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"url": "https://x"}', b'{"url":1,"url":2}'])
def test_a_damaged_record_is_said_so(log_me_in: LogIn, content: bytes):
    """A signer.json that a login did not write is named, not guessed at."""
    profile = log_me_in().profile
    (profile.directory / "signer.json").write_bytes(content)
    with pytest.raises(StoreError) as caught:
        profile.signer()
    assert caught.value.code == "profile-damaged"
    assert "login" in profile.login_command


def test_logging_out_deletes_secrets_and_keeps_evidence(home: Home, log_me_in: LogIn):
    """After a logout no key, certificate or token is left; receipts and trust are."""
    profile = log_me_in().profile
    profile.store_token("run7", "text")
    assert profile.forget() == 1
    left = {path.relative_to(profile.directory).parts[0] for path in profile.directory.rglob("*") if path.is_file()}
    assert left == {".lock", "bundle.json", "signer.json", "ca.pem", "receipts"}
    assert profile.forget() == 0
    with pytest.raises(LoginRequired):
        profile.credential(now=system_clock())
    assert [one.domain for one in home.profiles()] == [DOMAIN]


def test_nothing_secret_shows_in_a_repr(log_me_in: LogIn):
    """Neither a credential nor a profile shows its key."""
    done = log_me_in()
    pem = (done.profile.directory / "key.pem").read_text()
    for shown in (repr(done), repr(done.credential), str(done.profile)):
        assert "PRIVATE" not in shown
        assert pem.splitlines()[1][:20] not in shown


WRITER = """
import sys
from pathlib import Path
from certauth.client.profile import Credential, Home
from certauth.audit.receipt import Receipt
from certauth.names import TrustDomain
profile = Home(Path(sys.argv[1])).profile(TrustDomain.parse("hostile.example"))
pairs = [Home(Path(other)).profile(profile.domain).stored_credential() for other in sys.argv[2:]]
signer, bundle, extra = profile.signer(), (profile.directory / "bundle.json").read_bytes(), profile.extra_roots()
receipt = Receipt(entry=b"", index=0, proof=(), note="")
for turn in range(40):
    profile.store_login(pairs[turn % 2], signer=signer, bundle=bundle, extra_roots=extra, receipt=receipt)
"""

READER = """
import ssl, sys
from pathlib import Path
from certauth.client.profile import Home
from certauth.clock import system_clock
from certauth.names import TrustDomain
profile = Home(Path(sys.argv[1])).profile(TrustDomain.parse("hostile.example"))
seen = set()
for turn in range(80):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    seen.add(profile.present(context, now=system_clock()).fingerprint)
    profile.store_token(f"t{turn}", "text")
print(len(seen))
"""


def test_parallel_processes_never_see_half_a_login(signer: HostileSigner, tmp_path: Path, log_me_in: LogIn):
    """While one process replaces the pair over and over, others always find a key and its own certificate."""
    from certauth.client.authorization import Browser
    from certauth.client.login import Wishes, log_in
    from tests.certauth.client.conftest import browse

    log_me_in()
    others = []
    for name in ("one", "two"):
        wishes = Wishes(ca=signer.ca_file.read_bytes(), browser=Browser(enabled=False, timeout=10))
        log_in(Home(tmp_path / name), signer.url, wishes, clock=system_clock, tell=browse)
        others.append(str(tmp_path / name))
    home = str(tmp_path / "home")
    commands = [[sys.executable, "-c", WRITER, home, *others], *([[sys.executable, "-c", READER, home]] * 2)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands]
    results = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], results
    assert not list(Path(home).rglob(".key*")), "an unfinished write was left"
    Profile(Path(home) / "hostile.example", DOMAIN).credential(now=system_clock())


def test_a_lock_that_is_kept_is_reported(home: Home, monkeypatch: pytest.MonkeyPatch):
    """A process that holds the lock for long does not block others for ever."""
    monkeypatch.setattr("certauth.client.profile._LOCK_SECONDS", 0.05)
    profile = home.profile(DOMAIN)
    with profile.locked(), pytest.raises(StoreError) as caught:
        profile.token_names()
    assert caught.value.code == "locked"


def test_the_files_are_plain_enough_for_other_tools(log_me_in: LogIn):
    """Key and chain are PEM that OpenSSL loads, the record is JSON."""
    profile = log_me_in().profile
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(profile.directory / "chain.pem", profile.directory / "key.pem")
    assert json.loads((profile.directory / "signer.json").read_bytes())["domain"] == "hostile.example"
