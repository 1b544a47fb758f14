"""The profiles are values; these are the ones that other facilities rely on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from certauth import profiles
from certauth.names import Kind


def test_people_and_agents_are_clients_and_never_servers() -> None:
    """The usages of the leaf profiles are exactly these."""
    assert profiles.USER.ekus == profiles.AGENT.ekus == (ExtendedKeyUsageOID.CLIENT_AUTH,)
    assert set(profiles.SERVICE.ekus) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}


@pytest.mark.parametrize(
    ("profile", "default", "longest"),
    [
        (profiles.USER, timedelta(hours=8), timedelta(hours=24)),
        (profiles.AGENT, timedelta(hours=8), timedelta(hours=24)),
        (profiles.SERVICE, timedelta(days=7), timedelta(days=31)),
    ],
)
def test_leaf_lifetimes_are_short(profile: profiles.Profile, default: timedelta, longest: timedelta) -> None:
    """A person's day is the longest certificate of a person."""
    assert (profile.default_lifetime, profile.max_lifetime) == (default, longest)


def test_authorities_sign_certificates_and_leaves_sign_handshakes() -> None:
    """No profile does both, and path lengths leave one level below each authority."""
    for profile in (profiles.USER, profiles.AGENT, profiles.SERVICE):
        usage = profile.key_usage
        assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign, profile.ca) == (True, False, False, False)
    for profile, length in ((profiles.INTERMEDIATE, 0), (profiles.ROOT, 1)):
        usage = profile.key_usage
        assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign, profile.ca) == (False, True, True, True)
        assert profile.path_length == length


def test_every_kind_has_a_profile() -> None:
    """Hosts are services."""
    found = {kind: profiles.leaf_profile(kind).name for kind in Kind}
    assert found == {Kind.USER: "user", Kind.AGENT: "agent", Kind.SERVICE: "service", Kind.HOST: "service"}
