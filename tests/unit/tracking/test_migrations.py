"""Old partitions under a changed plan: every declared cast against hand-worked values, refusals, there and back."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from event_lines import RULES, Shop, event
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking.audit import audit_accepted
from zantara_pipeline.tracking.lint import lint
from zantara_pipeline.tracking.migrations import event_files_sql, refuse_unread_types, remember_types, stored_types
from zantara_pipeline.tracking.plan import EventPlan, TrackingPlan, load_plan, load_plan_folder
from zantara_pipeline.tracking.plan_diff import changes, unread_changes
from zantara_pipeline.tracking.sources import fingerprint, prepare

LINE = 6  # where the type of `weight` stands in the files below


def contracts(root: Path, version: str, migrations: Sequence[dict[str, Any]] = (), **properties: Any) -> Path:
    """A folder that declares the event `parcel_sent` with these properties."""
    entry = {"event": "parcel_sent", "version": version, "consent_category": "analytics", "properties": properties}
    folder = root / f"contracts-{len(list(root.glob('contracts-*')))}"
    (folder / "tracking_plan").mkdir(parents=True)
    text = yaml.safe_dump(entry | ({"migrations": list(migrations)} if migrations else {}), sort_keys=False)
    (folder / "tracking_plan" / "parcel_sent.yaml").write_text(text)
    return folder


def retyped(before: str, after: str, since: str = "2-0-0", **how: Any) -> dict[str, Any]:
    return {"property": "weight", "from": before, "to": after, "since": since} | how


class Post:
    """A shop whose event changes its plan now and then."""

    def __init__(self, root: Path) -> None:
        self.root, self.shop, self.number = root, Shop(root / "home"), 0

    def plan(self, folder: Path) -> TrackingPlan:
        return load_plan([PACKAGED, folder])

    def take(self, folder: Path, *properties: dict[str, Any]) -> TrackingPlan:
        """Ingest one line for each, on a day of its own, under that plan."""
        plan = self.plan(folder)
        self.shop.rules = replace(RULES, plan=plan)
        self.number += 1
        when = f"2026-03-{self.number:02d}T10:00:00Z"
        lines = [
            event("parcel_sent", found, event_id=f"{self.number}-{n}", timestamp=when, received_at=when)
            for n, found in enumerate(properties)
        ]
        self.shop.land(f"{self.number:02d}.jsonl", lines)
        self.shop.ingest()
        return plan

    def read(self, plan: TrackingPlan, columns: str = "weight") -> list[Any]:
        """What dbt is handed, in the order of landing."""
        con = duckdb.connect()
        try:
            as_of = datetime(2026, 3, 20, tzinfo=UTC)
            prepare(con, self.shop.home, self.shop.ledger, plan, build="b", as_of=as_of, max_lateness_days=30)
            rows = con.execute(f"SELECT {columns} FROM lake.parcel_sent ORDER BY source, line_no").fetchall()
            return [row[0] if len(row) == 1 else row for row in rows]
        finally:
            con.close()


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path)


PRICES = ["7", " 7.50 ", "-3", "1e2", "7,50", "", "nan", "Infinity", "1_000", "0x1f", "1e999", "1.00005"]
MONEY = ["7.0000", "7.5000", "-3.0000", "100.0000", None, None, None, None, None, None, None, "1.0001"]
NUMBERS = [7.0, 7.5, -3.0, 100.0, None, None, None, None, None, None, None, 1.00005]


@pytest.mark.parametrize(
    ("before", "after", "cast", "old", "read"),
    [
        ("string", "money", None, PRICES, [None if v is None else Decimal(v) for v in MONEY]),
        ("string", "number", "parse", PRICES, NUMBERS),
        ("string", "integer", "parse", ["7", "7.0", "7.5", "+3", "1e2", str(2**63), str(-(2**63))],
         [7, 7, None, 3, None, None, -(2**63)]),
        ("string", "boolean", "parse", ["true", "FALSE", " True", "1", "yes"], [True, False, True, None, None]),
        ("number", "integer", "round", [2.5, 2.4, -2.5, 1e300], [3, 2, -3, None]),
        ("number", "integer", "trunc", [2.9, -2.9, 3], [2, -2, 3]),
        ("money", "integer", "round", [2.5, 2.4999], [3, 2]),
        ("money", "integer", "trunc", [2.9999, -2.9], [2, -2]),
        ("number", "money", "round", [1.00005, 19.9, 1e300], [Decimal("1.0001"), Decimal("19.9"), None]),
        ("integer", "number", None, [7, -1], [7.0, -1.0]),
        ("integer", "money", None, [7, 10**15], [Decimal(7), None]),
        ("money", "number", None, [7.25], [7.25]),
        ("integer", "string", None, [7, -1], ["7", "-1"]),
        ("money", "string", None, [7.5, 100, 0, 0.05], ["7.5", "100", "0", "0.05"]),
        ("number", "string", "text", [7.5], ["7.5"]),
        ("boolean", "string", "text", [True, False], ["true", "false"]),
        ("boolean", "number", "forget", [True, False], [None, None]),
        ("string", "money", "forget", ["7"], [None]),
    ],
)  # fmt: skip
def test_values_of_an_old_partition_have_the_new_type(
    post: Post, before: str, after: str, cast: str | None, old: list[Any], read: list[Any]
) -> None:
    post.take(
        contracts(post.root, "1-0-0", weight={"type": before}), *({"weight": v} for v in old), {}, {"weight": None}
    )
    how = {} if cast is None else {"cast": cast}
    new = {"string": "as text", "number": 0.5, "integer": 5, "boolean": True, "money": 0.25}[after]
    plan = post.take(
        contracts(post.root, "2-0-0", [retyped(before, after, **how)], weight={"type": after}), {"weight": new}
    )
    assert len(post.shop.accepted()) == len(old) + 3
    assert post.read(plan) == [*read, None, None, Decimal(str(new)) if after == "money" else new]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.decimals(-(10**9), 10**9, places=6), st.text("0123456789.,-+e _", max_size=8)), min_size=1)
)
def test_text_becomes_money_as_decimals_would(values: list[Any]) -> None:
    texts = [str(value) for value in values]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "event=e" / "received_date=2026-03-01" / "a.parquet"
        path.parent.mkdir(parents=True)
        con = duckdb.connect()
        con.execute("CREATE TABLE t AS SELECT unnest(?::VARCHAR[]) AS weight", [texts])
        con.execute(f"COPY t TO '{path}' (FORMAT parquet)")
        plan = EventPlan.model_validate(
            {"event": "e", "version": "2-0-0", "properties": {"weight": {"type": "money"}},
             "migrations": [retyped("string", "money")]}
        )  # fmt: skip
        [sql] = event_files_sql(plan, [path])
        found = [row[0] for row in con.execute(f"SELECT weight FROM ({sql})").fetchall()]
        con.close()
    expected = []
    for text in texts:
        number = Decimal(text.strip(" ")) if re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", text.strip(" ")) else None
        if number is not None:
            number = None if abs(number) >= 10**14 else number.quantize(Decimal("0.0001"), ROUND_HALF_UP)
        expected.append(number)
    assert found == expected


def test_a_value_that_does_not_convert_takes_the_default_and_null_stays_null(post: Post) -> None:
    post.take(contracts(post.root, "1-0-0", weight={"type": "string"}), {"weight": "12"}, {"weight": "heavy"}, {})
    plan = post.plan(contracts(post.root, "2-0-0", [retyped("string", "money", default=-1)], weight={"type": "money"}))
    assert post.read(plan) == [Decimal(12), Decimal(-1), None]


def test_retyped_there_and_back_is_read_as_it_was_written(post: Post) -> None:
    there, back = retyped("string", "money"), retyped("money", "string", "3-0-0")
    post.take(contracts(post.root, "1-0-0", weight={"type": "string"}), {"weight": "7.50"}, {"weight": "heavy"})
    post.take(contracts(post.root, "2-0-0", [there], weight={"type": "money"}), {"weight": 7.5})
    plan = post.take(contracts(post.root, "3-0-0", [there, back], weight={"type": "string"}), {"weight": "9 kg"})
    assert post.read(plan) == ["7.50", "heavy", "7.5", "9 kg"]
    on = retyped("string", "number", "4-0-0")
    plan = post.take(contracts(post.root, "4-0-0", [there, back, on], weight={"type": "number"}), {"weight": 1})
    assert post.read(plan) == [7.5, None, 7.5, None, 1.0]


def test_changes_of_one_property_follow_each_other(post: Post) -> None:
    first, then = retyped("string", "number"), retyped("number", "integer", "3-0-0", cast="trunc")
    post.take(contracts(post.root, "1-0-0", weight={"type": "string"}), {"weight": "7.9"}, {"weight": "heavy"})
    post.take(contracts(post.root, "2-0-0", [first], weight={"type": "number"}), {"weight": 3.7})
    plan = post.take(contracts(post.root, "3-0-0", [first, then], weight={"type": "integer"}), {"weight": 2})
    assert post.read(plan) == [7, None, 3, 2]


def test_files_of_one_day_may_have_several_types(post: Post) -> None:
    post.take(contracts(post.root, "1-0-0", weight={"type": "string"}), {"weight": "7"})
    new = contracts(post.root, "2-0-0", [retyped("string", "integer")], weight={"type": "integer"})
    post.shop.rules = replace(RULES, plan=post.plan(new))
    line = event("parcel_sent", {"weight": 8}, timestamp="2026-03-01T10:00:00Z", received_at="2026-03-01T10:00:00Z")
    post.shop.land("02.jsonl", [line])
    post.shop.ingest()
    days = {path.parent.name for path in post.shop.home.accepted.glob("event=parcel_sent/*/*.parquet")}
    assert len(days) == 1 and post.read(post.plan(new)) == [7, 8]
    audit = audit_accepted(post.shop.home, post.plan(new))
    assert (audit.rows, audit.problems) == (1, [])


def test_a_renamed_property_is_read_under_its_new_name(post: Post) -> None:
    renamed = {"property": "weight", "renamed_from": "wieght", "since": "2-0-0"}
    post.take(contracts(post.root, "1-0-0", wieght={"type": "string"}), {"wieght": "7"}, {})
    plan = post.take(contracts(post.root, "2-0-0", [renamed], weight={"type": "string"}), {"weight": "8"})
    assert post.read(plan) == ["7", None, "8"]
    both = [renamed, retyped("string", "integer", "3-0-0")]
    plan = post.take(contracts(post.root, "3-0-0", both, weight={"type": "integer"}), {"weight": 9})
    assert post.read(plan) == [7, None, 8, 9]


def test_a_removed_property_is_not_read_and_an_added_one_is_null(post: Post) -> None:
    post.take(contracts(post.root, "1-0-0", weight={"type": "string"}, fragile={"type": "boolean"}), {"weight": "7"})
    plan = post.take(contracts(post.root, "2-0-0", zone={"type": "integer"}), {"zone": 3})
    assert post.read(plan, "zone, event_id") == [(None, "1-0"), (3, "2-0")]
    with pytest.raises(duckdb.Error, match="weight"):
        post.read(plan)
    again = post.take(contracts(post.root, "3-0-0", weight={"type": "string"}), {"weight": "9"})
    assert post.read(again) == ["7", None, "9"]


# Refusals


def test_a_type_that_changed_without_a_migration_is_refused_with_file_and_line(post: Post) -> None:
    post.take(contracts(post.root, "1-0-0", weight={"type": "string"}), {"weight": "7"})
    wrong = contracts(post.root, "2-0-0", weight={"type": "money"})
    path = wrong / "tracking_plan" / "parcel_sent.yaml"
    assert path.read_text().splitlines()[LINE - 1].strip() == "type: money"
    with pytest.raises(InputError) as refused:
        refuse_unread_types(post.shop.home, post.plan(wrong), [PACKAGED, wrong])
    said = str(refused.value)
    assert f"{path}:{LINE}" in said and "\n" not in said
    assert "parcel_sent.weight is money in the plan and string in the lake (day 2026-03-01)" in said
    assert "declare the change under 'migrations'" in said
    [found] = [f for f in lint([PACKAGED, wrong], threads=1, home=post.shop.home) if "in the lake" in f.message]
    assert (found.file, found.line) == (str(path), LINE)
    assert found.level == "error"


def test_nothing_is_taken_and_nothing_lost_when_a_run_or_a_replay_is_refused(
    post: Post, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    post.take(contracts(post.root, "1-0-0", weight={"type": "string"}), {"weight": "7"}, {"weight": 8})
    before = post.shop.everything()
    wrong = contracts(post.root, "2-0-0", weight={"type": "money"})
    post.shop.land("new.jsonl", [event("parcel_sent", {"weight": 9})])
    monkeypatch.setenv("ZANTARA_HOME", str(post.shop.home.root))
    monkeypatch.setenv("ZANTARA_CONTRACTS", str(wrong))
    for command in (["run"], ["quarantine", "replay"]):
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, InputError) and "is money in the plan and string in the lake" in str(
            done.exception
        )
    assert post.shop.everything() == before
    right = contracts(post.root, "2-0-0", [retyped("string", "money")], weight={"type": "money"})
    monkeypatch.setenv("ZANTARA_CONTRACTS", str(right))
    assert CliRunner().invoke(app, ["quarantine", "replay"], catch_exceptions=False).exit_code == 0
    assert post.read(post.plan(right)) == [Decimal(7), Decimal(8)]


def test_footers_are_read_only_when_the_types_of_an_event_changed(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    old = contracts(post.root, "1-0-0", weight={"type": "string"})
    plan = post.take(old, {"weight": "7"})
    looked: list[Path] = []

    def look(path: Path) -> dict[str, str]:
        looked.append(path)
        return stored_types(path)

    monkeypatch.setattr("zantara_pipeline.tracking.migrations.stored_types", look)
    refuse_unread_types(post.shop.home, plan, [old])
    assert len(looked) == 1
    remember_types(post.shop.ledger, plan)
    refuse_unread_types(post.shop.home, plan, [old])
    assert len(looked) == 1
    new = contracts(post.root, "2-0-0", [retyped("string", "number")], weight={"type": "number"})
    refuse_unread_types(post.shop.home, post.plan(new), [new])
    assert len(looked) == 2
    refuse_unread_types(Shop(post.root / "other").home, plan, [old])
    assert len(looked) == 2


def test_a_migration_changes_the_build(post: Post) -> None:
    plain = post.plan(contracts(post.root, "2-0-0", weight={"type": "money"}))
    declared = post.plan(contracts(post.root, "2-0-0", [retyped("string", "money")], weight={"type": "money"}))
    assert fingerprint(plain, []) != fingerprint(declared, [])


@pytest.mark.parametrize(
    ("migration", "weight", "said"),
    [
        (retyped("string", "money", since="3-0-0"), {"type": "money"}, "is after the event's version"),
        (retyped("string", "money") | {"property": "height"}, {"type": "money"}, "'height' is no property"),
        (retyped("string", "number"), {"type": "money"}, "ends at number, its type is money"),
        (retyped("number", "integer"), {"type": "integer"}, "'cast' is round or trunc or forget"),
        (retyped("boolean", "money"), {"type": "money"}, "'cast' is forget"),
        (retyped("string", "money", cast="trunc"), {"type": "money"}, "by 'trunc': parse, forget"),
        (retyped("string", "string"), {"type": "string"}, "the type does not change"),
        (retyped("string", "money"), {"type": "money", "required": True}, "say with 'default'"),
        (retyped("string", "money", default="none"), {"type": "money"}, "'default' is no money"),
        (retyped("string", "integer", default=True), {"type": "integer"}, "'default' is no integer"),
        (retyped("string", "money", cast="guess"), {"type": "money"}, "Input should be"),
        (retyped("string", "money", rounding="up"), {"type": "money"}, "unknown key"),
        ({"property": "weight", "since": "2-0-0"}, {"type": "money"}, "either 'from' and 'to'"),
        ({"property": "weight", "since": "2-0-0", "from": "string"}, {"type": "money"}, "either 'from' and 'to'"),
        ({"property": "weight", "since": "2-0-0", "renamed_from": "zone"}, {"type": "money"}, "is still a property"),
        ({"property": "weight", "since": "2-0-0", "renamed_from": "w", "cast": "text"}, {"type": "money"}, "by itself"),
    ],
)
def test_a_migration_that_cannot_be_is_refused(post: Post, migration: Any, weight: Any, said: str) -> None:
    wrong = contracts(post.root, "2-0-0", [migration], weight=weight, zone={"type": "string"})
    with pytest.raises(InputError) as refused:
        post.plan(wrong)
    assert said in str(refused.value) and "parcel_sent.yaml:" in str(refused.value)


def test_changes_that_do_not_follow_each_other_are_refused(post: Post) -> None:
    pairs = [
        ([retyped("string", "number"), retyped("number", "money", "2-0-0")], "not after 2-0-0"),
        ([retyped("string", "number"), retyped("string", "money", "3-0-0")], "the change before it ends at number"),
    ]
    for migrations, said in pairs:
        with pytest.raises(InputError, match=said):
            post.plan(contracts(post.root, "3-0-0", migrations, weight={"type": "money"}))


# zantara plan diff


@pytest.fixture
def diffed(post: Post, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("ZANTARA_HOME", str(post.shop.home.root))

    def diff(*migrations: dict[str, Any], **properties: Any) -> tuple[int, dict[str, Any], str]:
        old = contracts(post.root, "1-0-0", weight={"type": "string"})
        new = contracts(post.root, "2-0-0", migrations, **properties)
        machine = CliRunner().invoke(app, ["plan", "diff", str(old), str(new), "--json"])
        person = CliRunner().invoke(app, ["plan", "diff", str(old), str(new)])
        assert machine.exit_code == person.exit_code
        return person.exit_code, json.loads(machine.output), person.output

    yield diff


def test_the_diff_says_whether_a_migration_covers_a_change_of_type(diffed: Any) -> None:
    code, found, said = diffed(weight={"type": "money"})
    assert code == 1 and "no migration says how older partitions are read" in said
    assert f"parcel_sent.yaml:{LINE}: parcel_sent.weight is money in the plan and string in the old plan" in said
    assert [(u["event"], u["name"]) for u in found["unread"]] == [("parcel_sent", "weight")]
    code, found, said = diffed(retyped("string", "money"), weight={"type": "money"})
    assert (code, found["unread"]) == (0, [])
    assert "type string becomes money (older partitions are read by migration: parse) (BREAKING, model)" in said


def test_the_diff_knows_a_renamed_property(diffed: Any) -> None:
    renamed = {"property": "mass", "renamed_from": "weight", "since": "2-0-0"}
    code, _, said = diffed(renamed, mass={"type": "string"})
    assert code == 0 and "property renamed to mass" in said
    code, _, said = diffed(renamed, mass={"type": "money"})
    assert code == 1 and "parcel_sent.mass is money in the plan and string in the old plan" in said


def test_the_packaged_plan_needs_no_migration_of_itself() -> None:
    plan = load_plan_folder(PACKAGED)
    assert changes(plan, plan) == [] and unread_changes(plan, plan) == []
