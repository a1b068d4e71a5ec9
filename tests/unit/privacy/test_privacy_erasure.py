"""Erasure of a person from a home without tables and models: found before in every store, nowhere after, nobody else touched.

The proof of the test is its own: it decompresses and decodes the few formats that lie here and looks for the ids as text.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from event_lines import PLAN, Shop, event
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.errors import InputError
from zantara_pipeline.orchestration.erasure import hands
from zantara_pipeline.privacy import decoding, erasure
from zantara_pipeline.settings import Settings

GONE, STAYS = "u-gone", "u-stays"
IDS = {GONE, "a-own", "d-own"}


def line(number: int, user: str | None, properties: Any = None, **keys: Any) -> dict[str, Any]:
    return event("product_view", properties, user_id=user, event_id=f"e-{number}", **keys)


LINES: list[Any] = [
    line(1, GONE, anonymous_id="a-own", device_id="d-own"),
    line(2, None, anonymous_id="a-own"),
    line(3, None, device_id="d-own"),
    line(4, GONE, anonymous_id="a-shared", device_id="d-shared"),
    line(5, STAYS, anonymous_id="a-shared", device_id="d-shared"),
    line(6, None, device_id="d-shared"),
    line(7, GONE, consent=None),
    line(8, GONE, consent="perhaps"),
    line(9, GONE, {"product_id": 1}),
    line(10, STAYS, {"product_id": 1}),
    line(11, STAYS, {"product_id": "p-2", "brand": GONE}),
    "no JSON: u-gone",
    "no JSON",
]


def texts(home: Path) -> Iterator[str]:
    """Everything below a home, decoded."""
    for path in (path for path in sorted(home.rglob("*")) if path.is_file()):
        if path.suffix == ".parquet":
            yield str(
                duckdb.execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [str(path)]).fetchall()
            )
        elif path.suffix == ".gz":
            yield gzip.decompress(path.read_bytes()).decode()
        elif path.suffix == ".db":
            with closing(sqlite3.connect(path)) as db:
                for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    yield str(db.execute(f"SELECT * FROM {table}").fetchall())
        yield path.read_bytes().decode("latin-1")


def found_in(home: Path) -> set[str]:
    return {one for one in IDS for text in texts(home) if one in text}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path / "home")
    shop.land("a.jsonl", LINES)
    shop.land("b.jsonl.gz", [line(20, GONE), line(21, STAYS)])
    (shop.home.landing / "consent").mkdir()
    consent = "user_id,purpose,status,effective_from\n" + "".join(
        f"{user},analytics,granted,2026-01-01T00:00:00Z\n" for user in (GONE, STAYS)
    )
    (shop.home.landing / "consent" / "consent.csv").write_text(consent)
    shop.consent(
        (GONE, "analytics", "granted", "2026-01-01T00:00:00Z"), (STAYS, "analytics", "granted", "2026-01-01T00:00:00Z")
    )
    shop.ingest()
    return shop


def work(shop: Shop) -> erasure.Hands:
    return hands(Settings(home=shop.home.root), shop.home, shop.ledger, PLAN)


def erase(shop: Shop, *users: str) -> erasure.Receipt:
    return erasure.erase(shop.home, shop.ledger, work(shop), erasure.look(shop.home, shop.ledger, work(shop), users))


def run(shop: Shop, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ZANTARA_HOME", str(shop.home.root))
    return CliRunner().invoke(app, ["privacy", *arguments])


def test_a_person_is_found_everywhere_before_and_nowhere_after(shop: Shop) -> None:
    assert found_in(shop.home.root) == IDS
    receipt = erase(shop, GONE)
    assert found_in(shop.home.root) == set()
    assert (receipt.status, receipt.people, receipt.anonymous_ids, receipt.devices) == ("complete", 1, 1, 1)
    held = {store.store for store in receipt.stores if store.hits_before}
    assert held == {
        "landing", "accepted events", "quarantine", "lines with unreadable consent", "unparsable lines", "state ledger",
    }  # fmt: skip
    assert receipt.hits_before > 20 and receipt.hits_after == 0
    kept = json.loads((shop.home.receipts / f"{receipt.erasure_id}.json").read_text())
    assert kept["status"] == "complete" and not any(one in json.dumps(kept) for one in IDS)


def test_nobody_else_is_touched(shop: Shop) -> None:
    erase(shop, GONE)
    rows = [(row["user_id"], row["anonymous_id"], row["device_id"], row["brand"]) for row in shop.accepted()]
    assert rows == [
        (STAYS, "a-shared", "d-shared", None), (None, None, "d-shared", None), (STAYS, None, None, None), (STAYS, None, None, None),
    ]  # fmt: skip
    assert [row["line_no"] for row in shop.quarantined()] == [10] and [row["line_no"] for row in shop.unparsable()] == [
        13
    ]
    assert {row[0] for row in shop.query("SELECT user_id FROM consent")} == {STAYS}
    landed = (shop.landing / "a.jsonl").read_text().splitlines()
    assert landed == [LINES[n] if isinstance(LINES[n], str) else json.dumps(LINES[n]) for n in (4, 5, 9, 12)]


def test_files_balance_and_are_not_taken_twice(shop: Shop) -> None:
    erase(shop, GONE)
    counts = "SELECT rows_in, unparsable, suppressed, quarantined, accepted, erased FROM ingested_files ORDER BY file"
    assert shop.query(counts) == [(13, 1, 8, 1, 3, 7), (2, 0, 1, 0, 1, 1)]
    assert shop.query("SELECT sum(rows) FROM quarantine_reasons") == [(1,)]
    assert shop.ingest().known == 2 and shop.query(counts) == [(13, 1, 8, 1, 3, 7), (2, 0, 1, 0, 1, 1)]


def test_what_lands_later_is_counted_and_not_stored(shop: Shop) -> None:
    erase(shop, GONE)
    new = [
        line(30, GONE), line(31, None, anonymous_id="a-own"), line(32, "guest", device_id="d-own"),
        line(33, "u-new", device_id="d-own"), line(34, STAYS, {"product_id": 7, "usre_id": GONE}), "broken u-gone",
        line(35, [GONE]), line(36, GONE, consent={"analytics": False}),
    ]  # fmt: skip
    shop.land("later.jsonl", new)
    total = shop.ingest().total
    assert (total.rows_in, total.accepted, total.suppressed, total.erased, total.quarantined) == (8, 1, 7, 7, 0)
    shop.landing.joinpath("later.jsonl").unlink()
    assert found_in(shop.home.root) == {"d-own"}, "which is somebody else's now"
    shop.consent((GONE, "analytics", "granted", "2026-05-01T00:00:00Z"))
    assert shop.query("SELECT count(*) FROM consent WHERE user_id = 'u-gone'") == [(0,)]


def test_a_control_that_finds_nobody_refuses(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(decoding._DECODERS, ".parquet", lambda path, matcher: 0)
    with pytest.raises(InputError, match="'accepted events', which holds 3 values"):
        erasure.look(shop.home, shop.ledger, work(shop), [GONE])
    assert found_in(shop.home.root) == IDS


class Killed(BaseException):
    pass


def test_an_erasure_that_is_killed_while_they_are_looked_for_is_finished(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look takes as long as to read the home; who asked does not have to ask again."""

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(erasure, "scan", killed)
        with pytest.raises(Killed):
            erasure.look_to_erase(shop.home, shop.ledger, work(shop), [GONE])
    receipt = erasure.finish_open(shop.home, shop.ledger, work(shop))
    assert receipt is not None and (receipt.status, receipt.people) == ("complete", 1)
    assert found_in(shop.home.root) == set() and not list(shop.home.state.glob("erasure.*.json*"))
    assert erasure.finish_open(shop.home, shop.ledger, work(shop)) is None


