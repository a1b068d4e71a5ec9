"""The command's tree of verbs."""

from __future__ import annotations

import typer

from zantara_pipeline.cli import (
    alerts,
    events,
    experiment,
    model,
    plan,
    privacy,
    quarantine,
    recommend,
    run,
    segments,
    serve,
    simulate,
)

app = typer.Typer(
    name="zantara",
    help="Raw behavioural events to personalization that can be trusted. Set ZANTARA_HOME to keep shops apart.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("simulate")(simulate.simulate_shop)
app.command("ui")(serve.ui)
app.command("models")(serve.models)
app.command("docs")(serve.docs)
app.add_typer(events.app, name="events")
app.add_typer(plan.app, name="plan")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(privacy.app, name="privacy")
app.add_typer(segments.app, name="segments")
app.add_typer(recommend.app, name="recommend")
app.add_typer(model.app, name="model")
app.add_typer(experiment.app, name="experiment")
app.add_typer(alerts.app, name="alerts")
