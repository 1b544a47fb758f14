"""Keys of a provider in a file: no network, changes seen at once, and nobody else may write them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from certauth.errors import ConfigError, ProofError, UnavailableError
from signer.jwks import IssuerSource, KeySource, Pace
from signer.outbound import MAX_ANSWER
from tests.signer.test_jwks import NOW, Ticks, made_once, verify
from tests.simulator.hostile_provider import HostileProvider, hostile_provider, jwks

pytestmark = pytest.mark.anyio
URL = "https://idp.example"
PACE = Pace(cooldown=30, expire_after=3600)


@pytest.fixture
def anyio_backend() -> str:
    """The signer runs on asyncio."""
    return "asyncio"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one key, ``a``."""
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(made_once("ES256", "a")))
    return path


def replace(path: Path, content: bytes | None) -> None:
    """Put another file in its place, as every careful program does; or none."""
    if content is None:
        path.unlink()
        return
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def source_of(path: Path, ticks: Ticks) -> KeySource:
    """A key source for one provider whose keys are in a file."""
    return KeySource([IssuerSource(url=URL, jwks_file=path)], pace=PACE, ticks=ticks)


async def code(source: KeySource, kid: str | None) -> str:
    """What asking for a key comes to."""
    try:
        await source.keys(URL, kid)
    except (ProofError, UnavailableError) as error:
        return error.code
    return "ok"


async def test_the_file_is_the_key_set_and_nobody_is_asked(file: Path) -> None:
    """A proof verifies under a key of the file; the provider itself hears nothing, unknown keys included."""
    with hostile_provider() as provider:
        settings = IssuerSource(url=provider.issuer, jwks_file=file, allow_loopback_http=True)
        source = KeySource([settings], pace=PACE, ticks=Ticks())
        assert await verify(source, provider, made_once("ES256", "a")) == "ok"
        assert await verify(source, provider, made_once("ES256", "b")) == "unknown-key"
        assert await verify(source, provider, made_once("RS256", "a")) == "alg-not-allowed"
        await source.warm()
        with pytest.raises(UnavailableError) as caught:
            await source.discovery(provider.issuer)
        await source.aclose()
    assert caught.value.code == "no-discovery"
    assert not provider.fetches
    assert NOW.year  # the proofs above are of that time


async def test_a_changed_file_counts_at_once(file: Path) -> None:
    """A key that was added is found by the next proof, one that was taken out verifies nothing any more."""
    source = source_of(file, Ticks())
    assert (await code(source, "a"), await code(source, "b")) == ("ok", "unknown-key")
    replace(file, jwks(made_once("ES256", "b")))
    assert (await code(source, "a"), await code(source, "b")) == ("unknown-key", "ok")
    assert source.status()[0].state == "fresh"


async def test_a_key_replaced_under_its_id(file: Path, provider_like: HostileProvider) -> None:
    """A bad signature looks at the file once more: the proof of the new key is accepted, the old one refused."""
    settings = IssuerSource(url=provider_like.issuer, jwks_file=file, allow_loopback_http=True)
    source = KeySource([settings], pace=PACE, ticks=Ticks())
    assert await verify(source, provider_like, made_once("ES256", "a")) == "ok"
    other = made_once("ES256", "b")
    replace(file, jwks({**other.jwk, "kid": "a"}))
    other_as_a = type(other)("ES256", "a")
    other_as_a.private = other.private
    assert await verify(source, provider_like, other_as_a) == "ok"
    assert await verify(source, provider_like, made_once("ES256", "a")) == "bad-signature"


@pytest.fixture
def provider_like() -> Any:
    """A provider that only lends its URL."""
    with hostile_provider() as provider:
        yield provider


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"keys": []}', jwks({"kty": "oct", "kid": "a"}), b" " * (MAX_ANSWER + 1), None]
)
async def test_a_change_that_cannot_be_used_leaves_the_keys_for_a_while(file: Path, content: bytes | None) -> None:
    """A slip of the pen stops no login for an hour, is in the status at once, and stops them after it."""
    ticks = Ticks()
    source = source_of(file, ticks)
    replace(file, content)
    assert await code(source, "a") == "ok"
    [status] = source.status()
    assert (status.state, status.keys) == ("stale", 1)
    assert str(status.failure)
    ticks.now += PACE.expire_after
    with pytest.raises(UnavailableError) as caught:
        await source.keys(URL, "a")
    assert (caught.value.code, caught.value.retry_after) == ("issuer-unavailable", 30)
    assert (source.status()[0].state, source.status()[0].keys, source.status()[0].age) == ("none", 0, None)
    replace(file, jwks(made_once("ES256", "a")))
    assert await code(source, "a") == "ok"
    assert source.status()[0].failure is None


@pytest.mark.parametrize("mode", [0o666, 0o664])
async def test_a_file_that_others_come_to_write_is_not_read_again(file: Path, mode: int) -> None:
    """The attack: the mode is loosened, somebody adds a key of their own. It verifies nothing, and the status says why."""
    source = source_of(file, Ticks())
    write_over(file, mode, jwks(made_once("ES256", "a"), made_once("ES256", "b")))
    assert (await code(source, "a"), await code(source, "b")) == ("ok", "unknown-key")
    assert "written by other users" in str(source.status()[0].failure)
    write_over(file, 0o644, jwks(made_once("ES256", "b")))
    assert await code(source, "b") == "ok"


def write_over(path: Path, mode: int, content: bytes) -> None:
    """Write over a file, as somebody who may write to it but not to its directory, and set its mode."""
    path.chmod(mode)
    path.write_bytes(content)


def refused(path: Path) -> str:
    """The code with which a start with this file is refused."""
    with pytest.raises(ConfigError) as caught:
        source_of(path, Ticks())
    return caught.value.code


@pytest.mark.parametrize("mode", [0o646, 0o664, 0o620, 0o602])
def test_a_file_others_may_write_stops_the_start(file: Path, mode: int) -> None:
    """Whoever writes it says who everybody is, a member of its group as well as anybody else."""
    file.chmod(mode)
    assert refused(file) == "file-open"


def test_a_file_of_another_user_stops_the_start(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner can change it at will. Only root can give a file away; anybody else becomes another user than its owner."""
    ours = os.geteuid()
    if ours == 0:
        os.chown(file, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: ours + 1)
    assert refused(file) == "file-open"


def test_what_is_no_file_stops_the_start(tmp_path: Path) -> None:
    """Missing, a directory, a pipe that nobody writes to, too large, no keys: refused at once, without waiting."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * (MAX_ANSWER + 1))
    (tmp_path / "empty").write_bytes(b'{"keys": []}')
    before = open_files()
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe", tmp_path / "large", tmp_path / "empty"):
        assert refused(path) == "file-unreadable"
    assert open_files() == before


def open_files() -> int:
    """How many files this process has open."""
    return len([*Path("/proc/self/fd").iterdir()])


async def test_a_file_under_a_link_that_moves(file: Path, tmp_path: Path) -> None:
    """Kubernetes swaps a link to publish a change."""
    link = tmp_path / "current"
    link.symlink_to(file)
    source = source_of(link, Ticks())
    assert await code(source, "a") == "ok"
    (tmp_path / "next.json").write_bytes(jwks(made_once("ES256", "b")))
    (tmp_path / "swap").symlink_to(tmp_path / "next.json")
    (tmp_path / "swap").replace(link)
    assert (await code(source, "a"), await code(source, "b")) == ("unknown-key", "ok")
