"""One login at a time: who waits, for whom, how long, and what becomes of those who wait."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certauth.client.attempt import Situation, Wishes
from certauth.client.browser import Browser
from certauth.client.lock import lock_file, login_lock
from certauth.client.login import AlreadyLoggedIn, LoggedIn, log_in_once
from certauth.client.profile import Home
from certauth.client.waiting import Screen, Stopwatch
from certauth.clock import system_clock
from certauth.errors import StoreError, UnavailableError
from certauth.names import Principal
from tests.certauth.client.conftest import HandWatch, browse
from tests.simulator.hostile_signer import HostileSigner

URL = "https://signer.als.example"
QUIET = Screen(tell=lambda _: None)


def once(signer: HostileSigner, home: Home, *, force: bool = False, screen: Screen | None = None, **wishes: Any) -> Any:
    """Log in as the command does."""
    wished = Wishes(ca=signer.ca_file.read_bytes(), browser=Browser(enabled=False, timeout=30), **wishes)
    return log_in_once(
        home, signer.url, wished, force=force, clock=system_clock, screen=screen or Screen(tell=browse), situation=Situation()
    )


def logins(signer: HostileSigner) -> int:
    """How often somebody logged in at the provider."""
    return sum(path == "/idp/token" for _, path, _, _ in signer.seen)


def test_the_file_is_private_named_by_the_signer_and_stays(tmp_path: Path):
    """Two signers do not wait for each other; the file says who has it and is never removed."""
    home = tmp_path / "home"
    path = lock_file(home, URL)
    assert path != lock_file(home, URL + ":8443")
    with login_lock(home, URL, seconds=1, screen=QUIET, stopwatch=Stopwatch()) as waited:
        assert waited is False
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes() == b'{"pid": %d}' % os.getpid()
        with login_lock(home, URL + ":8443", seconds=1, screen=QUIET, stopwatch=Stopwatch()):
            pass
    assert path.read_bytes() == b""


def test_who_waits_is_told_for_whom_and_not_for_ever(tmp_path: Path, hand: HandWatch):
    """The holder's process is named once, a state is shown, and the wait is bounded."""
    said: list[str] = []
    ticks: list[str] = []
    with login_lock(tmp_path, URL, seconds=1, screen=QUIET, stopwatch=Stopwatch()):
        with (
            pytest.raises(UnavailableError) as caught,
            login_lock(tmp_path, URL, seconds=3, screen=Screen(tell=said.append, tick=ticks.append), stopwatch=hand.watch),
        ):
            raise AssertionError("two hold the lock")
        assert caught.value.code == "login-elsewhere"
    assert said == [f"another certauth (process {os.getpid()}) is logging in at {URL}; waiting to share that login."]
    assert ticks[0] == f"waiting for another certauth (process {os.getpid()}), 0 s; Ctrl-C gives up"
    assert len(set(ticks)) > 2
    assert 3 <= hand.seconds < 3.2


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b'{"pid": "x"}'])
def test_a_holder_without_a_name(tmp_path: Path, hand: HandWatch, content: bytes):
    """What another process wrote, or did not write yet, is not believed to be anything."""
    said: list[str] = []
    with login_lock(tmp_path, URL, seconds=1, screen=QUIET, stopwatch=Stopwatch()):
        lock_file(tmp_path, URL).write_bytes(content)
        with (
            pytest.raises(UnavailableError),
            login_lock(tmp_path, URL, seconds=1, screen=Screen(tell=said.append), stopwatch=hand.watch),
        ):
            pass
    assert said == [f"another certauth is logging in at {URL}; waiting to share that login."]


