"""Adding an identity provider to a settings file that people wrote: nothing of theirs is lost, nothing wrong gets in."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.errors import CertauthError, ConfigError, StoreError
from signer.issuer_table import IssuerTable, append
from signer.settings import Settings, parse

WRITTEN = """\
# The facility's own words.
trust_domain = "als.example"   # never change this
public_url = "https://signer.als.example"

[[issuer]]
id = "campus"          # the old one
url = "https://idp.campus.example"
client_id = "signer"

[[issuer.rule]]
name = "staff"
when = { all = [ { claim = "/affiliation", equals = "staff" } ] }

[limits]
agents = 3
# The end, without a line break"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file with comments, a rule, and a section after the issuers."""
    path = tmp_path / "signer.toml"
    path.write_text(WRITTEN)
    path.chmod(0o640)
    return path


def table(**members: Any) -> IssuerTable:
    """A table for another provider."""
    return IssuerTable(**{"id": "lab", "url": "https://idp.lab.example", "client_id": "us", **members})


def test_what_is_written_there_stays(file: Path) -> None:
    """Comments, order, mode: all as before; the new table follows and counts."""
    before = parse(file.read_text(), file, {})
    settings = append(file, table(algorithms=("RS256",)), environment={})
    text = file.read_text()
    assert text.startswith(WRITTEN + "\n\n[[issuer]]\n")
    assert [issuer.id for issuer in settings.issuer] == ["campus", "lab"]
    assert settings == parse(text, file, {})
    assert settings.issuer[0] == before.issuer[0]
    assert settings.limits == before.limits
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_validating_alone_writes_nothing(file: Path) -> None:
    """``write=False`` tells what would be."""
    assert len(append(file, table(), environment={}, write=False).issuer) == 2
    assert file.read_text() == WRITTEN


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"id": "campus"}, "issuer-duplicate"),
        ({"url": "https://idp.campus.example"}, "issuer-duplicate"),
        ({"url": "http://idp.lab.example"}, "settings-invalid"),
        ({"id": "no name"}, "settings-invalid"),
        ({"algorithms": ("HS256",)}, "settings-invalid"),
        ({"bindings": ("none",), "assurance": 2}, "settings-invalid"),
        ({"kinds": ("access_token",)}, "settings-invalid"),
        ({"introspection": True}, "settings-invalid"),
    ],
)
def test_what_is_wrong_leaves_the_file_alone(file: Path, members: dict[str, Any], code: str) -> None:
    """Duplicates and settings that could not be safe are refused."""
    with pytest.raises(ConfigError) as caught:
        append(file, table(**members), environment={})
    assert caught.value.code == code
    assert file.read_text() == WRITTEN
    assert [path.name for path in file.parent.iterdir()] == ["signer.toml"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('trust_domain = "a.example"\npublic_url = "https://s.example"\nissuer = []\n', "settings-malformed"),
        ("trust_domain = \n", "settings-malformed"),
        ('trust_domain = "a.example"\n', "settings-invalid"),
    ],
)
def test_a_file_that_cannot_be_added_to(file: Path, text: str, code: str) -> None:
    """Issuers written as an inline list cannot be continued; a broken file is not made longer."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        append(file, table(), environment={})
    assert caught.value.code == code
    assert file.read_text() == text


def test_missing_files(tmp_path: Path) -> None:
    """No settings file, no directory: said as what it is."""
    with pytest.raises(ConfigError, match="cannot read"):
        append(tmp_path / "signer.toml", table(), environment={})
    with pytest.raises(StoreError, match="cannot open"):
        append(tmp_path / "nowhere" / "signer.toml", table(), environment={})


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    """The file it leads to is replaced, where it is."""
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    append(link, table(), environment={})
    assert link.is_symlink()
    assert "[[issuer]]" in file.read_text()[len(WRITTEN) :]


def test_two_changes_at_once(file: Path) -> None:
    """While one is being made another is refused; of many at once, none that was reported as done is lost."""
    descriptor = os.open(file.parent, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(ConfigError) as caught:
            append(file, table(), environment={})
    finally:
        os.close(descriptor)
    assert caught.value.code == "settings-busy"
    done: list[str] = []

    def add(name: str) -> None:
        while True:
            try:
                append(file, table(id=name, url=f"https://{name}.example"), environment={})
            except ConfigError as error:
                if error.code != "settings-busy":
                    raise
                continue
            done.append(name)
            return

    threads = [threading.Thread(target=add, args=(f"idp-{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [issuer.id for issuer in parse(file.read_text(), file, {}).issuer]
    assert sorted(found) == sorted(["campus", *done])
    assert len(done) == 6


@given(
    text=st.text(max_size=30),
    members=st.fixed_dictionaries(
        {},
        optional={
            "scopes": st.lists(st.text(max_size=10), max_size=3).map(tuple),
            "assurance": st.integers(1, 3),
            "single_key": st.booleans(),
            "device": st.booleans(),
            "proxy": st.text(max_size=10),
        },
    ),
)
def test_what_is_written_is_what_is_read(text: str, members: dict[str, Any]) -> None:
    """Whatever the values hold - quotes, line breaks, other tables - the table says exactly them, or is refused."""
    wanted = table(client_id=text, **members)
    whole = f'trust_domain = "a.example"\npublic_url = "https://s.example"\n{wanted.toml()}'
    try:
        settings: Settings = parse(whole, Path("/x/signer.toml"), {})
    except (CertauthError, UnicodeEncodeError):
        return
    [issuer] = settings.issuer
    assert (issuer.id, issuer.client_id) == ("lab", text)
    for name, value in members.items():
        if value not in (None, (), False):
            assert getattr(issuer, name) == value
