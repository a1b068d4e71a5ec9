"""What a shop does not have, and what therefore has nothing to do; said, so that a zero is not read as a finding.

Belongs here: questions to the published tables about absent data. Does not belong here: figures (summary.py).
"""

from __future__ import annotations

import duckdb

# (relation that must exist, query that is true when the thing is lacking, what to say)
_QUESTIONS = (
    (
        "core.products",
        "SELECT count(*) > 0 AND count(price) = 0 FROM core.products",
        "no prices: spending and revenue cannot be known (seg_high_spenders stays empty)",
    ),
    (
        "core.products",
        "SELECT count(*) > 0 AND NOT bool_or(in_catalogue) FROM core.products",
        "no catalogue: what is known of products comes from events alone (give one with ITEMS)",
    ),
    (
        "core.consent_history",
        "SELECT count(*) = 0 FROM core.consent_history",
        "no consent: nobody may be personalized for (events must carry the consent under which they were sent)",
    ),
    (
        "experiments.scorecard",
        "SELECT count(*) = 0 FROM experiments.scorecard",
        "no experiments: there are no exposures to analyse",
    ),
    (
        "recommendations.user_recommendations",
        "SELECT count(*) = 0 FROM recommendations.user_recommendations",
        "no recommendations: too few consented interactions to train on, or nobody to recommend to",
    ),
)


def lacking(con: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """One sentence per thing that the published tables show to be absent."""
    tables = {
        row[0]
        for row in con.execute("SELECT table_schema || '.' || table_name FROM information_schema.tables").fetchall()
    }
    return tuple(
        said
        for relation, query, said in _QUESTIONS
        if relation in tables and con.execute(query).fetchall() == [(True,)]
    )
