"""``certauth login`` in every situation, as its users see it: flags, real processes side by side, Ctrl-C, a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from certauth.client.jose import public_jwk
from certauth.encoding import b64url, from_b64url
from certauth.identity.binding import jwk_thumbprint
from certauth.keys import Algorithm, generate, save_private
from tests.certauth.cli.conftest import BROWSER, Run
from tests.simulator.hostile_signer import HostileSigner, hostile_signer, problem

CERTAUTH = Path(sys.executable).with_name("certauth")
ROOT = Path(__file__).resolve().parents[3]
EVERYTHING = {
    "flows": ["code", "mediated", "device"],
    "kinds": ["id_token", "access_token"],
    "bindings": ["nonce", "dpop"],
    "access_token_audience": "https://s.example",
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[HostileSigner]:
    """A signer of this test alone."""
    (tmp_path / "signer").mkdir()
    with hostile_signer(tmp_path / "signer") as running:
        yield running


def arguments(signer: HostileSigner, *words: object) -> list[str]:
    """The command line of a login."""
    return [str(word) for word in ("login", signer.url, "--ca-file", signer.ca_file, *words)]


def environment(home: Path, **more: str) -> dict[str, str]:
    """What a login's process knows: no display, no SSH, no CI, whatever the machine of the tests is."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CERTAUTH_HOME": str(home), "HOME": str(home)} | more


_STARTED: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    while _STARTED:
        process = _STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def start(home: Path, words: list[str], **more: Any) -> subprocess.Popen[bytes]:
    """A login in a process of its own."""
    settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    given: Mapping[str, str] = more.pop("env", {})
    process = subprocess.Popen([CERTAUTH, *words], env=environment(home, **given), cwd=ROOT, **settings | more)
    _STARTED.append(process)
    return process


def wait_for(text: bytes, process: subprocess.Popen[bytes], seconds: float = 60) -> bytes:
    """Read standard error until it has ``text``."""
    assert process.stderr is not None
    said = b""
    deadline = time.monotonic() + seconds
    while text not in said:
        ready, _, _ = select.select([process.stderr], [], [], max(0, deadline - time.monotonic()))
        piece = os.read(process.stderr.fileno(), 65536) if ready else b""
        assert piece, said
        said += piece
    return said


def secrets_in(home: Path) -> list[Path]:
    """Key files."""
    return list(home.rglob("*.pem"))


# --- each way ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("--mediated", "--browser-command", BROWSER), "login"),
        (("--device", "--browser-command", BROWSER), "access_token"),
        (("--browser", "--browser-command", BROWSER), "id_token"),
        (("--browser-command", BROWSER), "id_token"),
        (("--no-browser", "--browser-command", BROWSER), "id_token"),
    ],
)
def test_the_ways_with_a_browser(place: HostileSigner, stranger: Run, words: tuple[str, ...], kind: str):
    """Each flag sends its kind of proof; the address is printed, and standard output holds the result alone."""
    place.offers = EVERYTHING
    done = stranger(*arguments(place, *words, "--timeout", "60s", "--json"))
    assert done.status == 0, done.err
    assert done.data["already"] is False
    assert [proof["type"] for proof in place.proofs] == [kind]
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert all(set(line) == {"progress"} for line in lines)
    assert place.url in lines[0]["progress"]


def test_a_code_an_invitation_and_a_token_come_from_files(place: HostileSigner, stranger: Run, tmp_path: Path):
    """Files or standard input, never arguments; nothing of them is printed."""
    (tmp_path / "code").write_text("the-enrolment-code\n")
    (tmp_path / "invite").write_text("the-invitation\n")
    done = stranger(*arguments(place, "--code", tmp_path / "code", "--invite", tmp_path / "invite"))
    assert done.status == 0, done.err
    assert place.proofs == [{"type": "code", "code": "the-enrolment-code"}]
    body = next(json.loads(body) for _, path, _, body in place.seen if path == "/v1/certificates")
    assert body["invite"] == "the-invitation"
    assert "the-enrolment-code" not in done.text + done.err
    stranger(*arguments(place, "--code", "-", "--force"), stdin=b"from-standard-input\n")
    assert place.proofs[-1] == {"type": "code", "code": "from-standard-input"}
    refused = stranger(*arguments(place, "--code", "the-enrolment-code-itself", "--force"))
    assert (refused.status, "secret-in-arguments" in refused.err) == (2, True)
    assert "the-enrolment-code-itself" not in refused.err


