"""Quarantine and replay: broken, mended, replayed equals never broken; killed replays; consent that is gone since."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from event_lines import BOTH, PLAN, RULES, Shop, event, viewed

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.storage.engine import open_engine
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking import commits, replay
from zantara_pipeline.tracking.fixes import Fixes, load_fixes
from zantara_pipeline.tracking.plan import Exemption, load_plan
from zantara_pipeline.tracking.quarantine import detail, kinds, payloads
from zantara_pipeline.tracking.replay import Replayed
from zantara_pipeline.tracking.sources import NOTHING_NEW, mark_staged, prepare
from zantara_pipeline.tracking.verdict import Rules

DAYS = ("2026-03-01", "2026-03-02", "2026-03-05")


def rules(tmp_path: Path, event_name: str, **changes: dict[str, Any]) -> Rules:
    """The packaged plan with some properties of one event changed."""
    overlay = tmp_path / f"overlay-{len(list(tmp_path.iterdir()))}"
    (overlay / "tracking_plan").mkdir(parents=True)
    entry = yaml.safe_load((PACKAGED / "tracking_plan" / f"{event_name}.yaml").read_text())
    for name, keys in changes.items():
        entry["properties"][name] = entry["properties"].get(name, {}) | keys
    (overlay / "tracking_plan" / f"{event_name}.yaml").write_text(yaml.safe_dump(entry))
    return replace(RULES, plan=load_plan([PACKAGED, overlay]))


def lines() -> list[dict[str, Any]]:
    """Views over three days, some of them wrong under any plan, one a copy; and other events."""
    found = []
    for number, day in enumerate(DAYS * 4):
        price = (5, 9.5, 120, "7")[number % 4]
        times = {"timestamp": f"{day}T10:00:0{number % 10}Z", "received_at": f"{day}T10:00:59Z"}
        found.append(
            viewed(price=price, currency="EUR") | times | {"event_id": f"v{number}", "user_id": f"u{number % 5}"}
        )
    found.append(found[2] | {"received_at": "2026-03-06T00:00:00Z"})
    found.append(event("purchase", {"product_id": "p", "quantity": 0}, event_id="wrong"))
    found.append(event("app_crashed", {"error_class": "Oops"}, event_id="other"))
    return found


def landed(root: Path, under: Rules) -> Shop:
    shop = Shop(root, under)
    shop.land("a.jsonl", lines()[:8])
    shop.land("b.jsonl.gz", lines()[8:])
    shop.ingest()
    return shop


def state(shop: Shop) -> dict[str, Any]:
    """What a later reader can see: accepted rows, quarantined lines, counts and reasons of every file."""
    columns = "source, rows_in, unparsable, suppressed, quarantined, accepted, late, min_received_at, max_received_at, first_received_date"
    failing = [{k: v for k, v in row.items() if k not in ("attempts", "filename")} for row in shop.quarantined()]
    return {
        "accepted": shop.accepted(),
        "quarantined": failing,
        "files": shop.query(f"SELECT {columns} FROM ingested_files ORDER BY 1"),
        "reasons": shop.query("SELECT * FROM quarantine_reasons ORDER BY ALL".replace("ALL", "1, 2, 3, 4")),
        "incoming": list(shop.home.incoming.glob("*")),
    }


@pytest.fixture
def broken(tmp_path: Path) -> Rules:
    return rules(tmp_path, "product_view", price={"max": 8})


def test_broken_mended_and_replayed_is_as_if_never_broken(tmp_path: Path, broken: Rules) -> None:
    never = landed(tmp_path / "never", RULES)
    shop = landed(tmp_path / "shop", broken)
    assert len(shop.accepted()) < len(never.accepted())
    before = len(shop.quarantined())
    found = replay.replay(shop.home, shop.ledger, RULES)
    assert (found.rows, found.accepted, found.quarantined) == (
        before,
        before - len(never.quarantined()),
        len(never.quarantined()),
    )
    assert state(shop) == state(never)
    assert {day.isoformat() for day in found.touched_dates | found.duplicate_dates} >= set(DAYS)


def test_a_second_replay_changes_nothing(tmp_path: Path, broken: Rules) -> None:
    shop = landed(tmp_path / "shop", broken)
    replay.replay(shop.home, shop.ledger, RULES)
    before, files = state(shop), sorted(shop.home.lake.rglob("*.parquet"))
    again = replay.replay(shop.home, shop.ledger, RULES)
    assert (again.accepted, again.written) == (0, False)
    assert state(shop) == before and sorted(shop.home.lake.rglob("*.parquet")) == files
    assert shop.query("SELECT count(*) FROM replays") == [(1,)]


def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path, broken: Rules) -> None:
    shop = landed(tmp_path / "shop", broken)
    before = state(shop)
    said = replay.replay(shop.home, shop.ledger, RULES, dry_run=True)
    assert state(shop) == before
    assert replay.replay(shop.home, shop.ledger, RULES) == said


def test_only_the_fingerprints_chosen_are_judged(tmp_path: Path, broken: Rules) -> None:
    shop = landed(tmp_path / "shop", broken)
    kinds = {row["fingerprint"]: row for row in shop.quarantined()}
    [too_dear] = [name for name, row in kinds.items() if [r["code"] for r in row["reasons"]] == ["above_maximum"]]
    others = [row for row in shop.quarantined() if row["fingerprint"] != too_dear]
    found = replay.replay(shop.home, shop.ledger, RULES, fingerprints=[too_dear])
    assert found.accepted == found.rows > 0
    assert shop.quarantined() == others
    assert replay.replay(shop.home, shop.ledger, RULES, fingerprints=["none such"]) == Replayed()


def test_lines_that_fail_otherwise_have_the_reasons_of_today(tmp_path: Path, broken: Rules) -> None:
    shop = landed(tmp_path / "shop", broken)
    stricter = rules(tmp_path, "product_view", price={"max": 8}, currency={"pattern": "^USD$"})
    never = landed(tmp_path / "never", stricter)
    replay.replay(shop.home, shop.ledger, stricter)
    theirs = {(row["source"], row["line_no"]): row["reasons"] for row in never.quarantined()}
    assert shop.quarantined() and all(
        row["reasons"] == theirs[row["source"], row["line_no"]] and row["attempts"] == 2 for row in shop.quarantined()
    )
    replay.replay(shop.home, shop.ledger, RULES)
    assert state(shop) == state(landed(tmp_path / "right", RULES))


def test_a_line_whose_consent_is_gone_since_is_dropped(tmp_path: Path, broken: Rules) -> None:
    shop = landed(tmp_path / "shop", broken)
    waiting = [row for row in shop.quarantined() if '"u2"' in row["payload_raw"]]
    shop.consent(*(("u2", purpose, "denied", "2026-01-01T00:00:00Z") for purpose in BOTH))
    found = replay.replay(shop.home, shop.ledger, RULES)
    assert waiting and found.suppressed == len(waiting)
    assert not [row for row in shop.quarantined() if '"u2"' in row["payload_raw"]]
    [(rows, parts)] = shop.query(
        "SELECT sum(rows_in), sum(unparsable + suppressed + quarantined + accepted) FROM ingested_files"
    )
    assert rows == parts


@pytest.mark.parametrize("moment", ["judging", "staging", "staged", "moving"])
def test_a_killed_replay_is_finished_or_never_was(
    tmp_path: Path, broken: Rules, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    shop = landed(tmp_path / "shop", broken)
    with monkeypatch.context() as patch:
        if moment == "judging":
            patch.setattr(replay.BatchWorker, "explain", kill)
        elif moment == "staging":
            patch.setattr(replay, "_update_reasons", kill)
        elif moment == "staged":
            patch.setattr(replay, "move_in", kill)
        else:
            patch.setattr(commits.shutil, "rmtree", kill)
        with pytest.raises(Killed):
            replay.replay(shop.home, shop.ledger, RULES)
    replay.replay(shop.home, Ledger(shop.ledger.path), RULES)
    assert state(shop) == state(landed(tmp_path / "never", RULES))


def test_an_empty_quarantine_has_nothing_to_replay(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    assert replay.replay(shop.home, shop.ledger, RULES) == Replayed()


def test_kinds_of_failure_count_every_line(tmp_path: Path, broken: Rules) -> None:
    shop = landed(tmp_path / "shop", broken)
    found = kinds(shop.home)
    assert sum(kind.rows for kind in found) == len(shop.quarantined())
    assert [kind.rows for kind in found] == sorted((kind.rows for kind in found), reverse=True)
    [dear] = [kind for kind in found if kind.reasons == "above_maximum $.properties.price"]
    assert dear.event == "product_view" and dear.attempts == 1
    assert f"{dear.first_seen:%Y-%m-%d}" == DAYS[0]


def test_one_kind_in_detail_shows_lines_only_when_asked(tmp_path: Path, broken: Rules) -> None:
    shop = landed(tmp_path / "shop", broken)
    wanted = next(kind for kind in kinds(shop.home) if kind.event == "purchase")
    found = detail(shop.home, wanted.fingerprint[:6])
    assert found.kind == wanted and list(payloads(shop.home, wanted.fingerprint, 0)) == []
    assert [(r["code"], r["path"], r["expected"], r["rows"]) for r in found.reasons] == [
        ("below_minimum", "$.properties.quantity", "1", 1)
    ]
    assert [(source.partition("#")[0], rows) for source, rows, _ in found.places] == [("b.jsonl.gz", 1)]
    [line] = payloads(shop.home, wanted.fingerprint[:6], 3)
    assert '"quantity": 0' in line


@pytest.mark.parametrize(("prefix", "said"), [("zz", "nothing in quarantine begins"), ("", "kinds of failure begin")])
def test_a_prefix_that_is_not_one_kind_is_refused(tmp_path: Path, broken: Rules, prefix: str, said: str) -> None:
    shop = landed(tmp_path / "shop", broken)
    with pytest.raises(InputError, match=said):
        detail(shop.home, prefix)


def test_the_diff_says_what_a_replay_would_do(tmp_path: Path, broken: Rules) -> None:
    shop = landed(tmp_path / "shop", broken)
    shop.consent(*(("u2", purpose, "denied", "2026-01-01T00:00:00Z") for purpose in BOTH))
    before = state(shop)
    found = replay.diff(shop.home, shop.ledger, RULES)
    assert state(shop) == before
    done = replay.replay(shop.home, shop.ledger, RULES)
    rows = {now: sum(c.rows for c in found if c.now == now) for now in ("accepted", "suppressed")}
    assert rows == {"accepted": done.accepted, "suppressed": done.suppressed}
    assert sum(change.rows for change in found) == done.rows
    assert sum(change.rows for change in found if change.was == change.now) == done.quarantined


def test_the_diff_calls_exempt_what_a_replay_would_exempt(tmp_path: Path) -> None:
    """Under a new plan the event has another consent, of which the person said nothing, and is exempt in one country."""
    timing = RULES.plan.events["page_timing"]
    as_text = timing.properties["load_ms"].model_copy(update={"type": "string", "min": None, "max": None})
    wrong = timing.model_copy(update={"properties": timing.properties | {"load_ms": as_text}})
    old = replace(RULES, plan=replace(RULES.plan, events=RULES.plan.events | {"page_timing": wrong}))
    shop = Shop(tmp_path, old)
    lines = [
        event("page_timing", {"page": "/", "load_ms": 1.5}, event_id=f"e-{n}", user_id=f"u-{n}", context={"country": country},
              consent={"analytics": True} | said)
        for n, (country, said) in enumerate([
            ("FR", {}), ("FR", {}), ("DE", {}), ("FR", {"personalization": True}), ("FR", {"personalization": False})
        ])
    ]  # fmt: skip
    shop.land("a.jsonl", lines)
    assert shop.ingest().total.quarantined == len(lines)
    rule = Exemption(event="page_timing", countries=("FR",), legal_reference="a guideline")
    privacy = RULES.plan.privacy.model_copy(update={"exemptions": (rule,)})
    other = timing.model_copy(update={"consent_category": "personalization"})
    new = replace(RULES, plan=replace(RULES.plan, events=RULES.plan.events | {"page_timing": other}, privacy=privacy))
    found = replay.diff(shop.home, shop.ledger, new)
    assert {change.now: change.rows for change in found} == {"exempt": 2, "accepted": 1, "suppressed": 2}
    done = replay.replay(shop.home, shop.ledger, new)
    assert (done.accepted, done.suppressed) == (3, 2)
    assert shop.query("SELECT accepted, exempt, suppressed FROM ingested_files") == [(3, 2, 2)]


def test_discarded_lines_are_gone_and_why_is_recorded(tmp_path: Path, broken: Rules) -> None:
    shop = landed(tmp_path / "shop", broken)
    [wanted] = [kind for kind in kinds(shop.home) if kind.event == "purchase"]
    others = [row for row in shop.quarantined() if row["fingerprint"] != wanted.fingerprint]
    counts = state(shop)["files"]
    before = sorted((path, path.read_bytes()) for path in shop.home.lake.rglob("*.parquet"))
    assert replay.discard(shop.home, shop.ledger, wanted.fingerprint, "is it?", dry_run=True) == wanted.rows
    assert sorted((path, path.read_bytes()) for path in shop.home.lake.rglob("*.parquet")) == before
    assert shop.query("SELECT count(*) FROM discards") == [(0,)]
    assert replay.discard(shop.home, shop.ledger, wanted.fingerprint, "test traffic") == wanted.rows
    assert shop.quarantined() == others and state(shop)["files"] == counts
    assert shop.query("SELECT fingerprint, rows, reason FROM discards") == [
        (wanted.fingerprint, wanted.rows, "test traffic")
    ]
    with pytest.raises(InputError, match="nothing in quarantine"):
        replay.discard(shop.home, shop.ledger, wanted.fingerprint, "again")


def test_staging_is_rebuilt_from_the_first_date_that_a_replay_touched(tmp_path: Path, broken: Rules) -> None:
    shop = landed(tmp_path / "shop", broken)
    con = open_engine(None, shop.home, threads=1, memory_limit="300MB")

    def first_date() -> date:
        as_of = datetime(2026, 3, 9, tzinfo=UTC)
        found = prepare(con, shop.home, shop.ledger, PLAN, build="x", as_of=as_of, max_lateness_days=30).rebuild_from
        mark_staged(con, "x")
        return found

    first_date()
    assert first_date() == NOTHING_NEW
    found = replay.replay(shop.home, shop.ledger, RULES)
    assert first_date() == min(found.touched_dates)
    assert first_date() == NOTHING_NEW
    con.close()


def fixes(tmp_path: Path, *entries: dict[str, Any]) -> Fixes:
    path = tmp_path / "fixes.yaml"
    path.write_text(
        yaml.safe_dump({"version": "1-0-0", "owner": "a@b.c", "reason": "release 4.5", "fixes": list(entries)})
    )
    return load_fixes(path)


def test_fixed_lines_are_accepted_and_the_others_stay_as_they_came(tmp_path: Path) -> None:
    shop = landed(tmp_path / "shop", RULES)
    came = {row["payload_raw"] for row in shop.quarantined()}
    mend = fixes(
        tmp_path, {"event": "product_view", "cast": {"price": "number"}}, {"event": "purchase", "drop": ["order_id"]}
    )
    said = replay.diff(shop.home, shop.ledger, RULES, fixes=mend)
    done = replay.replay(shop.home, shop.ledger, RULES, fixes=mend)
    assert done.accepted == sum(change.rows for change in said if change.now == "accepted") == 3
    assert {str(row["price"]) for row in shop.accepted() if row["event_id"] in ("v3", "v7", "v11")} == {"7.0000"}
    [left] = shop.quarantined()
    assert left["event"] == "purchase" and left["payload_raw"] in came and left["attempts"] == 2
    assert "release 4.5" in shop.query("SELECT fixes FROM replays")[0][0]


@pytest.mark.parametrize(
    ("fix", "before", "after"),
    [
        ({"rename": {"prize": "price"}}, {"prize": 5}, {"price": 5}),
        ({"rename": {"prize": "price"}}, {"prize": 5, "price": 6}, {"prize": 5, "price": 6}),
        ({"cast": {"price": "number"}}, {"price": "9.50"}, {"price": 9.5}),
        ({"cast": {"price": "number"}}, {"price": "nan"}, {"price": "nan"}),
        ({"cast": {"price": "number"}}, {"price": "1_000"}, {"price": "1_000"}),
        ({"cast": {"price": "number"}}, {"price": "NaN"}, {"price": "NaN"}),
        ({"cast": {"quantity": "integer"}}, {"quantity": "2"}, {"quantity": 2}),
        ({"cast": {"quantity": "integer"}}, {"quantity": 2.0}, {"quantity": 2}),
        ({"cast": {"quantity": "integer"}}, {"quantity": "2.5"}, {"quantity": "2.5"}),
        ({"cast": {"quantity": "integer"}}, {"quantity": True}, {"quantity": True}),
        ({"cast": {"product_id": "string"}}, {"product_id": 17}, {"product_id": "17"}),
        ({"cast": {"product_id": "string"}}, {"product_id": None}, {"product_id": None}),
        ({"cast": {"gift": "boolean"}}, {"gift": "TRUE"}, {"gift": True}),
        ({"cast": {"gift": "boolean"}}, {"gift": "maybe"}, {"gift": "maybe"}),
        ({"default": {"currency": "EUR"}}, {"currency": None}, {"currency": "EUR"}),
        ({"default": {"currency": "EUR"}}, {"currency": "USD"}, {"currency": "USD"}),
        ({"drop": ["colour"]}, {"colour": 1, "price": 2}, {"price": 2}),
        ({"rename": {"a": "b"}, "cast": {"b": "integer"}, "default": {"c": 1}, "drop": ["b"]}, {"a": "1"}, {"c": 1}),
    ],
)
def test_one_fix(tmp_path: Path, fix: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> None:
    found = fixes(tmp_path, {"event": "e"} | fix)
    line = json.dumps({"event": "e", "event_id": "1", "properties": before})
    assert json.loads(found.apply(line, "e", "f"))["properties"] == after
    assert found.apply(line, "other", "f") == line
    assert fixes(tmp_path, {"event": "e", "fingerprint": "g"} | fix).apply(line, "e", "f") == line


def test_a_fix_that_changes_nothing_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fixes.yaml:\d+.*changes nothing"):
        fixes(tmp_path, {"event": "e"})


@pytest.mark.parametrize("value", [date(2026, 1, 1), float("nan"), [1]])
def test_a_default_that_json_cannot_carry_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputError, match=r"fixes.yaml:\d+"):
        fixes(tmp_path, {"event": "e", "default": {"x": value}})
