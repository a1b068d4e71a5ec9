"""Landed files are taken once, whole, and a run that died leaves nothing that the next one does not put right."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from event_lines import Shop, event, utc, viewed

from zantara_pipeline.storage.inventory import unexplained
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking import ingest as ingest_module
from zantara_pipeline.tracking import reader as reader_module
from zantara_pipeline.tracking.audit import unbalanced_files
from zantara_pipeline.tracking.clock import latest_received_at


class Killed(BaseException):
    """Ends an ingest the way a signal does: nothing catches it."""


def day(number: int, lines: int = 3) -> list[Any]:
    """A day of a shop with every outcome, two kinds of events and a change of mind."""
    when = f"2026-03-{number:02d}T10:00:{{:02d}}Z"
    found: list[Any] = []
    for i in range(lines):
        mind = {"analytics": True, "personalization": (number + i) % 2 == 0}
        common = {
            "timestamp": when.format(i),
            "received_at": when.format(i + 1),
            "user_id": f"u-{i % 3}",
            "consent": mind,
        }
        found.append(event(event_id=f"e-{number}-{i}", **common))
        found.append(event("session_started", {"entry_page": "/"}, event_id=f"s-{number}-{i}", **common))
    return [*found, "not json", viewed(price="5"), event("nobody_knows"), event(consent=None), ""]


def land_all(shop: Shop) -> None:
    shop.land("a.jsonl", day(1))
    shop.land("b.jsonl.gz", day(2))
    shop.land("sub/c.jsonl", day(3))


@pytest.fixture
def small_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a commit of its own."""
    monkeypatch.setattr(ingest_module, "COMMIT_BYTES", 1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    shop = Shop(tmp_path_factory.mktemp("undisturbed"))
    land_all(shop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_module, "COMMIT_BYTES", 1)
        shop.ingest()
    return shop.everything()


def test_the_undisturbed_shop_is_what_was_landed(undisturbed: dict[str, Any]) -> None:
    assert [len(undisturbed[part]) for part in ("accepted", "quarantined", "unparsable", "files")] == [18, 6, 3, 3]
    assert {row["event"] for row in undisturbed["accepted"]} == {"product_view", "session_started"}


def nth(call: int, function: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """The function, dying at its n-th call: before it does anything, or right after it did it."""
    seen = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == call and not after:
            raise Killed
        result = function(*args, **kwargs)
        if seen == call:
            raise Killed
        return result

    return dying


@contextmanager
def dying_transaction(call: int, after: bool) -> Iterator[None]:
    """Ledger.transaction, dying inside the n-th transaction or right after it was committed."""
    original, seen = Ledger.transaction, 0

    @contextmanager
    def transaction(self: Ledger) -> Iterator[Any]:
        nonlocal seen
        seen += 1
        mine = seen
        with original(self) as db:
            yield db
            if mine == call and not after:
                raise Killed
        if mine == call:
            raise Killed

    Ledger.transaction = transaction  # type: ignore[method-assign]
    try:
        yield
    finally:
        Ledger.transaction = original  # type: ignore[method-assign]


def killed(shop: Shop) -> bool:
    try:
        shop.ingest()
    except Killed:
        return True
    return False


def assert_recovered(shop: Shop, wanted: dict[str, Any]) -> None:
    shop.ingest()
    assert shop.ingest().files == {}
    assert shop.everything() == wanted
    assert not shop.home.incoming.exists()
    assert unexplained(shop.home.root) == []
    assert shop.query("SELECT DISTINCT state FROM ingest_commits") == [("done",)]


@pytest.mark.usefixtures("small_commits")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", [1, 3, 6])
def test_killed_while_renaming_into_the_lake(
    tmp_path: Path, undisturbed: dict[str, Any], call: int, after: bool
) -> None:
    shop = Shop(tmp_path)
    land_all(shop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", nth(call, Path.replace, after=after))
        assert killed(shop)
    assert_recovered(shop, undisturbed)


@pytest.mark.usefixtures("small_commits")
@pytest.mark.parametrize("after", [False, True], ids=["inside", "after"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_killed_at_the_ledger(tmp_path: Path, undisturbed: dict[str, Any], call: int, after: bool) -> None:
    shop = Shop(tmp_path)
    land_all(shop)
    with dying_transaction(call, after):
        assert killed(shop)
    assert_recovered(shop, undisturbed)


@pytest.mark.usefixtures("small_commits")
@pytest.mark.parametrize("call", [1, 3])
def test_killed_while_reading(tmp_path: Path, undisturbed: dict[str, Any], call: int) -> None:
    shop = Shop(tmp_path)
    land_all(shop)
    with pytest.MonkeyPatch.context() as patch:
        interrupted = nth(call, reader_module.line_batches)
        for module in (ingest_module, reader_module):
            patch.setattr(module, "line_batches", interrupted)
        assert killed(shop)
    assert_recovered(shop, undisturbed)


@pytest.mark.usefixtures("small_commits")
def test_killed_again_and_again(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    shop = Shop(tmp_path)
    land_all(shop)
    for call in (4, 1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", nth(call, Path.replace, after=True))
            killed(shop)
    assert_recovered(shop, undisturbed)


@pytest.mark.usefixtures("small_commits")
def test_killed_and_more_has_landed_since(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    # the next commit is another set of files, so what the killed one had written beside must not come in as well
    shop = Shop(tmp_path)
    shop.land("a.jsonl", day(1))
    with dying_transaction(1, after=False):
        assert killed(shop)
    land_all(shop)
    assert_recovered(shop, undisturbed)


def test_a_file_is_taken_once_under_any_name(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    first = shop.land("a.jsonl", day(1))
    shop.ingest()
    before = shop.everything()
    shutil.copy(first, shop.landing / "copy.jsonl")
    shop.land("twin.jsonl", day(2))
    shop.land("twin2.jsonl", day(2))
    result = shop.ingest()
    assert (result.known, list(result.files)) == (3, ["twin.jsonl"])
    assert len(shop.accepted()) == 2 * len(before["accepted"])


def test_a_grown_file_is_another_source(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.land("a.jsonl", [event(event_id="1")])
    shop.ingest()
    shop.land("a.jsonl", [event(event_id="1"), event(event_id="2")])
    assert shop.ingest().files["a.jsonl"].accepted == 2
    sources = {(row["event_id"], row["source"]) for row in shop.accepted()}
    assert len(sources) == 3
    assert {source.partition("#")[0] for _, source in sources} == {"a.jsonl"}


def test_a_truncated_file_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.land("a.jsonl", [event(event_id="1")])
    whole = gzip.compress(b"\n".join([b"{}"] * 5000))
    (shop.landing / "b.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    shop.land("c.jsonl.gz", [event(event_id="3")])
    result = shop.ingest()
    assert set(result.files) == {"a.jsonl", "c.jsonl.gz"}
    assert list(result.refused) == ["b.jsonl.gz"]
    assert "truncated or damaged" in result.refused["b.jsonl.gz"] and "\n" not in result.refused["b.jsonl.gz"]
    assert {row["event_id"] for row in shop.accepted()} == {"1", "3"}
    (shop.landing / "b.jsonl.gz").write_bytes(whole)
    result = shop.ingest()
    assert (set(result.files), result.refused) == ({"b.jsonl.gz"}, {})


def test_files_that_say_nothing_are_named(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.land("empty.jsonl", b"")
    shop.land("empty.jsonl.gz", b"")
    shop.land("photo.jsonl", b"\x89PNG\r\n\x1a\n\x00\x00")
    shop.land("suppressed.jsonl", [event(consent=None)])
    notices = shop.ingest().notices
    assert [notice.partition(":")[0] for notice in notices] == ["empty.jsonl", "empty.jsonl.gz", "photo.jsonl"]
    assert shop.accepted() == []


def test_an_empty_landing_folder_is_nothing_to_do(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    result = shop.ingest()
    assert (result.files, result.total.rows_in, result.touched_dates) == ({}, 0, set())
    assert latest_received_at(shop.ledger) is None


def test_the_clock_is_the_latest_receipt_of_an_accepted_event(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.land("a.jsonl", day(1))
    shop.land("b.jsonl", [event(received_at="2026-03-05T00:00:00Z", consent=None)])
    shop.land("c.jsonl", [event(received_at="2026-03-05T00:00:00+05:00", timestamp="2026-03-04T12:00:00Z")])
    result = shop.ingest()
    assert latest_received_at(shop.ledger) == utc("2026-03-04T19:00:00+00:00")
    assert result.touched_dates == {date(2026, 3, 1), date(2026, 3, 4)}


def test_the_books_balance(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    shop = Shop(tmp_path)
    land_all(shop)
    shop.ingest()
    assert unbalanced_files(shop.ledger) == []
    with shop.ledger.transaction() as db:
        db.execute("UPDATE ingested_files SET accepted = accepted + 1 WHERE file = 'a.jsonl'")
    assert unbalanced_files(shop.ledger) == ["a.jsonl"]


def test_a_home_with_awkward_letters_in_its_name(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "o'brien's shop, ünïcode")
    shop.land("it's #1 & more.jsonl", [event()])
    assert shop.ingest().total.accepted == 1
    assert [row["source"].rpartition("#")[0] for row in shop.accepted()] == ["it's #1 & more.jsonl"]
