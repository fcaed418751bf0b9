"""What is counted. Few labels: a queue or channel, and a reason from a fixed list."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ROUTED = Counter("notifier_routed_total", "Events that the router has dealt with.")
SKIPPED = Counter("notifier_skipped_total", "Deliveries that were not made, by reason.", ["reason"])
DELIVERED = Counter("notifier_delivered_total", "Deliveries that a provider took.", ["channel"])
FAILED = Counter("notifier_failed_total", "Failed attempts, by outcome.", ["channel", "outcome"])
PARKED = Counter("notifier_parked_total", "Times that a lane was parked for a retry.", ["channel"])
DEAD_LETTERS = Counter("notifier_dead_letters_total", "Deliveries that went to a DLQ.", ["queue"])
DEAD = Counter("notifier_dead_total", "Deliveries that failed their second try too.", ["queue"])
PROMOTED = Counter("notifier_promoted_total", "Scheduled entries whose time came.")
ALERTS = Counter("notifier_alerts_total", "Alerts about dead deliveries that were published.", ["channel"])
BREAKER_OPEN = Gauge("notifier_breaker_open", "1 while the channel's breaker is open.", ["channel"])
LATENCY = Histogram(
    "notifier_delivery_seconds",
    "From accepted by the broker to taken by the provider.",
    ["channel"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 30, 60, 300, 3600),
)