def test_a_token_from_where_it_may_be(place: HostileSigner, stranger: Run, tmp_path: Path):
    """A file, standard input, or where WLCG tools look; on the command line it is refused and not repeated."""
    place.offers = {"kinds": ["workload"], "flows": [], "bindings": ["none"]}
    parts = ({"alg": "RS256"}, {"iss": f"{place.url}/idp", "aud": "cli", "sub": "x" * 60}, "signature")
    text = ".".join(b64url(json.dumps(part).encode()) for part in parts)
    (tmp_path / "token").write_text(text)
    for words, more, stdin in (
        (("--token", tmp_path / "token"), {}, b""),
        (("--token", "-"), {}, text.encode()),
        (("--token", "env"), {"BEARER_TOKEN": text}, b""),
        (("--token", "env"), {"BEARER_TOKEN_FILE": str(tmp_path / "token")}, b""),
    ):
        done = stranger(*arguments(place, *words, "--force"), stdin=stdin, **more)  # type: ignore[arg-type]  # texts
        assert done.status == 0, done.err
        assert place.proofs.pop() == {"type": "workload", "token": text}
        assert text not in done.err
    refused = stranger(*arguments(place, "--token", text, "--force"))
    assert (refused.status, "token-in-arguments" in refused.err, text in refused.err) == (2, True, False)


def test_a_service_with_its_key(place: HostileSigner, stranger: Run, tmp_path: Path):
    """The enrolled key signs the proof; it is not the certificate's key and is not copied."""
    key = generate(Algorithm.P256)
    save_private(tmp_path / "mover.pem", key, passphrase=None)
    place.subject_uri = "spiffe://hostile.example/service/mover"
    words = arguments(place, "--key", tmp_path / "mover.pem", "--principal", place.subject_uri)
    assert stranger(*words).status == 0
    header = json.loads(from_b64url(place.proofs[0]["token"].split(".")[0]))
    assert header["kid"] == jwk_thumbprint(public_jwk(key.public_key))
    assert stranger(*words, "--json").data["already"] is True
    (tmp_path / "mover.pem").chmod(0o644)
    assert "key-file-open" in stranger(*words, "--force").err


def test_a_job_logs_itself_in(place: HostileSigner, stranger: Run):
    """In CI nothing has to be said; with --workload not even that nobody is at the terminal."""
    place.offers = {"kinds": ["workload"], "flows": [], "bindings": ["audience"]}
    job = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{place.url}/actions/token", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job"}
    done = stranger(*arguments(place), **job)
    assert done.status == 0, done.err
    assert stranger(*arguments(place, "--workload", "--force"), **job).status == 0
    assert [proof["type"] for proof in place.proofs] == ["workload", "workload"]
    assert "of-the-job" not in done.err + done.text
    nobody = stranger(*arguments(place, "--workload", "--force"))
    assert (nobody.status, "no-workload-identity" in nobody.err) == (2, True)