def test_a_file_that_cannot_be_locked(tmp_path: Path):
    """A link is not followed, a directory is no file: said at once instead of waited for."""
    lock_file(tmp_path, URL).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError) as caught, login_lock(tmp_path, URL, seconds=1, screen=QUIET, stopwatch=Stopwatch()):
        pass
    assert caught.value.code == "cannot-write"
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An error that is not "somebody has it" is not taken for that."""
    import errno
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError) as caught, login_lock(tmp_path, URL, seconds=1, screen=QUIET, stopwatch=Stopwatch()):
        pass
    assert "No locks available" in caught.value.message


def test_a_killed_holder_leaves_no_lock(tmp_path: Path):
    """SIGKILL in the middle of a login: the next one has the lock although the file still names the dead process."""
    code = (
        "import sys, time; from pathlib import Path; from certauth.client.lock import login_lock;"
        "from certauth.client.waiting import Screen, Stopwatch\n"
        "with login_lock(Path(sys.argv[1]), sys.argv[2], seconds=1, screen=Screen(tell=print), stopwatch=Stopwatch()):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), URL], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UnavailableError), login_lock(tmp_path, URL, seconds=0.2, screen=QUIET, stopwatch=Stopwatch()):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert str(process.pid).encode() in lock_file(tmp_path, URL).read_bytes()
    with login_lock(tmp_path, URL, seconds=1, screen=QUIET, stopwatch=Stopwatch()) as waited:
        assert waited is False


def test_a_browser_that_stays_open_does_not_keep_the_lock(tmp_path: Path):
    """Children do not inherit it, not even one that is just being started."""
    with login_lock(tmp_path, URL, seconds=1, screen=QUIET, stopwatch=Stopwatch()):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        with login_lock(tmp_path, URL, seconds=1, screen=QUIET, stopwatch=Stopwatch()) as waited:
            assert waited is False
    finally:
        child.communicate(b"\n")


def test_a_browser_that_is_just_being_started_does_not_keep_the_lock(tmp_path: Path):
    """Until its program is loaded, a child shares the open file: the lock is given back, not only closed."""
    reading, writing = os.pipe()
    with login_lock(tmp_path, URL, seconds=1, screen=QUIET, stopwatch=Stopwatch()):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        with login_lock(tmp_path, URL, seconds=1, screen=QUIET, stopwatch=Stopwatch()) as waited:
            assert waited is False
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_already_logged_in(signer: HostileSigner, home: Home):
    """With more than half of its life left a certificate is good enough, unless the user insists."""
    assert isinstance(once(signer, home), LoggedIn)
    assert isinstance(once(signer, home), AlreadyLoggedIn)
    assert logins(signer) == 1
    assert isinstance(once(signer, home, force=True), LoggedIn)
    assert logins(signer) == 2
    signer.lifetime = timedelta(seconds=30)  # beside a minute in the past: less than half is left
    assert isinstance(once(signer, home, force=True), LoggedIn)
    assert isinstance(once(signer, home), LoggedIn)


def test_somebody_elses_certificate_is_not_ours(signer: HostileSigner, home: Home):
    """A service that logs in where a user is logged in is not told that it already is."""
    once(signer, home)
    assert isinstance(once(signer, home, principal=Principal.parse(signer.subject_uri)), AlreadyLoggedIn)
    other = Principal.parse("spiffe://hostile.example/service/mover")
    assert isinstance(once(signer, home, principal=other), LoggedIn)


def test_a_certificate_from_another_provider_is_not_what_was_asked_for(signer: HostileSigner, home: Home):
    """Who names a provider logs in there; what the certificate says of its login is compared, not what was last asked."""
    once(signer, home)
    assert isinstance(once(signer, home, issuer="campus"), AlreadyLoggedIn)
    signer.offers = signer.offers | {"id": "orcid"}
    assert isinstance(once(signer, home, issuer="orcid"), LoggedIn)
    assert logins(signer) == 2
    assert isinstance(once(signer, home), AlreadyLoggedIn)


@pytest.mark.parametrize("force", [False, True])
def test_who_waited_shares_the_login(signer: HostileSigner, home: Home, force: bool):
    """A login that somebody else finished meanwhile is ours too, even with --force: it is new."""
    if force:
        once(signer, home)
    outcome: list[Any] = []
    waiting = threading.Event()
    screen = Screen(tell=lambda _: waiting.set())

    def second() -> None:
        outcome.append(once(signer, home, force=force, screen=screen))

    thread = threading.Thread(target=second)
    before = logins(signer)
    with login_lock(home.directory, signer.url, seconds=1, screen=QUIET, stopwatch=Stopwatch()):
        thread.start()
        assert waiting.wait(30)
        from certauth.client.login import log_in

        wishes = Wishes(ca=signer.ca_file.read_bytes(), browser=Browser(enabled=False, timeout=30))
        done = log_in(home, signer.url, wishes, clock=system_clock, tell=browse, situation=Situation())
    thread.join(30)
    assert isinstance(outcome[0], AlreadyLoggedIn)
    assert outcome[0].credential.fingerprint == done.credential.fingerprint
    assert logins(signer) == before + 1


def test_who_waited_takes_over_from_who_gave_up(signer: HostileSigner, home: Home):
    """The first is cancelled: the next one logs in itself."""
    outcome: list[Any] = []
    waiting = threading.Event()

    def tell(text: str) -> None:
        waiting.set()
        browse(text)

    thread = threading.Thread(target=lambda: outcome.append(once(signer, home, screen=Screen(tell=tell))))
    first = login_lock(home.directory, signer.url, seconds=1, screen=QUIET, stopwatch=Stopwatch())
    first.__enter__()
    thread.start()
    assert waiting.wait(30)
    assert first.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    thread.join(30)
    assert isinstance(outcome[0], LoggedIn)
