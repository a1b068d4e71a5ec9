"""When runs start by the clock."""

from datetime import timedelta
from typing import Any

import dagster as dg


def daily_schedule(job: Any) -> dg.ScheduleDefinition:
    """02:00 UTC: yesterday's partition, whose end is the clock of the run. Running by default."""

    @dg.schedule(
        job=job,
        cron_schedule="0 2 * * *",
        execution_timezone="UTC",
        name="daily_at_two",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Takes what landed and rebuilds what follows from it, as of the end of yesterday (UTC).",
    )
    def daily_at_two(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        day = (context.scheduled_execution_time - timedelta(days=1)).strftime("%Y-%m-%d")
        return dg.RunRequest(run_key=day, partition_key=day)

    return daily_at_two
