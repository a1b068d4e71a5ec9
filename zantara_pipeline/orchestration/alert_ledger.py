"""The alert ledger and its contract, opened for one home (assets raise, a sensor delivers)."""

from zantara_pipeline.alerts import AlertLedger, AlertsConfig, load_alerts_config
from zantara_pipeline.contracts_io import overlay_files
from zantara_pipeline.orchestration.pipeline import Pipeline


def alerts_config(pipeline: Pipeline) -> AlertsConfig:
    """contracts/alerts.yaml, or the overlay's."""
    return load_alerts_config(overlay_files(pipeline.settings.contract_dirs, "alerts.yaml")["alerts.yaml"])


def alert_ledger(pipeline: Pipeline) -> AlertLedger:
    """The ledger with the severities that the contract says."""
    return AlertLedger(pipeline.home.state / "alerts.db", severities=alerts_config(pipeline).kinds)
