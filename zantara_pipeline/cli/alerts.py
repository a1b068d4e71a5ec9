"""`zantara alerts`: reading and delivering the alert ledger."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from zantara_pipeline.alerts import SEVERITIES, AlertLedger, deliver, load_alerts_config
from zantara_pipeline.cli.table import print_table
from zantara_pipeline.contracts_io import overlay_files
from zantara_pipeline.settings import load_settings
from zantara_pipeline.storage.home import Home

app = typer.Typer(help="Alerts.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Alerts."""


@app.command("list")
def list_alerts(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are resolved.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Open alerts, straight from the ledger, the gravest first.

    Example: zantara alerts list --all
    """
    found = AlertLedger(Home(load_settings().home).existing().create().state / "alerts.db").alerts(
        open_only=not everything
    )
    found.sort(key=lambda alert: (-SEVERITIES.index(alert.severity), alert.raised_at, alert.kind, alert.subject))
    if as_json:
        print(json.dumps([vars(alert) for alert in found], default=str, indent=2))
        return
    if not found:
        print("no alerts")
        return
    print_table(
        ("raised", "severity", "kind", "subject", "message", "resolved"),
        ((f"{a.raised_at:%Y-%m-%d %H:%M}", a.severity, a.kind, a.subject, a.message, str(a.resolved_at or ""))
         for a in found),
    )  # fmt: skip


@app.command("deliver")
def deliver_alerts(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Deliver what no sink has had yet; the sensor does the same. Exit 1 when a sink refused.

    Example: zantara alerts deliver
    """
    settings = load_settings()
    config = load_alerts_config(overlay_files(settings.contract_dirs, "alerts.yaml")["alerts.yaml"])
    home = Home(settings.home).existing().create()
    result = deliver(AlertLedger(home.state / "alerts.db", severities=config.kinds), config, home.root)
    if as_json:
        print(json.dumps(vars(result), indent=2))
    else:
        print(f"{result.total} deliveries made")
    if result.failed:
        for sink, problem in result.failed.items():
            typer.echo(f"zantara: sink {sink}: {problem}", err=True)
        raise typer.Exit(1)
