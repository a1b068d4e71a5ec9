"""Partitions: data that arrives daily is partitioned by the day (UTC) it was received.

Belongs here: partition definitions. Does not belong here: which run touches which day (the ingest asset says so).
"""

import dagster as dg

# Covers the oldest public event data we know of (ratings from 1996); one partition costs nothing until it is touched.
RECEIVED_DAYS = dg.DailyPartitionsDefinition(start_date="1995-01-01", timezone="UTC")
