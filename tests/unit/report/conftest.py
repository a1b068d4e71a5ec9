"""A published DuckDB file with made-up tables, in the shape of DESIGN section 5."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

AS_OF = datetime(2026, 3, 1, 23, 59, 40, tzinfo=UTC)
HOSTILE = '<script>alert("x")</script> $a_b$ & [bold]'

SCHEMA = """
CREATE SCHEMA ops; CREATE SCHEMA segments; CREATE SCHEMA recommendations; CREATE SCHEMA experiments;
CREATE TABLE ops.ingested_files (file VARCHAR, sha256 VARCHAR, rows_in BIGINT, unparsable BIGINT, suppressed BIGINT,
    quarantined BIGINT, accepted BIGINT, duplicates BIGINT, max_received_at TIMESTAMPTZ);
CREATE TABLE ops.quarantine_reasons (event VARCHAR, code VARCHAR, path VARCHAR, rows BIGINT);
CREATE TABLE segments.catalog (segment VARCHAR, description VARCHAR, owner VARCHAR, purpose VARCHAR,
    legal_basis VARCHAR, entity VARCHAR, ttl_days INTEGER, access_level VARCHAR, min_size INTEGER, size BIGINT,
    refreshed_at TIMESTAMPTZ, sql VARCHAR);
CREATE TABLE recommendations.offline_metrics (bundle_version VARCHAR, model VARCHAR, cut_date TIMESTAMPTZ,
    slice VARCHAR, metric VARCHAR, k INTEGER, value DOUBLE, ci_low DOUBLE, ci_high DOUBLE, users BIGINT);
CREATE TABLE recommendations.user_recommendations (user_id VARCHAR, rank INTEGER, product_id VARCHAR, score DOUBLE,
    served_by VARCHAR, reasons VARCHAR[], bundle_version VARCHAR, generated_at TIMESTAMPTZ);
CREATE TABLE experiments.scorecard (experiment_id VARCHAR, variant VARCHAR, metric VARCHAR, role VARCHAR,
    as_of TIMESTAMPTZ, n BIGINT, value DOUBLE, control_value DOUBLE, lift DOUBLE, ci_low DOUBLE, ci_high DOUBLE,
    p_value DOUBLE, log_p DOUBLE, method VARCHAR, verdict VARCHAR);
CREATE TABLE ops.alerts (alert_id VARCHAR, raised_at TIMESTAMPTZ, kind VARCHAR, severity VARCHAR, subject VARCHAR,
    message VARCHAR, details VARCHAR, fingerprint VARCHAR, resolved_at TIMESTAMPTZ);
CREATE TABLE ops.withdrawals (as_of TIMESTAMPTZ, purpose VARCHAR, people BIGINT, memberships BIGINT, lists BIGINT,
    interactions BIGINT);
