"""What is granted: certificates, agents and the power of machines."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
    (
        "person is issuer and subject",
        (
            (
                "certauth/issuance.py",
                "Login(identity.issuer, identity.subject) not in enrolment.logins:",
                "identity.subject not in {one.subject for one in enrolment.logins}:",
            ),
        ),
        ("tests/certauth/test_issuance.py",),
    ),
    (
        "certificate lifetime: the signer's cap",
        (
            (
                "certauth/issuance.py",
                'issuer_id=identity.issuer_id,\n        caps=(\n            (max_lifetime, "the signer\'s settings"),\n',
                "issuer_id=identity.issuer_id,\n        caps=(\n",
            ),
        ),
        ("tests/certauth/test_issuance.py",),
    ),
    (
        "kinds of proof: a login makes no machine",
        (
            (
                "certauth/issuance.py",
                '    Kind.SERVICE: frozenset({"workload", ',
                '    Kind.SERVICE: frozenset({"id_token", "workload", ',
            ),
        ),
        ("tests/certauth/test_issuance.py",),
    ),
    (
        "kinds of proof: a machine is no person",
        (
            (
                "certauth/issuance.py",
                '    Kind.USER: frozenset({"id_token", "access_token"}),',
                '    Kind.USER: frozenset({"id_token", "access_token", "workload", "code"}),',
            ),
        ),
        ("tests/certauth/test_issuance.py",),
    ),
    (
        "enrolment: networks",
        (
            (
                "certauth/issuance.py",
                " and not any(address in network for network in enrolment.networks if address is not None):",
                " and False:",
            ),
        ),
        ("tests/certauth/test_issuance.py",),
    ),
    (
        "enrolment: its end",
        (
            (
                "certauth/issuance.py",
                "    if enrolment.expires_at is not None and now >= enrolment.expires_at:",
                "    if False:",
            ),
        ),
        ("tests/certauth/test_issuance.py",),
    ),
    (
        "renewal: the end of the session",
        (
            (
                "certauth/issuance.py",
                "    if session_ends is not None and session_ends - start < MIN_LIFETIME:",
                "    if False:",
            ),
            (
                "certauth/issuance.py",
                '            (None if session_ends is None else session_ends - start, "the end of the session"),\n',
                "",
            ),
        ),
        ("tests/certauth/test_issuance.py",),
    ),
    (
        "renewal: the name of the certificate",
        (
            (
                "certauth/issuance.py",
                "    if enrolment is None or enrolment.principal != peer.principal:\n        return _not",
                "    if enrolment is None:\n        return _not",
            ),
        ),
        ("tests/certauth/test_issuance.py",),
    ),
    (
        "agent: nothing that its owner lacks",
        (
            (
                "signer/standing.py",
                "common_rights(held, held_rights(owner, self.newest_terms(owner.principal), self._entitlements))",
                "held",
            ),
        ),
        ("tests/signer/test_agents.py",),
    ),
    (
        "agent: ends with its owner",
        (("signer/standing.py", "    if owner is None or owner.disabled:", "    if owner is None:"),),
        ("tests/signer/test_admitting.py", "tests/signer/test_agents.py", "tests/signer/test_renewal.py"),
    ),
    (
        "agent: given only what its owner holds",
        (("signer/agents_terms.py", "        if not any(_covers(other, right) for other in held):", "        if False:"),),
        ("tests/signer/test_agents.py",),
    ),
    (
        "agent: makes no agents",
        (("signer/agents_terms.py", "    if peer.principal.kind is not Kind.USER:", "    if False:"),),
        ("tests/signer/test_agents.py",),
    ),
    (
        "agent: no networks beyond its owner's",
        (
            (
                "signer/agents_terms.py",
                "not all(any(_within(one, network) for network in owner.networks) for one in wish.networks):",
                "False:",
            ),
        ),
        ("tests/signer/test_agents.py",),
    ),
    (
        "power: nothing is low because somebody says so",
        (("signer/power.py", "    if power < least:", "    if False:"),),
        ("tests/signer/test_machines.py",),
    ),
    (
        "power: so long at most",
        (("signer/power.py", "    if lifetime > bounds.longest:", "    if False:"),),
        ("tests/signer/test_machines.py",),
    ),
    (
        "power: so many networks",
        (("signer/power.py", "    if bounds.most is not None and not 1 <= len(networks) <= bounds.most:", "    if False:"),),
        ("tests/signer/test_machines.py",),
    ),
    (
        "power: no wide networks",
        (("signer/power.py", "        if network.prefixlen < least_prefix:", "        if False:"),),
        ("tests/signer/test_machines.py",),
    ),
    (
        "agent: stopped by its owner only",
        (("signer/agents.py", "if agent is None or agent.enrolment.owner != peer.principal:", "if agent is None:"),),
        ("tests/signer/test_agents.py",),
    ),
    (
        "agent: the terms of the login that asks",
        (("signer/agents.py", "self._standing.terms(peer)", "self._standing.newest_terms(peer.principal)"),),
        ("tests/signer/test_bounds_live.py",),
    ),
    (
        "power: wide IPv6 networks are not for the powerful",
        (("signer/power.py", "most=2, prefix_v4=24, prefix_v6=56)", "most=2, prefix_v4=24, prefix_v6=48)"),),
        ("tests/signer/test_power.py",),
    ),
    (
        "agent: so many ended names",
        (("signer/agents.py", "ended >= MAX_ENDED", "False"),),
        ("tests/signer/test_ending.py",),
    ),
    (
        "refusals: the rule is recorded",
        (("signer/issuing.py", "identity=identity, rule=admitted.rule,", "identity=identity,"),),
        ("tests/signer/test_refusals.py",),
    ),
    (
        "issuer add: recorded before it is written",
        (("signer/issuer_table.py", "                before_write()\n", "                pass\n"),),
        ("tests/signer/test_admin.py",),
    ),
    ("service certificate: why", (("signer/servers.py", "        why=why,\n", ""),), ("tests/signer/test_admin.py",)),
)
