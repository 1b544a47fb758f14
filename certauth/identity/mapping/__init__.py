"""Admission rules: from a verified identity and its claims to who somebody becomes at this facility, or to a refusal.

Pure functions of rules and identity. ``docs/specification/admission-rules.md`` is the normative text, ``signer.admission`` the
form in which rules are written.
"""

from certauth.identity.mapping.claims import MAX_VALUES, Identity, Pointer
from certauth.identity.mapping.conditions import Condition, ConditionReport, Operator, Outcome, When
from certauth.identity.mapping.globs import Glob, host_matches
from certauth.identity.mapping.memberships import EntitlementSource, FixedName, NamesFromClaim
from certauth.identity.mapping.outputs import Admission, AssuranceTable, NotAdmitted, Outputs
from certauth.identity.mapping.rights import CapabilitySource, MappedRight, RightTemplate, ScopeSource
from certauth.identity.mapping.rules import (
    MAX_RULES,
    NO_RULES,
    Explanation,
    Rule,
    RuleReport,
    Verdict,
    admit,
    check_rules,
    explain,
)
from certauth.identity.mapping.templates import Template, Use, pseudonym

__all__ = [
    "MAX_RULES",
    "MAX_VALUES",
    "NO_RULES",
    "Admission",
    "AssuranceTable",
    "CapabilitySource",
    "Condition",
    "ConditionReport",
    "EntitlementSource",
    "Explanation",
    "FixedName",
    "Glob",
    "Identity",
    "MappedRight",
    "NamesFromClaim",
    "NotAdmitted",
    "Operator",
    "Outcome",
    "Outputs",
    "Pointer",
    "RightTemplate",
    "Rule",
    "RuleReport",
    "ScopeSource",
    "Template",
    "Use",
    "Verdict",
    "When",
    "admit",
    "check_rules",
    "explain",
    "host_matches",
    "pseudonym",
]