def test_a_pasted_address(place: HostileSigner, tmp_path: Path):
    """The user's line is read from standard input; the question is for people only."""
    process = start(tmp_path / "home", arguments(place, "--paste"), stdin=subprocess.PIPE)
    said = wait_for(b"paste it here", process).decode()
    address = next(word for word in said.split() if "/idp/authorize?" in word)
    query = dict(pair.split("=", 1) for pair in address.partition("?")[2].split("&"))
    answer = f"{unquote(query['redirect_uri'])}?code=the-code&state={query['state']}&iss={place.url}/idp\n"
    out, err = process.communicate(answer.encode(), timeout=60)
    assert process.returncode == 0, err
    assert b"Logged in." in out
    assert b"address:" not in err
    assert place.proofs[0]["type"] == "id_token"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mediated", "--device"), "--mediated and --device are different ways"),
        (("--browser", "--paste"), "--paste and --browser are different ways"),
        (("--code", "-", "--invite", "-"), "standard input cannot be two things"),
        (("--paste", "--invite", "-"), "standard input cannot be two things"),
        (("--principal", "spiffe://x.example/service/y"), "--key and --principal need each other"),
        (("--code", "/no/such/file"), "no readable file"),
        (("--device",), "does not offer this way"),
        (("--profile", "als.example"), "is the signer of hostile.example"),
        (("--profile", "No Domain"), "is not a trust domain"),
    ],
)
def test_what_does_not_go_together(place: HostileSigner, stranger: Run, words: tuple[str, ...], said: str):
    """A contradiction on the command line is found before anybody logs in."""
    done = stranger(*arguments(place, *words, "--timeout", "1s"))
    assert done.status in {2, 3}
    assert said in done.err
    assert place.proofs == []


def test_the_profile_names_the_signer(place: HostileSigner, stranger: Run):
    """--profile without an address logs in at that facility's signer again."""
    assert stranger(*arguments(place, "--browser-command", BROWSER)).status == 0
    again = stranger("login", "--profile", "hostile.example", "--force", "--browser-command", BROWSER, "--json")
    assert again.data["already"] is False
    assert stranger("login", "--profile", "als.example").status == 2


def test_over_ssh_the_page_of_the_signer_is_used(place: HostileSigner, tmp_path: Path):
    """Without a flag, in an SSH session: the signer's page and a code to type; the local port is not needed."""
    place.offers = EVERYTHING
    process = start(tmp_path / "home", arguments(place), env={"SSH_TTY": "/dev/pts/0", "DISPLAY": ":0"})
    said = wait_for(b"type this code", process).decode()
    assert f"{place.url}/login\n" in said
    place.finish_logins()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert place.proofs[0]["type"] == "login"


def test_a_pending_approval_is_three_with_its_hint(place: HostileSigner, stranger: Run):
    """A login that an admin still has to approve says so."""
    answer = problem(403, "approval-pending", "an admin has to approve you", hint="ask Bob", retry_after=600)
    place.lies["/v1/certificates"] = lambda _: answer
    done = stranger(*arguments(place, "--browser-command", BROWSER))
    assert done.status == 3
    assert done.err.endswith(
        "an admin has to approve you [approval-pending]\ncertauth: hint: ask Bob\ncertauth: hint: try again in 600 s\n"
    )


# --- several at once ---------------------------------------------------------------------------------------------------


def test_eight_processes_share_one_login(place: HostileSigner, tmp_path: Path):
    """Eight at once: the provider sees one login, the signer one request, and all eight report one certificate."""
    home = tmp_path / "home"
    running = [start(home, arguments(place, "--browser-command", BROWSER, "--json")) for _ in range(8)]
    said = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0] * 8, said
    paths = [path for _, path, _, _ in place.seen]
    assert sum(path.startswith("/idp/authorize") for path in paths) == 1
    assert paths.count("/idp/token") == paths.count("/v1/certificates") == 1
    found = [json.loads(out) for out, _ in said]
    assert len({one["fingerprint"] for one in found}) == 1
    assert sorted(one["already"] for one in found) == [False] + [True] * 7


def test_the_next_takes_over_when_the_first_is_cancelled(place: HostileSigner, tmp_path: Path):
    """The second says for whom it waits; after Ctrl-C in the first it logs in itself, at an address of its own."""
    home = tmp_path / "home"
    first = start(home, arguments(place, "--no-browser"))
    shown = wait_for(b"/idp/authorize?", first)
    second = start(home, arguments(place, "--browser-command", BROWSER))
    assert f"another certauth (process {first.pid}) is logging in at {place.url}".encode() in wait_for(
        b"waiting to share", second
    )
    assert not any(path.startswith("/idp/authorize") for _, path, _, _ in place.seen)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=120)
    assert (first.returncode, out) == (130, b"")
    assert b"Traceback" not in shown + err
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert b"Logged in." in out