"""

SCORES = [
    ("checkout_button", "treatment", "sample_ratio", "srm", 0.71, None, None, None, "chi_square", "ok"),
    ("checkout_button", "treatment", "conversion", "primary", 1.2e-5, 0.182, 0.118, 0.252, "cuped", "better"),
    ("checkout_button", "treatment", "revenue", "secondary", 0.31, 0.034, -0.031, 0.101, "cuped", "inconclusive"),
    ("checkout_button", "treatment", "p95_latency_ms", "guardrail", 0.6, 0.006, -0.012, 0.026, "delta", "safe"),
    ("checkout_button", "treatment", "crash_free_sessions", "guardrail", 0.5, 0.0004, -0.001, 0.002, "delta", "safe"),
    ("new_search", "treatment", "sample_ratio", "srm", 0.0, None, None, None, "chi_square", "srm"),
    ("new_search", "treatment", "conversion", "primary", 0.02, 0.07, 0.011, 0.132, "cuped", "invalid: srm"),
    ("new_search", "treatment", "p95_latency_ms", "guardrail", 0.9, -0.002, -0.04, 0.035, "delta", "invalid: srm"),
    ("heavy_images", "treatment", "sample_ratio", "srm", 0.44, None, None, None, "chi_square", "ok"),
    ("heavy_images", "treatment", "conversion", "primary", 0.4, 0.012, -0.02, 0.045, "cuped", "inconclusive"),
    ("heavy_images", "treatment", "p95_latency_ms", "guardrail", 1e-40, 0.62, 0.55, 0.69, "delta", "harm"),
    ("heavy_images", "treatment", "crash_free_sessions", "guardrail", 0.2, -0.001, -0.003, 0.001, "t", "underpowered"),
]  # fmt: skip

METRICS = [
    ("ndcg", 10, 0.0812, 0.0771, 0.0853, 0.0590, 0.0556, 0.0624),
    ("mrr", None, 0.142, 0.135, 0.149, 0.112, 0.106, 0.118),
    ("recall", 10, 0.121, 0.115, 0.127, 0.093, 0.088, 0.098),
    ("recall", 20, 0.188, 0.18, 0.196, 0.151, 0.144, 0.158),
    ("coverage", 20, 0.63, None, None, 0.04, None, None),
]


def write_shop(path: Path) -> Path:
    """28 days of files, three segments, two models, three experiments, three alerts."""
    con = duckdb.connect(str(path))
    con.execute("SET TimeZone = 'UTC'")
    con.execute(SCHEMA)
    for n in range(28):
        accepted, quarantined, suppressed = 3000 + 90 * n + (n % 7) * 130, 180 + (n % 5) * 30, 260 + 11 * (n % 4)
        row = (f"events-{n:02}.jsonl", f"{n:064}", accepted + quarantined + suppressed + 3, 3, suppressed, quarantined,
               accepted, 40 + n % 3, AS_OF - timedelta(days=27 - n))  # fmt: skip
        con.execute("INSERT INTO ops.ingested_files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    con.executemany(
        "INSERT INTO ops.quarantine_reasons VALUES (?, ?, ?, ?)",
        [
            ("product_view", "wrong_type", "properties.price", 2875),
            ("purchase", "missing_key", "properties.product_id", 1402),
            ("prodct_view", "unknown_event", "event", 1211),
            (HOSTILE, "unknown_event", "event", 7),
            ("rating", "above_maximum", "properties.rating", 651),
        ],
    )
    con.executemany(
        "INSERT INTO segments.catalog VALUES (?, ?, ?, 'ads', 'consent', 'user', ?, 'internal', 10, ?, ?, '')",
        [
            ("recent_buyers", "Bought something in the last 30 days.", "growth-data", 30, 412, AS_OF),
            ("cart_abandoners", "Put a product into the cart in 7 days and did not buy it.", "crm", 7, 1290, AS_OF),
            ("high_spenders", "Spent 500 or more, net of refunds, in 90 days.", "crm", 90, None, AS_OF),
        ],
    )
    metrics = []
    for metric, k, value, low, high, base, base_low, base_high in METRICS:
        for slice_, factor in (("all", 1.0), ("warm", 1.3)):
            for model, numbers in (("lightfm", (value, low, high)), ("popularity", (base, base_low, base_high))):
                scaled = [None if number is None else number * factor for number in numbers]
                metrics.append(("v3", model, datetime(2026, 2, 20, tzinfo=UTC), slice_, metric, k, *scaled, 2210))
    metrics.append(("v2", "lightfm", datetime(2026, 2, 10, tzinfo=UTC), "all", "ndcg", 10, 0.5, 0.4, 0.6, 2000))
    con.executemany("INSERT INTO recommendations.offline_metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", metrics)
    con.execute(
        "INSERT INTO recommendations.user_recommendations "
        "SELECT 'u' || u, r, 'p' || r, 1.0 / r, if(u < 310, 'lightfm', 'popularity'), ['x'], 'v3', ? "
        "FROM range(500) AS users (u), range(1, 4) AS ranks (r)",
        [AS_OF],
    )
    for experiment, variant, metric, role, p, lift, low, high, method, verdict in SCORES:
        log_p = math.log(p) if p else -260.0 * math.log(10)
        row = (
            experiment,
            variant,
            metric,
            role,
            AS_OF,
            8140,
            0.0412,
            0.0349,
            lift,
            low,
            high,
            p,
            log_p,
            method,
            verdict,
        )
        con.execute(f"INSERT INTO experiments.scorecard VALUES ({', '.join('?' * 15)})", row)
    con.executemany(
        "INSERT INTO ops.alerts VALUES (?, ?, ?, ?, ?, ?, '{}', ?, ?)",
        [
            ("a1", AS_OF, "srm", "critical", "experiment/new_search",
             "The observed split does not fit 50/50: 4,522 against 3,618 units.", "f1", None),
            ("a2", AS_OF, "guardrail_harm", "critical", "experiment/heavy_images",
             "p95_latency_ms is +62.0 % [+55.0 %, +69.0 %]; at most +5 % is allowed.", "f2", None),
            ("a3", AS_OF - timedelta(days=3), "cuped_absent", "warning", "experiment/old", HOSTILE, "f3", AS_OF),
        ],
    )  # fmt: skip
    con.executemany(
        "INSERT INTO ops.withdrawals VALUES (?, ?, ?, ?, ?, ?)",
        [(AS_OF - timedelta(days=1), "analytics", 77, 7, 7, 7), (AS_OF, "analytics", 0, 0, 0, 0),
         (AS_OF, "personalization", 3, 10, 1, 1240)],
    )  # fmt: skip
    con.close()
    return path


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "published.duckdb")


@pytest.fixture
def empty_shop(tmp_path: Path) -> Path:
    path = tmp_path / "empty.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(SCHEMA)
    return path


@pytest.fixture
def bare_shop(tmp_path: Path) -> Path:
    """A published file without a single table."""
    path = tmp_path / "bare.duckdb"
    duckdb.connect(str(path)).close()
    return path


@pytest.fixture
def change(shop: Path) -> Callable[[str], None]:
    """Run one statement on the shop's tables."""

    def run(sql: str) -> None:
        with duckdb.connect(str(shop)) as con:
            con.execute(sql)

    return run
