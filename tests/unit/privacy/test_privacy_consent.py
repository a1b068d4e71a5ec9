"""The company's consent ledger: read whole or not at all, and never a user in what is said about it."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.consent import append_ledger_file, consent_files, statements_of, utc_text
from zantara_pipeline.storage.ledger import Ledger

HEADER = "user_id,purpose,status,effective_from\n"
PURPOSES = ("analytics", "personalization")
USER = "joe.bloggs"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def take(ledger: Ledger, tmp_path: Path, content: str | bytes, name: str = "consent.csv") -> int:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return append_ledger_file(ledger, path, PURPOSES)


def held(ledger: Ledger) -> list[tuple[str, ...]]:
    with ledger.read() as db:
        return db.execute(
            "SELECT user_id, purpose, status, effective_from, origin FROM consent ORDER BY user_id, effective_from"
        ).fetchall()


def test_statements_are_kept_in_utc(ledger: Ledger, tmp_path: Path) -> None:
    rows = f"{USER},analytics,granted,2026-03-01T02:00:00+02:00\n{USER},personalization,denied,2026-03-01T00:00:00.5Z\n"
    assert take(ledger, tmp_path, HEADER + rows) == 2
    assert held(ledger) == [
        (USER, "analytics", "granted", "2026-03-01T00:00:00.000000Z", "ledger"),
        (USER, "personalization", "denied", "2026-03-01T00:00:00.500000Z", "ledger"),
    ]


def test_text_order_is_time_order() -> None:
    moments = [
        datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(microseconds=n) for n in (0, 1, 500_000, 999_999, 10**6)
    ]
    moments += [datetime(999, 1, 1, tzinfo=timezone(timedelta(hours=-3)))]
    assert sorted(utc_text(moment) for moment in moments) == [utc_text(moment) for moment in sorted(moments)]


def test_withdrawn_is_denied(ledger: Ledger, tmp_path: Path) -> None:
    take(ledger, tmp_path, HEADER + f"{USER},analytics,withdrawn,2026-03-01T00:00:00Z\n")
    assert held(ledger)[0][2] == "denied"


def test_an_open_quote_is_found_whatever_was_read_before(ledger: Ledger, tmp_path: Path) -> None:
    before = csv.field_size_limit(2**31 - 1)
    try:
        with pytest.raises(InputError, match="quote that is not closed"):
            take(ledger, tmp_path, HEADER + GOOD + f'"{USER},analytics,granted,2026-03-01T00:00:00Z\n' + GOOD * 4000)
        assert csv.field_size_limit() == 2**31 - 1
    finally:
        csv.field_size_limit(before)


def test_taking_a_file_again_or_a_longer_one_adds_only_what_is_new(ledger: Ledger, tmp_path: Path) -> None:
    first = HEADER + f"{USER},analytics,granted,2026-03-01T00:00:00Z\n"
    assert take(ledger, tmp_path, first) == 1
    assert take(ledger, tmp_path, first) == 0
    assert take(ledger, tmp_path, first + f"{USER},analytics,denied,2026-03-02T00:00:00Z\n\n") == 1
    assert take(ledger, tmp_path, HEADER + f"{USER},analytics,granted,2026-03-01T01:00:00+01:00\n") == 0


@pytest.mark.parametrize(
    "content",
    [
        HEADER.replace("\n", "\r\n") + f"{USER},analytics,granted,2026-03-01T00:00:00Z\r\n",
        "\ufeff" + HEADER + f"{USER},analytics,granted,2026-03-01T00:00:00Z",
    ],
    ids=["windows", "byte order mark"],
)
def test_other_line_ends_and_marks(ledger: Ledger, tmp_path: Path, content: str) -> None:
    assert take(ledger, tmp_path, content) == 1


def test_a_compressed_ledger(ledger: Ledger, tmp_path: Path) -> None:
    content = gzip.compress((HEADER + f"{USER},analytics,granted,2026-03-01T00:00:00Z\n").encode())
    assert take(ledger, tmp_path, content, "consent.csv.gz") == 1


def test_ids_keep_their_commas_quotes_and_zeros(ledger: Ledger, tmp_path: Path) -> None:
    take(
        ledger,
        tmp_path,
        HEADER + '"a,""b""",analytics,granted,2026-03-01T00:00:00Z\n007,analytics,granted,2026-03-01T00:00:00Z\n',
    )
    assert [row[0] for row in held(ledger)] == ["007", 'a,"b"']


def test_records_from_the_future_and_contradictory_ones_are_kept_as_they_are_said(
    ledger: Ledger, tmp_path: Path
) -> None:
    """What holds of them is decided when they are read (tests/unit/entities/test_consent_of_tables.py)."""
    said = (
        ("granted", "2999-01-01T00:00:00Z"),
        ("granted", "2026-03-01T00:00:00Z"),
        ("denied", "2026-03-01T00:00:00Z"),
    )
    assert take(ledger, tmp_path, HEADER + "".join(f"{USER},analytics,{status},{when}\n" for status, when in said)) == 3


