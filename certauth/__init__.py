"""certauth: who may do what, across scientific facilities, provably.

Issuing reads as a sentence: ``identity`` proves who asks, ``issuance`` decides, ``certificates`` and ``tokens`` make, ``audit``
records. Everything below ``certauth.client`` and ``certauth.cli`` is pure: no network, no logging, no clock of its own.
"""

__version__ = "0.1.0"
