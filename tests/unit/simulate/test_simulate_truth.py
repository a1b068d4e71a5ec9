"""The truth of a simulated shop against a second, naive reading of the files it wrote (JSON Schema and DuckDB SQL)."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import jsonschema_rs
import pyarrow as pa
import pytest

from zantara_pipeline.simulate import Truth, simulate
from zantara_pipeline.simulate.consent import WITHDRAWALS
from zantara_pipeline.simulate.faults import FAULTS, UNPARSABLE

TEXT = {"type": ["string", "null"]}
PRODUCT = {
    "product_id": {"type": "string"},
    "category": TEXT,
    "brand": TEXT,
    "price": {"type": ["number", "null"], "minimum": 0},
    "currency": {"type": ["string", "null"], "pattern": "^[A-Z]{3}$"},
}
UNITS = {"quantity": {"type": ["integer", "null"], "minimum": 1}}
ENTRY = {
    "list_id": {"type": "string"},
    "product_id": {"type": "string"},
    "position": {"type": "integer", "minimum": 1},
    "bundle_version": {"type": "string"},
}


def _schema(properties: dict[str, Any], *required: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(
        {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    )


SCHEMAS = {
    "session_started": _schema({"entry_page": {"type": "string"}, "referrer": TEXT}, "entry_page"),
    "page_timing": _schema(
        {"page": {"type": "string"}, "load_ms": {"type": "number", "minimum": 0, "maximum": 600000}}, "page", "load_ms"
    ),
    "app_crashed": _schema({"error_class": {"type": "string"}}, "error_class"),
    "product_view": _schema(PRODUCT, "product_id"),
    "add_to_cart": _schema({**PRODUCT, **UNITS}, "product_id"),
    "purchase": _schema({**PRODUCT, **UNITS, "order_id": TEXT}, "product_id"),
    "refund": _schema({**PRODUCT, "order_id": TEXT, "quantity": {"type": ["integer", "null"]}}, "product_id"),
    "rating": _schema(
        {
            "product_id": {"type": "string"},
            "rating": {"type": "number"},
            "scale_min": {"type": "number"},
            "scale_max": {"type": "number"},
        },
        "product_id",
        "rating",
    ),
    "item_tag": _schema(
        {"product_id": {"type": "string"}, "tag": {"type": "string", "maxLength": 500}}, "product_id", "tag"
    ),
    "recommendation_exposed": _schema(ENTRY, *ENTRY),
    "recommendation_clicked": _schema(ENTRY, *ENTRY),
    "experiment_exposed": _schema(
        {"experiment_id": {"type": "string"}, "variant": {"type": "string"}}, "experiment_id", "variant"
    ),
}


def _instant(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


class Recount:
    """Reads a simulation line by line, the slow and obvious way."""

    def __init__(self, folder: Path) -> None:
        with (folder / "consent" / "consent.csv").open() as file:
            self.ledger = [(r["user_id"], r["purpose"], r["status"], r["effective_from"]) for r in csv.DictReader(file)]
        self.files: dict[str, Counter[str]] = {}
        self.lines = 0
        self.accepted: list[dict[str, Any]] = []
        self.quarantined: list[dict[str, Any]] = []
        for path in sorted((folder / "events").iterdir(), key=lambda p: p.name[:17]):
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            assert content.endswith(b"\n")
            counts = self.files[path.name] = Counter()
            for line in content[:-1].split(b"\n"):
                self.lines += 1
                if line:
                    counts[self.stage(line)] += 1

    def stage(self, line: bytes) -> str:
        try:
            row = json.loads(line.decode())
        except ValueError:
            return "unparsable"
        if not isinstance(row, dict):
            return "unparsable"
        occurred = _instant(row["timestamp"])
        purpose = "personalization" if row["event"].startswith("recommendation") else "analytics"
        consent = row.get("consent")
        if not isinstance(consent, dict) or consent[purpose] is not True or self.denied(row, purpose, occurred):
            return "suppressed"
        received = _instant(row.get("received_at", row["timestamp"]))
        schema = SCHEMAS.get(row["event"])
        if schema is None or not schema.is_valid(row["properties"]) or occurred is None or received is None:
            self.quarantined.append(row)
            return "quarantined"
        delay = received - occurred
        if not timedelta(hours=-24) <= delay <= timedelta(days=30):
            self.quarantined.append(row)
            return "quarantined"
        personal = consent["personalization"] is True and not self.denied(row, "personalization", occurred)
        self.accepted.append({**row, "occurred": occurred, "received": received, "personal": personal})
        return "accepted"

    def denied(self, row: dict[str, Any], purpose: str, at: datetime | None) -> bool:
        mine = [
            (since, status)
            for user, what, status, since in self.entries(row["user_id"])
            if what == purpose and (at is None or datetime.fromisoformat(since) <= at)
        ]
        return bool(mine) and max(mine)[1] == "denied"

    def entries(self, user: str) -> list[tuple[str, str, str, str]]:
        if not hasattr(self, "_by_user"):
            self._by_user: dict[str, list[tuple[str, str, str, str]]] = {}
            for entry in self.ledger:
                self._by_user.setdefault(entry[0], []).append(entry)
        return self._by_user.get(user, [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shop") / "landing"
    simulate(out, events=8_000)
    return out


@pytest.fixture(scope="module")
def truth(folder: Path) -> Truth:
    return Truth.from_json((folder / "truth.json").read_bytes())


@pytest.fixture(scope="module")
def recount(folder: Path) -> Recount:
    return Recount(folder)


def test_every_file_counts_as_the_truth_says(truth: Truth, recount: Recount) -> None:
    assert {name: counts.rows_in for name, counts in truth.files.items()} == {
        name: counts.total() for name, counts in recount.files.items()
    }
    for stage in ("unparsable", "suppressed", "quarantined", "accepted"):
        found = {name: counts[stage] for name, counts in recount.files.items()}
        assert {name: getattr(counts, stage) for name, counts in truth.files.items()} == found
        assert getattr(truth, stage) == sum(found.values())
    assert truth.lines == recount.lines == truth.rows_in + truth.planted.blank_lines


def test_rows_balance_in_all_and_per_file(truth: Truth) -> None:
    for counts in (truth, *truth.files.values()):
        assert counts.rows_in == counts.unparsable + counts.suppressed + counts.quarantined + counts.accepted
    assert sum(truth.quarantined_by_reason.values()) == truth.quarantined
    assert sum(truth.accepted_by_event.values()) == truth.accepted == truth.unique + truth.duplicates
    assert abs(truth.lines - 8_000) <= 160


def test_accepted_rows_duplicates_and_late_arrivals(truth: Truth, recount: Recount) -> None:
    accepted = recount.accepted
    ids = {row["event_id"] for row in accepted}
    assert Counter(row["event"] for row in accepted) == truth.accepted_by_event
    assert len(accepted) - len(ids) == truth.duplicates == truth.planted.duplicates > 0
    late = [
        row["received"] - row["occurred"] for row in accepted if row["received"] - row["occurred"] > timedelta(days=1)
    ]
    assert len(late) == truth.late == truth.planted.late > 0
    assert max(late) < timedelta(days=5)
    assert datetime.fromisoformat(truth.as_of) == max(row["received"] for row in accepted)
    assert truth.users == len({row["user_id"] for row in accepted} - {None})
    assert truth.devices == len({row["device_id"] for row in accepted})


def test_a_resent_event_says_the_same_but_for_when_it_was_received(recount: Recount) -> None:
    first: dict[str, dict[str, Any]] = {}
    for row in recount.accepted:
        earlier = first.setdefault(row["event_id"], row)
        assert {**row, "received": 0, "received_at": 0} == {**earlier, "received": 0, "received_at": 0} or (
            "received_at" not in earlier
        )
        assert row["received"] >= earlier["received"]


def test_files_hold_what_was_received_that_day_in_order(folder: Path) -> None:
    for path in (folder / "events").iterdir():
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        received = []
        for line in content.splitlines():
            try:
                row = json.loads(line)
                received.append(row["received_at"])
            except (ValueError, KeyError, TypeError):
                continue
        assert received == sorted(received)
        assert {text[:10] for text in received} == {path.name[7:17]}
    days = sorted(p.name for p in (folder / "events").iterdir())
    assert [p.endswith(".gz") for p in days] == [i % 7 == 6 for i in range(len(days))] and len(days) == 56


def test_segments_equal_duckdb_sql(truth: Truth, recount: Recount) -> None:
    """The segments by SQL over the recounted rows: another language, another arithmetic."""
    first: dict[str, dict[str, Any]] = {}
    for row in recount.accepted:
        first.setdefault(row["event_id"], row)
    as_of = datetime.fromisoformat(truth.as_of)
    # Allowed: the last word of the ledger and of the person's own flags, neither of them denied.
    flags: dict[str, tuple[datetime, bool]] = {}
    effective: dict[str, tuple[datetime, bool]] = {}
    for row in first.values():
        if row["user_id"] is None:
            continue
        for last, value in ((flags, row["consent"]["personalization"]), (effective, row["personal"])):
            last[row["user_id"]] = max(last.get(row["user_id"], (row["occurred"], value)), (row["occurred"], value))
    allowed = {
        u for u, (_, flag) in flags.items() if flag and not recount.denied({"user_id": u}, "personalization", as_of)
    }
    # The planted people leave no room for two readings: flags as sent or as they count after the ledger.
    assert allowed == {
        u for u, (_, flag) in effective.items() if flag and not recount.denied({"user_id": u}, "personalization", as_of)
    }
    assert truth.personalization_allowed == len(allowed)

    con = duckdb.connect()
    con.execute("CREATE TABLE e (t TIMESTAMP, event VARCHAR, u VARCHAR, p VARCHAR, price DECIMAL(18,4), q BIGINT)")
    shopping = [
        [row["occurred"].astimezone(UTC).replace(tzinfo=None), row["event"], row["user_id"]]
        + [row["properties"].get(key) for key in ("product_id", "price", "quantity")]
        for row in first.values()
        if row["event"] in ("add_to_cart", "purchase", "refund") and row["personal"] and row["user_id"] in allowed
    ]
    con.executemany("INSERT INTO e VALUES (?, ?, ?, ?, ?, ?)", shopping)
    active = [
        [
            row["occurred"].astimezone(UTC).replace(tzinfo=None),
            row["user_id"],
            row["device_id"],
            row.get("organisation_id"),
        ]
        for row in first.values()
        if row["personal"] and row["user_id"] in allowed
    ]
    con.execute("CREATE TABLE a (t TIMESTAMP, u VARCHAR, d VARCHAR, o VARCHAR)")
    columns = [pa.array(column) for column in zip(*active, strict=True)]
    con.register("active", pa.table(columns, names=["t", "u", "d", "o"]))
    con.execute("INSERT INTO a FROM active")
    now = f"TIMESTAMP '{as_of:%Y-%m-%d %H:%M:%S.%f}'"
    queries = {
        "seg_recent_buyers": f"SELECT DISTINCT u FROM e WHERE event = 'purchase' AND t > {now} - INTERVAL 30 DAY",
        "seg_cart_abandoners": f"""SELECT DISTINCT u FROM e c WHERE event = 'add_to_cart' AND t > {now} - INTERVAL 7 DAY
            AND NOT EXISTS (FROM e b WHERE b.event = 'purchase' AND b.u = c.u AND b.p = c.p AND b.t >= c.t)""",
        "seg_high_spenders": f"""SELECT u FROM e WHERE event <> 'add_to_cart' AND t > {now} - INTERVAL 90 DAY GROUP BY u
            HAVING sum(CASE event WHEN 'purchase' THEN price * q ELSE -price * abs(q) END) >= 500""",
        "seg_multi_device_users": f"SELECT u FROM a WHERE t > {now} - INTERVAL 30 DAY GROUP BY u HAVING max(d) > min(d)",
        "seg_active_organisations": f"""SELECT o FROM a WHERE t > {now} - INTERVAL 30 DAY AND o IS NOT NULL
            GROUP BY o HAVING max(u) > min(u)""",
        "seg_new_users": f"SELECT u FROM a GROUP BY u HAVING min(t) > {now} - INTERVAL 14 DAY",
    }
    assert set(queries) == set(truth.segments)
    for name, query in queries.items():
        members = sorted(u for (u,) in con.execute(query).fetchall())
        assert truth.segments[name].size == len(members) > 0
        assert truth.segments[name].members_sha256 == hashlib.sha256("\n".join(members).encode()).hexdigest()


def test_entities_by_another_way(truth: Truth, recount: Recount) -> None:
    """Sessions by window functions; whose a browser was by looking at all of its logins. Nobody here is asked for consent."""
    first: dict[str, dict[str, Any]] = {}
    for row in recount.accepted:
        first.setdefault(row["event_id"], row)
    con = duckdb.connect()
    con.execute("CREATE TABLE e (id VARCHAR, t TIMESTAMP, u VARCHAR, a VARCHAR, d VARCHAR, o VARCHAR)")
    con.executemany(
        "INSERT INTO e VALUES (?, ?, ?, ?, ?, ?)",
        [
            [row["event_id"], row["occurred"].astimezone(UTC).replace(tzinfo=None)]
            + [row.get(key) for key in ("user_id", "anonymous_id", "device_id", "organisation_id")]
            for row in first.values()
        ],
    )
    con.execute("""
        CREATE TABLE placed AS SELECT *, sum(n) OVER (PARTITION BY d ORDER BY t, id) AS s FROM (
            SELECT *, (t - lag(t) OVER (PARTITION BY d ORDER BY t, id) > INTERVAL 30 MINUTE) IS NOT FALSE AS n FROM e)
    """)
    sessions = con.execute("SELECT count(DISTINCT u) FROM placed GROUP BY d, s").fetchall()
    assert (truth.sessions, truth.entities.shared_sessions, truth.entities.anonymous_sessions) == (
        len(sessions), sum(n > 1 for (n,) in sessions), sum(n == 0 for (n,) in sessions)
    )  # fmt: skip
    people = con.execute("""
        WITH who AS (SELECT d, s, count(DISTINCT u) AS n, min(u) AS u FROM placed GROUP BY d, s),
        owners AS (SELECT a, count(DISTINCT u) AS n, min(u) AS only FROM e WHERE u IS NOT NULL GROUP BY a)
        SELECT p.id, coalesce(p.u, CASE who.n WHEN 1 THEN who.u WHEN 0 THEN coalesce(
            (SELECT max_by(l.u, l.t) FROM e l WHERE l.a = p.a AND l.u IS NOT NULL AND l.t <= p.t),
            CASE WHEN owners.n = 1 THEN owners.only END) END)
        FROM placed p JOIN who USING (d, s) LEFT JOIN owners ON owners.a = p.a
    """).fetchall()
    lines = sorted(f"{event} {person or ''}" for event, person in people)
    assert truth.entities.people_sha256 == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    nobody = sum(person is None for _, person in people)
    assert truth.entities.stitched_by["nobody"] == nobody > 0
    assert sum(truth.entities.stitched_by.values()) == truth.unique
    assert truth.entities.organisations == len({row.get("organisation_id") for row in first.values()} - {None})
    assert truth.entities.memberships == len(
        {(row.get("organisation_id"), row["user_id"]) for row in first.values() if row.get("organisation_id")}
    )


def test_exposures_and_contaminated_users(truth: Truth, recount: Recount) -> None:
    for name, experiment in truth.experiments.items():
        seen: dict[str, list[tuple[datetime, str]]] = {}
        for row in recount.accepted:
            if row["event"] == "experiment_exposed" and row["properties"]["experiment_id"] == name:
                assert row["occurred"] >= datetime.fromisoformat(experiment.start)
                seen.setdefault(row["user_id"], []).append((row["occurred"], row["properties"]["variant"]))
        assert Counter(min(exposures)[1] for exposures in seen.values()) == experiment.exposed
        two = sum(len({variant for _, variant in exposures}) == 2 for exposures in seen.values())
        assert two == experiment.contaminated == truth.planted.contaminated[name] > 0


def test_every_planted_kind_appears(truth: Truth) -> None:
    planted = truth.planted
    assert set(planted.faults) == set(FAULTS) and min(planted.faults.values()) >= 2
    assert set(planted.unparsable) == set(UNPARSABLE)
    assert set(truth.quarantined_by_reason) == {reason for reason, _ in FAULTS.values()}
    assert planted.faults_on_suppressed > 0 and planted.received_at_missing > 0 and planted.blank_lines > 0
    assert set(truth.accepted_by_event) == set(SCHEMAS)
    assert all(planted.consent[kind] > 0 for kind in (*WITHDRAWALS, "denied", "analytics_only", "guests"))
    assert (
        min(planted.identity.values()) >= 2 and truth.entities.shared_sessions > 0 and truth.entities.shared_devices > 0
    )
    assert set(truth.entities.stitched_by) == {"login", "session", "anonymous", "nobody"}
    assert all(planted.consent[f"sessions_with_consent_{kind}"] > 0 for kind in ("null", "missing", "text"))


def test_one_reason_per_bad_line(truth: Truth) -> None:
    """So that reasons can be counted: the reasons add up to the lines."""
    assert truth.planted.reasons == truth.quarantined_by_reason
    assert sum(truth.planted.faults.values()) == truth.quarantined + truth.planted.faults_on_suppressed


def test_products_are_sold_from_the_day_they_are_available(folder: Path, truth: Truth, recount: Recount) -> None:
    with (folder / "items" / "items.csv").open() as file:
        items = {row["product_id"]: row for row in csv.DictReader(file)}
    assert truth.products.catalogue == len(items)
    seen = {row["properties"]["product_id"] for row in recount.accepted if "product_id" in row["properties"]}
    assert truth.products.seen == len(seen) and truth.products.all == len(seen | set(items)) > len(items)
    arriving = [datetime.fromisoformat(item["available_from"]) for item in items.values()]
    assert sum(at >= datetime(2026, 1, 6, tzinfo=UTC) for at in arriving) > 0
    for row in recount.accepted:
        item = items.get(row["properties"].get("product_id", ""))
        if item and row["event"] == "product_view":
            assert row["occurred"] >= datetime.fromisoformat(item["available_from"])
            assert f"{row['properties']['price']:.2f}" == item["price"]
