"""What the running service says about itself: structured logs on stderr and Prometheus metrics.

Labels are closed sets (operation, outcome, code, issuer id): never a principal, a serial or anything a client can choose.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


def configure_logging(form: Literal["json", "console"]) -> None:
    """Send our events and those of the libraries to stderr, one line each, with time and level."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # The place of an exception, never the values of its locals: they may be secrets.
    ending: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    # Our own events take the short way; the long one costs as much as verifying an identity proof.
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for chatty in ("httpx2", "httpcore2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Metrics:
    """The service's counters, one registry per instance so that tests do not share them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "signer_requests_total", "Requests by outcome.", ["operation", "outcome", "code"], registry=self.registry
        )
        self.issue_seconds = Histogram(
            "signer_issue_seconds",
            "Wall time from request to durable grant.",
            ["operation"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
            registry=self.registry,
        )
        self.tree_size = Gauge("audit_tree_size", "Entries in the audit log.", registry=self.registry)
        self.queue = Gauge("audit_queue_length", "Grants waiting for their commit.", registry=self.registry)
        self.latched = Gauge("audit_latched", "1 while the log refuses to record.", registry=self.registry)
        self.logins = Gauge(
            "signer_logins_under_way", "Mediated logins that were begun and have not run out.", registry=self.registry
        )
        self.not_after = Gauge(
            "certificate_not_after_timestamp_seconds", "Expiry of our own certificates.", ["role"], registry=self.registry
        )

    def observe(self, operation: str, outcome: str, code: str) -> None:
        """Count a request: ``outcome`` is ``done``, ``refused`` or ``failed``, the last two with the code of the error."""
        self.requests.labels(operation, outcome, code).inc()

    def render(self) -> bytes:
        """The exposition text (Prometheus 0.0.4)."""
        return generate_latest(self.registry)
