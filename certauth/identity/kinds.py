"""The kinds of identity proof, and what can tie one to a key."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class ProofKind(StrEnum):
    """What was shown. Each kind has a verifier of its own, and nothing passes as another kind."""

    ID_TOKEN = "id_token"  # noqa: S105 - the name of a kind, as it is written on the wire
    ACCESS_TOKEN = "access_token"  # noqa: S105
    WORKLOAD = "workload"
    CLIENT_ASSERTION = "client_assertion"
    CODE = "code"
    CERTIFICATE = "certificate"


class Binding(StrEnum):
    """What makes a proof worth nothing to a thief with another key; the formulas are in ``binding``.

    ``POSSESSION``: the proof is made with the key itself, or handed over once (assertions, codes, certificates).
    ``NONE``: nothing; whoever holds the proof can use it.
    """

    NONCE = "nonce"
    AUDIENCE = "audience"
    DPOP = "dpop"
    CNF = "cnf"
    POSSESSION = "possession"
    NONE = "none"


BINDINGS_OF: Final[Mapping[ProofKind, frozenset[Binding]]] = MappingProxyType(
    {
        ProofKind.ID_TOKEN: frozenset({Binding.NONCE, Binding.CNF, Binding.NONE}),
        ProofKind.ACCESS_TOKEN: frozenset({Binding.DPOP, Binding.NONE}),
        ProofKind.WORKLOAD: frozenset({Binding.AUDIENCE, Binding.CNF, Binding.NONE}),
    }
)
"""The kinds that identity providers sign, each with the ways in which it can be bound."""
