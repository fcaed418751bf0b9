"""Writes `components/monitoring/rules.yaml`: the rules of observability/alerts.yaml, as the Prometheus
operator wants them. `python3 k8s/alert_rules.py`; run it again when a rule changes. Needs nothing but Python.
"""

from __future__ import annotations

import sys
from pathlib import Path

K8S = Path(__file__).parent
RULES = K8S.parent / "observability" / "alerts.yaml"
WRITTEN = K8S / "components" / "monitoring" / "rules.yaml"

HEAD = """\
# Written by k8s/alert_rules.py from observability/alerts.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: notifier
  labels: {app.kubernetes.io/name: notifier}
spec:
"""


def rules(text: str) -> str:
    """The text of the PrometheusRule, from that of a rules file."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


if __name__ == "__main__":
    WRITTEN.write_text(rules(RULES.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
