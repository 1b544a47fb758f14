"""Fixtures for the tests of ``certauth.tokens``."""

from __future__ import annotations

import pytest

from tests.certauth.tokens.kit import Facility


@pytest.fixture(scope="session")
def als() -> Facility:
    """The facility whose tokens are tested."""
    return Facility()
