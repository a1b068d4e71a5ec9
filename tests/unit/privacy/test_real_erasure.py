"""Fifty people of each of four real shops leave nothing behind, and take nothing of anybody else along.

The cut of a shop: of its first three files (the one of the shop that has one) the first 3,000 lines each, as they are, its
whole catalogue, and what the consent ledger says of the people of these lines. The fifty: those of the cut, with or without
consent, whose ids' SHA-256 is smallest.

Not built here: tables of dbt, models and what is made of them; one build takes longer than these tests may. They are erased
in tests/e2e/test_erasure.py, on the simulated shop.

Whose a line or row is, is read here by its user_id, with the readers of Python and Arrow; the product's search is held
against that. Ids of these shops are numbers behind a prefix, and people, products, sessions share the prefix: a search of
texts would find products.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from event_lines import PLAN, Shop

from zantara_pipeline.orchestration.erasure import hands
from zantara_pipeline.privacy import erasure
from zantara_pipeline.privacy.decoding import scan
from zantara_pipeline.settings import Settings
from zantara_pipeline.tracking.catalogue import load_catalogue

SAMPLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "events_sample"
FILES, LINES, PEOPLE = 3, 3_000, 50
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample of real events is not beside the project"),
]


def cut(shop: str) -> dict[str, list[bytes]]:
    """File -> its first lines."""
    found = {}
    for path in sorted((SAMPLE / "events" / shop).glob("*.jsonl.gz"))[:FILES]:
        with gzip.open(path, "rb") as lines:
            found[path.name] = [line.rstrip(b"\n") for line, _ in zip(lines, range(LINES), strict=False)]
    return found


def user_of(line: str | bytes) -> str | None:
    user = json.loads(line)["user_id"]
    return user if user is None else str(user)


def landed(shop: Shop) -> Counter[str | None]:
    """Landed lines by whose they are."""
    found: Counter[str | None] = Counter()
    for path in shop.landing.iterdir():
        with gzip.open(path, "rb") as lines:
            found.update(map(user_of, lines))
    return found


def owners(shop: Shop) -> Iterator[tuple[str, str | None]]:
    """(store, whose) of every landed line, row, kept line and record of consent."""
    yield from (("landing", user) for user in landed(shop))
    with (shop.home.landing / "consent.csv").open(newline="") as rows:
        yield from (("consent", row["user_id"]) for row in csv.DictReader(rows))
    for path in shop.home.accepted.glob("*/*/*.parquet"):
        yield from (("lake", user) for user in pq.read_table(path, partitioning=None)["user_id"].to_pylist())
    for path in shop.home.quarantine.glob("*/*.parquet"):
        yield from (
            ("quarantine", user_of(x)) for x in pq.read_table(path, partitioning=None)["payload_raw"].to_pylist()
        )
    yield from (
        ("ledger", row[0])
        for table in ("consent", "consent_runs")
        for row in shop.query(f"SELECT user_id FROM {table}")
    )


def accepted(shop: Shop) -> Counter[str | None]:
    return Counter(row["user_id"] for row in shop.accepted())


def opened(shop: str, root: Path) -> Shop:
    """A home that took the cut."""
    house, lines = Shop(root), cut(shop)
    users = {user_of(line) for part in lines.values() for line in part}
    for name, part in lines.items():
        house.land(name, b"\n".join(part) + b"\n")
    with (SAMPLE / "consent_ledger.csv").open(newline="") as rows:
        house.consent(*(tuple(row.values()) for row in csv.DictReader(rows) if row["user_id"] in users))
    items = SAMPLE / "items" / f"{shop}.csv"
    if items.exists():
        (house.home.landing / "items").mkdir()
        (house.home.landing / "items" / "items.csv").write_bytes(items.read_bytes())
        load_catalogue(house.home, [house.home.landing / "items" / "items.csv"], threads=1, memory_limit="500MB")
    house.ingest()
    return house


@pytest.mark.parametrize("name", ["retailrocket", "rees46", "uci_online_retail", "movielens"])
def test_fifty_people_of_a_real_shop_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    shop = opened(name, tmp_path / "home")
    lines, rows = landed(shop), accepted(shop)
    known = [user for user in lines if user is not None]
    people = set(sorted(known, key=lambda user: hashlib.sha256(user.encode()).hexdigest())[:PEOPLE])
    assert len(people) == PEOPLE < len(known)
    before = set(owners(shop))
    assert {user for store, user in before if store == "landing"} >= people
    assert sum(("lake", user) in before for user in people) > PEOPLE / 2

    work = hands(Settings(home=shop.home.root), shop.home, shop.ledger, PLAN)
    looked = erasure.look(shop.home, shop.ledger, work, people)
    assert looked.people.users == people, "the search that decodes every file finds each of them"
    receipt = erasure.erase(shop.home, shop.ledger, work, looked)

    assert (receipt.status, receipt.people, receipt.unknown) == ("complete", PEOPLE, 0)
    held = {store.store for store in receipt.stores if store.hits_before}
    assert held >= {"landing", "accepted events", "state ledger"} and receipt.hits_after == 0
    kept = (shop.home.receipts / f"{receipt.erasure_id}.json").read_text()
    assert not people & set(re.findall(r"[\w:-]+", kept))
    assert not {user for _, user in owners(shop)} & people
    assert not any(found.hits for found in scan(shop.home, looked.people).values())

    assert landed(shop) == Counter({user: n for user, n in lines.items() if user not in people}), "nobody else's line"
    assert accepted(shop) == Counter({user: n for user, n in rows.items() if user not in people}), "nobody else's row"
    balances(shop, sum(lines.values()))

    assert land_again(shop, cut(name)) == (0, 0), "files that were taken once"
    assert not {user for _, user in owners(shop)} & people
    backwards = {file: part[::-1] for file, part in cut(name).items()}
    assert land_again(shop, backwards) == (sum(lines.values()), sum(lines[user] for user in people))
    assert not {user for _, user in owners(shop)} & people
    balances(shop, 2 * sum(lines.values()))


def land_again(shop: Shop, files: dict[str, list[bytes]]) -> tuple[int, int]:
    """Lines that were taken of these files, and those of them that were the erased people's; the files are gone then."""
    for file, part in files.items():
        shop.land(f"again-{file}", b"\n".join(part) + b"\n")
    total = shop.ingest().total
    for path in shop.landing.glob("again-*"):
        path.unlink()
    return total.rows_in, total.erased


def balances(shop: Shop, lines: int) -> None:
    """Every file's outcomes are its lines, and the lake holds as many rows as were accepted."""
    counts = shop.query("SELECT rows_in, unparsable, suppressed, quarantined, accepted, erased FROM ingested_files")
    assert all(rows_in == sum(outcomes[:4]) and outcomes[4] <= outcomes[1] for rows_in, *outcomes in counts)
    assert sum(count[0] for count in counts) == lines
    assert sum(count[4] for count in counts) == len(shop.accepted())
    assert sum(count[3] for count in counts) == len(shop.quarantined())