def test_an_id_that_is_sql_is_kept_as_text(ledger: Ledger, tmp_path: Path) -> None:
    user = "x'); DROP TABLE consent; --"
    assert take(ledger, tmp_path, HEADER + f'"{user}",analytics,granted,2026-03-01T00:00:00Z\n') == 1
    assert [row[0] for row in held(ledger)] == [user]
    assert statements_of(ledger, pa.array([user])).num_rows == 1


GOOD = f"{USER},analytics,granted,2026-03-01T00:00:00Z\n"


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("", 1, "the header is not user_id,purpose,status,effective_from"),
        (f"{USER},analytics,granted,2026-03-01T00:00:00Z\n", 1, "the header is not"),
        ("purpose,user_id,status,effective_from\n", 1, "the header is not"),
        (HEADER + GOOD + f"{USER},analytics\n", 3, "2 fields instead of 4"),
        (HEADER + GOOD + f"{USER},analytics,granted,2026-03-01T00:00:00Z,x\n", 3, "5 fields instead of 4"),
        (HEADER + GOOD + f"{USER},marketing,granted,2026-03-01T00:00:00Z\n", 3, "known: analytics, personalization"),
        (HEADER + GOOD + f"analytics,{USER},granted,2026-03-01T00:00:00Z\n", 3, "unknown purpose"),
        (HEADER + GOOD + f"{USER},analytics,yes,2026-03-01T00:00:00Z\n", 3, "none of granted, denied, withdrawn"),
        (HEADER + GOOD + f"{USER},analytics,granted,soon\n", 3, "not an ISO 8601 time"),
        (HEADER + GOOD + f"{USER},analytics,granted,2026-02-30T00:00:00Z\n", 3, "not an ISO 8601 time"),
        (HEADER + GOOD + f"{USER},analytics,granted,0001-01-01T00:00:00+09:00\n", 3, "not an ISO 8601 time"),
        (HEADER + GOOD + f"{USER},analytics,granted,2026-03-01T00:00:00\n", 3, "has no zone"),
        (HEADER + GOOD + ",analytics,granted,2026-03-01T00:00:00Z\n", 3, "no user_id"),
        (HEADER + GOOD + "u" * 1_001 + ",analytics,granted,2026-03-01T00:00:00Z\n", 3, "a user_id of more than 1,000 characters"),
        (HEADER + GOOD + f'"{USER},analytics,granted,2026-03-01T00:00:00Z\n' + GOOD * 4000, None, "quote that is not closed"),
    ],
    ids=[
        "empty", "no header", "columns swapped", "too few", "too many", "purpose", "swapped values", "status", "time", "no day",
        "before all time", "zone", "no user", "long user", "open quote",
    ],
)  # fmt: skip
def test_a_bad_line_is_named_and_nothing_is_taken(
    ledger: Ledger, tmp_path: Path, content: str, line: int | None, said: str
) -> None:
    with pytest.raises(InputError) as error:
        take(ledger, tmp_path, content)
    text = str(error.value)
    assert said in text and "\n" not in text
    assert USER not in text
    assert f"consent.csv:{line}:" in text if line else "consent.csv:" in text
    assert held(ledger) == []


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (HEADER.encode() + b"\xff\xfe,analytics,granted,2026-03-01T00:00:00Z\n", "c.csv"),
        (b"not gzip", "c.csv.gz"),
        (gzip.compress((HEADER + GOOD * 5000).encode())[:-12], "c.csv.gz"),
    ],
    ids=["not UTF-8", "not gzip", "truncated"],
)
def test_an_unreadable_file_is_named(ledger: Ledger, tmp_path: Path, content: bytes, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: cannot be read"):
        take(ledger, tmp_path, content, name)
    assert held(ledger) == []


def test_statements_of_some_users_only(ledger: Ledger, tmp_path: Path) -> None:
    take(ledger, tmp_path, HEADER + "".join(f"u{n},analytics,granted,2026-03-01T00:00:00Z\n" for n in range(50)))
    found = statements_of(ledger, pa.array(["u7", "u7", "nobody", "u9"])).to_pylist()
    assert sorted((row["user_id"], row["status"], row["origin"]) for row in found) == [
        ("u7", "granted", "ledger"),
        ("u9", "granted", "ledger"),
    ]
    assert statements_of(ledger, pa.array([], type=pa.string())).num_rows == 0


def test_ledger_files_of_a_folder_in_name_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv.gz", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in consent_files(tmp_path)] == ["a.csv.gz", "b.csv"]
    assert consent_files(tmp_path / "b.csv") == [tmp_path / "b.csv"]
    assert consent_files(tmp_path / "nowhere") == []