@pytest.mark.parametrize(
    ("words", "ready"), [(("--mediated",), b"type this code"), (("--device",), b"type this code"), ((), b"/idp/authorize?")]
)
def test_ctrl_c_leaves_nothing(place: HostileSigner, tmp_path: Path, words: tuple[str, ...], ready: bytes):
    """130, no traceback, no key, no profile; a later login is not in anybody's way."""
    place.offers = EVERYTHING if words else {}
    home = tmp_path / "home"
    process = start(home, arguments(place, *words))
    said = wait_for(ready, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in said + err
    assert err.endswith(b"certauth: interrupted\n")
    assert secrets_in(home) == []
    assert [path.name for path in home.iterdir() if not path.name.startswith(".login-")] == []
    assert place.proofs == []
    again = start(home, arguments(place, *words, "--browser-command", BROWSER))
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err


# --- on a terminal -----------------------------------------------------------------------------------------------------


def on_a_terminal(home: Path, words: list[str], place: HostileSigner, **more: str) -> str:
    """What a login writes to a terminal; the login is finished once the state line was shown, or said that it waits."""
    mine, its = pty.openpty()
    process = start(home, words, stdin=its, stdout=its, stderr=its, env={"TERM": "xterm", "COLUMNS": "80"} | more)
    os.close(its)
    said = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([mine], [], [], 0.2)
        try:
            piece = os.read(mine, 65536) if ready else b""
        except OSError:  # the other end is closed
            break
        said += piece
        if b"type this code" in said and (b"waiting for you" in said or more.get("TERM") == "dumb"):
            place.finish_logins()
    os.close(mine)
    assert process.wait(timeout=60) == 0, said
    return said.decode()


def test_a_state_line_changes_in_place_and_goes_away(place: HostileSigner, tmp_path: Path):
    """On a terminal the wait is one line, rewritten, within the width, and cleared before the result."""
    place.offers = EVERYTHING
    said = on_a_terminal(tmp_path / "home", arguments(place, "--mediated"), place)
    ticks = said.split("\r\x1b[K")
    assert len(ticks) >= 3
    assert ticks[1].startswith("waiting for you to finish in the browser, ")
    assert all("\n" not in tick and len(tick) < 80 for tick in ticks[1:-1])
    assert ticks[-1].startswith("Logged in.")


@pytest.mark.parametrize(("words", "more"), [((), {"TERM": "dumb"}), (("--json",), {})])
def test_no_state_line_where_it_would_be_noise(
    place: HostileSigner, tmp_path: Path, words: tuple[str, ...], more: dict[str, str]
):
    """A dumb terminal and programs get no control characters."""
    place.offers = EVERYTHING
    if words:  # a program: nothing is shown while it waits, so the login is finished when it has begun
        more = more | {"TERM": "dumb"}
    said = on_a_terminal(tmp_path / "home", arguments(place, "--mediated", *words), place, **more)
    assert "\x1b" not in said
    assert "waiting for you" not in said


# --- secrets -----------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_arguments_or_output(place: HostileSigner, tmp_path: Path):
    """No secret is in the arguments of a running login, nor in what it prints, leaves on disk, or tells a child."""
    place.offers = EVERYTHING
    home = tmp_path / "home"
    (tmp_path / "invite").write_text("the-invitation")
    seen = tmp_path / "seen"
    spy = f"import os,sys; open({str(seen)!r},'w').write(repr(sys.argv)+repr(dict(os.environ)))"
    process = start(
        home,
        arguments(place, "--mediated", "--invite", tmp_path / "invite", "--browser-command", f'{sys.executable} -c "{spy}"'),
        env={"BEARER_TOKEN": "the-bearer-token"},
    )
    said = wait_for(b"type this code", process)
    line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    deadline = time.monotonic() + 60
    while not seen.exists() or not seen.read_text():
        assert time.monotonic() < deadline, "the browser was not started"
        time.sleep(0.05)
    place.finish_logins()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    secret = place.proofs[0]["secret"]
    everything = (line + said + out + err).decode() + seen.read_text()
    for hidden in (secret, "the-invitation", "the-bearer-token"):
        assert hidden not in everything
    for path in home.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