def test_who_asked_and_is_not_there_is_forgotten_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not erasure.look_to_erase(shop.home, shop.ledger, work(shop), ["u-nobody"]).people.users
    assert not list(shop.home.state.glob("erasure.*.json*"))
    asked = erasure.asked_file(shop.home)
    asked.write_text('{"users": ["u-nobody"]}')
    assert erasure.finish_open(shop.home, shop.ledger, work(shop)) is None and not asked.exists()
    asked.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        erasure.finish_open(shop.home, shop.ledger, work(shop))
    asked.unlink()
    monkeypatch.setitem(decoding._DECODERS, ".parquet", lambda path, matcher: 0)
    with pytest.raises(InputError, match="which holds 3 values"):
        erasure.look_to_erase(shop.home, shop.ledger, work(shop), [GONE])
    assert not asked.exists(), "nothing was erased, and that was said"


def test_what_is_left_is_not_called_erased_and_stops_the_next_run(shop: Shop) -> None:
    note = shop.home.landing / "note.txt"
    note.write_text("call u-gone\n")
    receipt = erase(shop, GONE)
    assert receipt.status == "incomplete" and receipt.hits_after == 1
    with pytest.raises(InputError, match=r"1 in landing"):
        erasure.finish_open(shop.home, shop.ledger, work(shop))
    note.unlink()
    again = erasure.finish_open(shop.home, shop.ledger, work(shop))
    assert again is not None and again.status == "complete" and again.hits_before == receipt.hits_before
    assert erasure.finish_open(shop.home, shop.ledger, work(shop)) is None and found_in(shop.home.root) == set()


def test_a_file_that_nobody_can_read_leaves_it_unproved(shop: Shop) -> None:
    (shop.landing / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"user_id": "u-x"}\n' * 99)[:-9])
    assert erase(shop, GONE).status == "unproved"


@pytest.mark.parametrize("user", ["'; DROP TABLE consent; --", '" OR 1=1', "%", "17", "anna", "ü-1 2", "a\\b"])
def test_any_text_is_an_id_as_every_other(tmp_path: Path, user: str) -> None:
    shop = Shop(tmp_path / "home")
    shop.land(
        "a.jsonl", [line(1, user), line(2, user, {"product_id": 1}), line(3, user, consent="perhaps"), line(4, "17a")]
    )
    shop.ingest()
    assert erase(shop, user).status == "complete"
    assert [row["user_id"] for row in shop.accepted()] == ["17a"] and not shop.quarantined()
    assert {row[0] for row in shop.query("SELECT user_id FROM consent")} == {"17a"}
    shop.land("b.jsonl", [line(5, user)])
    assert shop.ingest().total.erased == 1


