"""The settings file: what is read, what is refused, and that a refusal names the key and never its value."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from certauth.errors import ConfigError
from signer.ending import HANDED_ON
from signer.settings import Settings, load, parse

GOOD = 'trust_domain = "als.example"\npublic_url = "https://signer.als.example:8443"\n'
ISSUER = '[[issuer]]\nid = "campus"\nurl = "https://idp.example"\nclient_id = "us"\n'


def read(text: str, **environment: str) -> Settings:
    """The settings in a text, under an environment."""
    return parse(text, Path("/etc/signer/signer.toml"), environment)


def test_defaults_and_relative_paths() -> None:
    """Paths are relative to the file, durations are durations, and what is not said has a safe default."""
    settings = read(GOOD + 'state = "state"\npassphrase_file = "pass"\n' + ISSUER + 'ca_file = "idp.pem"\nmax_age = "90s"\n')
    assert settings.state == Path("/etc/signer/state")
    assert settings.database_path == Path("/etc/signer/state/signer.db")
    assert settings.passphrase_file == Path("/etc/signer/pass")
    assert settings.issuer[0].ca_file == Path("/etc/signer/idp.pem")
    assert settings.issuer[0].max_age == timedelta(seconds=90)
    assert settings.issuer[0].enrolment == "enrolled"
    assert settings.issuer[0].issuer().audience == "us"
    assert settings.limits.certificate_lifetime == timedelta(hours=24)
    assert str(settings.domain) == "als.example"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GOOD + "max_lifetme = 3\n", "unknown key max_lifetme"),
        (GOOD + "[limits]\ntoken_lifetim = '1h'\n", "unknown key limits.token_lifetim"),
        (GOOD + ISSUER + "secret = 'hunter2'\n", "unknown key issuer.0.secret"),
        (GOOD.replace("als.example", "ALS", 1), "trust_domain"),
        (GOOD.replace("https://signer.als.example:8443", "http://signer.als.example"), "public_url"),
        (GOOD.replace("https://signer.als.example:8443", "https://signer.als.example/path"), "public_url"),
        (GOOD.replace("https://signer.als.example:8443", "https://user@signer.als.example"), "public_url"),
        (GOOD + "listen = '8443'\n", "listen"),
        (GOOD + "listen = '127.0.0.1:99999'\n", "listen"),
        (GOOD + "feed_lifetime = 'ten minutes'\n", "feed_lifetime"),
        (GOOD + "[limits]\nrequests_per_minute = 0\n", "limits.requests_per_minute"),
        (GOOD + ISSUER.replace("https:", "http:"), "issuer.0"),
        (GOOD + ISSUER.replace("campus", "../campus"), "issuer.0.id"),
        (GOOD + ISSUER + "algorithms = ['none']\n", "issuer.0.algorithms.0"),
        (GOOD + ISSUER + "algorithms = ['HS256']\n", "issuer.0.algorithms.0"),
        (GOOD + ISSUER + ISSUER.replace("idp", "idp2"), "two issuers share one id"),
        (GOOD + ISSUER + ISSUER.replace("campus", "other"), "two issuers share one url"),
        ("public_url = 'https://x'\n", "trust_domain"),
    ],
)
def test_wrong_settings_are_refused_by_name(text: str, named: str) -> None:
    """Each mistake is refused at the start, with the name of the key, and without the value that was given."""
    with pytest.raises(ConfigError, match=re.escape(named)) as caught:
        read(text)
    assert caught.value.code == "settings-invalid"
    assert "hunter2" not in str(caught.value)


def test_text_that_is_not_toml_is_refused() -> None:
    """A torn file is a configuration error, not a traceback."""
    with pytest.raises(ConfigError) as caught:
        read("trust_domain = ")
    assert caught.value.code == "settings-malformed"


def test_environment_overlays_and_strangers_are_refused() -> None:
    """``SIGNER_`` variables set top-level keys; one that sets nothing is named and refused."""
    assert read(GOOD, SIGNER_LISTEN="0.0.0.0:443", PATH="/bin").listen == "0.0.0.0:443"
    with pytest.raises(ConfigError, match="SIGNER_LISTN") as caught:
        read(GOOD, SIGNER_LISTN="0.0.0.0:443")
    assert caught.value.code == "unknown-variable"
    with pytest.raises(ConfigError, match="SIGNER_LIMITS"):
        read(GOOD, SIGNER_LIMITS="{}")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file has a hint, and one that is not text is refused."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "signer.toml", {})
    assert caught.value.code == "settings-unreadable"
    assert "init" in (caught.value.hint or "")
    (tmp_path / "signer.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "signer.toml", {})
    assert caught.value.code == "settings-malformed"
    (tmp_path / "signer.toml").write_text(GOOD)
    assert load(tmp_path / "signer.toml", {}).state == tmp_path


def test_example_settings_are_settings() -> None:
    """The published example is read by the program it is an example for, comments taken out included."""
    path = Path(__file__).resolve().parents[2] / "keys-example" / "signer.toml"
    assert load(path, {}).limits.token_lifetime == timedelta(hours=4)
    everything = re.sub(r"^# (?=[a-z_]+ = )", "", path.read_text(), flags=re.MULTILINE)
    assert parse(everything, path, {}).issuer[0].allowed_hosts == ("keys.example.org",)


def test_a_token_lasts_a_day_at_most(tmp_path: Path) -> None:
    """The withdrawal of a certificate is remembered for that long after its end, for tokens that it handed on."""
    path = tmp_path / "signer.toml"
    longest = parse(GOOD + '\n[limits]\ntoken_lifetime = "24h"\n', path, {}).limits.token_lifetime
    assert longest == HANDED_ON
    with pytest.raises(ConfigError, match=r"limits\.token_lifetime") as caught:
        parse(GOOD + '\n[limits]\ntoken_lifetime = "25h"\n', path, {})
    assert (caught.value.code, bool(caught.value.hint)) == ("settings-invalid", True)
