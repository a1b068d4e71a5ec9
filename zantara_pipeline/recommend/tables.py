"""The published tables of this domain: names, column types and what each column means.

Belongs here: the description, and creating a table from it. Does not belong here: rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class PublishedTable:
    """One table: `columns` maps a name to (DuckDB type, meaning), in order; purpose: what its people have to allow."""

    name: str
    meaning: str
    columns: dict[str, tuple[str, str]]
    purpose: str | None = None

    def replace(self, con: DuckDBPyConnection) -> None:
        """Create it empty, in place of an older one, with all comments."""
        columns = ", ".join(f"{name} {kind}" for name, (kind, _) in self.columns.items())
        con.execute("CREATE SCHEMA IF NOT EXISTS recommendations")
        con.execute(f"CREATE OR REPLACE TABLE {self.name} ({columns})")
        con.execute(f"COMMENT ON TABLE {self.name} IS {_quoted(self.meaning)}")
        for name, (_, meaning) in self.columns.items():
            con.execute(f"COMMENT ON COLUMN {self.name}.{name} IS {_quoted(meaning)}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


OFFLINE_METRICS = PublishedTable(
    "recommendations.offline_metrics",
    "Offline evaluation of the champion bundle on rolling cuts in time; one row per model, cut, slice, metric and k.",
    {
        "bundle_version": ("VARCHAR", "Content hash of the bundle evaluated."),
        "model": (
            "VARCHAR",
            "stack: what would serve; reranked: after the rules of business; blend, lambdarank: the stack under either ranker; lightfm, sequence and the other "
            "generators: their own lists, filled up by popularity; popularity (and of other half-lives); lightfm_alltime: "
            "LightFM, popularity of all time for who has no history.",
        ),
        "cut_date": (
            "TIMESTAMPTZ",
            "Trained strictly before, tested from this time (UTC) to the next cut; null: all cuts together.",
        ),
        "slice": (
            "VARCHAR",
            "warm: test users with a positive before the cut; cold: those without; all: both, whole traffic; rung=...: "
            "those whom the stack served by that rung of the ladder.",
        ),
        "metric": (
            "VARCHAR",
            "ndcg, mrr, recall, map, novelty (bits), diversity, ceiling (share of what was liked among the candidates): "
            "means over users; <metric>_diff: this model minus popularity, <metric>_lead: the stack minus this model, "
            "paired by user; coverage (share of the catalogue shown), gini (of how often items are shown).",
        ),
        "k": ("INTEGER", "Length of list considered."),
        "value": ("DOUBLE", "The metric; null where the slice has no user."),
        "ci_low": (
            "DOUBLE",
            "Lower bound: percentile bootstrap over users; for coverage jackknife over users; none for gini.",
        ),
        "ci_high": ("DOUBLE", "Upper bound, as ci_low."),
        "users": ("BIGINT", "Test users in the slice."),
    },
)

USER_RECOMMENDATIONS = PublishedTable(
    "recommendations.user_recommendations",
    "Ranked products of every user who consented to personalization; one row per user and rank.",
    {
        "user_id": ("VARCHAR", "The company's own opaque id."),
        "rank": ("INTEGER", "1 is best."),
        "product_id": ("VARCHAR", "The product recommended."),
        "score": ("DOUBLE", "Score of the model that served; comparable within one list only."),
        "served_by": (
            "VARCHAR",
            "Rung of the ladder: popularity (nothing is known, or the gate chose it for all), popularity_content (little is "
            "known), lightfm_fold_in (the model was not trained on them), full (all generators and the ranker).",
        ),
        "reasons": (
            "VARCHAR[]",
            "popular_recently, or the word of the source that placed it best (similar_users, often_next, often_together, "
            "similar_products) and the attribute shared most with the user's history, such as category=shoes.",
        ),
        "bundle_version": ("VARCHAR", "Content hash of the bundle that made the list."),
        "generated_at": ("TIMESTAMPTZ", "as_of of the run (UTC)."),
        "propensity": (
            "DOUBLE",
            "How probable it was that this product stood at this rank for this user: 1 but in slots of exploration.",
        ),
    },
    purpose="personalization",
)

PERSONAL_TABLES = {table.name: table.purpose for table in (OFFLINE_METRICS, USER_RECOMMENDATIONS) if table.purpose}
"""Tables of this domain that hold people, and what for; a check looks for people in them who do not allow it."""