def test_a_number_or_a_word_is_a_person_only_where_ids_of_people_stand(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "home")
    others = [
        line(2, "18", {"product_id": "17"}),
        line(3, "19", {"product_id": "p", "brand": "17"}),
        line(4, "20", {"product_id": 17}),
    ]
    shop.land("a.jsonl", [line(1, "17"), *others])
    shop.ingest()
    erase(shop, "17")
    assert len(shop.accepted()) == 2 and len(shop.quarantined()) == 1
    assert len((shop.landing / "a.jsonl").read_text().splitlines()) == 3


def test_where_people_and_products_have_the_same_ids_only_the_person_goes(tmp_path: Path) -> None:
    """A shop that numbers both and puts one prefix before all: `ml:17` is a person and a film."""
    shop = Shop(tmp_path / "home")
    (shop.home.landing / "items").mkdir()
    (shop.home.landing / "items" / "items.csv").write_text("product_id,title\nml:17,A film\nml:18,Another\n")
    mine = [line(1, "ml:17", {"product_id": "ml:18"}), line(2, "ml:17", {"product_id": "ml:17", "brand": 1})]
    others = [
        line(3, "ml:18", {"product_id": "ml:17"}),
        line(4, "ml:18", {"product_id": "ml:17", "brand": 1}),
        line(5, "ml:19", {"product_id": "ml:17"}, consent=None),
        line(6, "ml:19", {"product_id": "ml:17"}, consent="perhaps"),
    ]
    shop.land("a.jsonl", mine + others)
    shop.ingest()
    receipt = erase(shop, "ml:17")
    assert (receipt.status, receipt.people, receipt.in_fields_only) == ("complete", 1, 1)
    assert [(row["user_id"], row["product_id"]) for row in shop.accepted()] == [("ml:18", "ml:17")]
    assert [row["line_no"] for row in shop.quarantined()] == [4]
    assert (shop.landing / "a.jsonl").read_text().splitlines() == [json.dumps(one) for one in others]
    assert "ml:17,A film" in (shop.home.landing / "items" / "items.csv").read_text()
    later = [line(7, "ml:17"), line(8, "ml:18", {"product_id": "ml:17", "brand": 2}), line(9, 5, {"usre_id": "ml:17"})]
    shop.land("b.jsonl", later)
    total = shop.ingest().total
    assert (total.erased, total.quarantined, total.accepted) == (2, 1, 0)


def test_the_command_says_what_it_found_and_nobodys_id(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    dry = run(shop, "erase", GONE, "--dry-run", "--json", monkeypatch=monkeypatch)
    assert dry.exit_code == 0 and json.loads(dry.stdout)["dry_run"] and found_in(shop.home.root) == IDS
    done = run(shop, "erase", GONE, monkeypatch=monkeypatch)
    assert done.exit_code == 0 and "(complete)" in done.stdout and GONE not in done.output
    again = run(shop, "erase", GONE, monkeypatch=monkeypatch)
    assert again.exit_code == 0 and again.stdout == "erased before: nothing is left of them\n"


def test_an_unknown_person_changes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shop.everything()
    done = run(shop, "erase", "u-never", monkeypatch=monkeypatch)
    assert done.exit_code == 1 and len(done.stderr.splitlines()) == 1
    assert "nothing here names 1 of 1 user ids; nothing was changed" in done.stderr
    assert shop.everything() == before and not shop.home.receipts.exists()
    assert shop.query("SELECT count(*) FROM tombstones") == [(0,)]


def test_a_batch_is_one_erasure(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ids.txt").write_text(f"{GONE}\n{STAYS}\nu-never\n")
    done = run(shop, "erase", "--file", str(tmp_path / "ids.txt"), "--json", monkeypatch=monkeypatch)
    said = json.loads(done.stdout)
    assert done.exit_code == 0 and (said["people"], said["unknown"], said["status"]) == (2, 1, "complete")
    assert (said["anonymous_ids"], said["devices"]) == (2, 2), "what both shared belongs to nobody else"
    assert len(list(shop.home.receipts.glob("*.json"))) == 1 and not shop.accepted()


@pytest.mark.parametrize("arguments", [[], ["guest"], [""], ["u", "--file", "x"]])
def test_a_request_that_names_nobody_is_refused(
    shop: Shop, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(shop, "erase", *arguments, monkeypatch=monkeypatch)
    assert isinstance(done.exception, InputError)


def test_without_the_key_of_its_tombstones_a_home_takes_nothing(shop: Shop) -> None:
    erase(shop, GONE)
    (shop.home.state / "erasure.key").unlink()
    shop.land("later.jsonl", [line(30, "u-new")])
    with pytest.raises(InputError, match=r"erasure.key: people were erased here and the key"):
        shop.ingest()
