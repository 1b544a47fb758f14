"""Where token text may come from, and that it never comes from the command line."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from certauth.client.profile import Home
from certauth.client.sources import bearer_file, discover, read_stored, read_token
from certauth.errors import UsageError
from certauth.names import TrustDomain


@pytest.fixture(autouse=True)
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The machine's temporary directory may hold somebody's token."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def read(source: str | None, home: Home | None = None, stdin: bytes = b"", **environment: str) -> str:
    """Read a token with a profile in ``home``."""
    profile = None if home is None else home.profile(TrustDomain.parse("als.example"))
    return read_token(source, profile=profile, environment=environment, stdin=io.BytesIO(stdin))


def code(source: str | None, **given: Any) -> str:
    """The code with which reading fails."""
    with pytest.raises(UsageError) as caught:
        read(source, **given)
    return caught.value.code


def test_a_stored_name_comes_first_then_a_file(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch):
    """A name means the stored token, and a file only if none is stored under it."""
    monkeypatch.chdir(tmp_path)
    Path("run7").write_text("from-file\n")
    assert read("run7", home) == "from-file"
    home.profile(TrustDomain.parse("als.example")).store_token("run7", "stored")
    assert read("run7", home) == "stored"
    assert read("./run7", home) == "from-file"
    assert read("run7") == "from-file"


def test_standard_input():
    """A dash means standard input."""
    assert read("-", stdin=b"  text\n") == "text"


def test_what_does_not_hold_a_token(tmp_path: Path, home: Home):
    """Missing, empty, many-lined, binary or endless input is refused."""
    for content in (b"", b" \n", b"a\nb", b"a\x00b", b"x" * 70_000):
        (tmp_path / "t").write_bytes(content)
        assert code(str(tmp_path / "t")) == "token-unreadable"
        assert code("-", stdin=content) == "token-unreadable"
    assert code("nothing-there", home=home) == "token-unreadable"
    assert code("../../etc/shadow-", home=home) == "token-unreadable"


def test_a_token_in_the_arguments_is_refused_and_not_repeated(home: Home):
    """Text that looks like a token is not accepted where other users can read it, nor echoed."""
    text = "En0KEwoE" * 30
    with pytest.raises(UsageError) as caught:
        read(text, home)
    assert caught.value.code == "token-in-arguments"
    assert text[:20] not in str(caught.value)


def test_wlcg_discovery_in_its_order(tmp_path: Path):
    """BEARER_TOKEN, BEARER_TOKEN_FILE, the run-time directory, the temporary directory; the first that is set counts."""
    uid = os.geteuid()
    assert discover({}) is None
    assert code(None) == "no-token"
    (tmp_path / "tmp" / f"bt_u{uid}").write_text("temporary\n")
    assert discover({}) == "temporary"
    runtime = tmp_path / "run"
    runtime.mkdir()
    assert discover({"XDG_RUNTIME_DIR": str(runtime)}) is None
    (runtime / f"bt_u{uid}").write_text("runtime")
    environment = {"XDG_RUNTIME_DIR": str(runtime)}
    assert discover(environment) == "runtime"
    (tmp_path / "named").write_text("named")
    environment["BEARER_TOKEN_FILE"] = str(tmp_path / "named")
    assert discover(environment) == "named"
    environment["BEARER_TOKEN"] = " direct "
    assert read(None, **environment) == "direct"
    with pytest.raises(UsageError):
        discover({"BEARER_TOKEN_FILE": str(tmp_path / "missing")})


def test_a_file_that_somebody_else_put_where_tools_look_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Anybody can make a file in the temporary directory: whose is not ours is neither used nor passed over."""
    path = tmp_path / "tmp" / f"bt_u{os.geteuid()}"
    path.write_text("planted")
    assert discover({}) == "planted"
    real = os.geteuid()
    if real == 0:
        os.chown(path, 4321, 4321)
        stranger = real
    else:
        stranger = real + 1
        path.rename(path.with_name(f"bt_u{stranger}"))
        monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with pytest.raises(UsageError) as caught:
        discover({})
    assert (caught.value.code, "another user" in str(caught.value)) == ("token-unreadable", True)
    # Named on purpose, it is the user's own decision.
    assert discover({"BEARER_TOKEN_FILE": str(bearer_file({}))}) == "planted"


def test_the_bearer_file_follows_the_run_time_directory():
    """Where it is written is where it is looked for."""
    name = f"bt_u{os.geteuid()}"
    assert bearer_file({"XDG_RUNTIME_DIR": "/run/user/7"}) == Path("/run/user/7") / name
    assert bearer_file({"XDG_RUNTIME_DIR": ""}) == bearer_file({}) == Path(tempfile.gettempdir()) / name


def test_a_stored_token_is_read_by_name_alone(home: Home):
    """``read_stored`` looks nowhere else."""
    profile = home.profile(TrustDomain.parse("als.example"))
    profile.store_token("t", "text")
    assert read_stored(profile, "t") == "text"
    with pytest.raises(UsageError) as caught:
        read_stored(profile, "u")
    assert (caught.value.code, caught.value.hint) == ("token-unreadable", "'certauth token list' shows the stored ones")
