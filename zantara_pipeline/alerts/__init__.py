"""Alerts: what a run found that a person should know, kept in an append-only ledger and delivered to each sink.

Belongs here: findings, the ledger (`data/state/alerts.db`), sinks and delivery, the contract `alerts.yaml`.
Does not belong here: deciding that something is wrong (each domain makes its own findings) and when delivery
runs (a sensor in orchestration/ calls `deliver`).
"""

from zantara_pipeline.alerts.config import AlertsConfig, load_alerts_config
from zantara_pipeline.alerts.delivery import DeliveryResult, deliver
from zantara_pipeline.alerts.finding import KINDS, SEVERITIES, Finding, Severity
from zantara_pipeline.alerts.ledger import Alert, AlertLedger

__all__ = [
    "KINDS",
    "SEVERITIES",
    "Alert",
    "AlertLedger",
    "AlertsConfig",
    "DeliveryResult",
    "Finding",
    "Severity",
    "deliver",
    "load_alerts_config",
]
