"""Rows of a CSV become envelopes: columns by name or by contract, cells by the types of the plan, one line a row."""

from __future__ import annotations

import json
from typing import Any

import pytest
from adapter_files import CONTRACT, adapt_bytes, declared, fixture
from event_lines import PLAN

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking.adapters import AdaptersContract, load_adapters

HEADER = "event_id,event,timestamp,properties.product_id,properties.price,consent.analytics,note\n"


def rows(*lines: str, header: str = HEADER, contract: AdaptersContract = CONTRACT) -> list[dict[str, Any]]:
    found, report = adapt_bytes("csv", (header + "".join(f"{line}\n" for line in lines)).encode(), contract)
    assert report.unreadable == 0
    return [json.loads(line) for line in found]


def test_a_row_arrives_whole() -> None:
    assert fixture("events.csv")[0] == {
        "event_id": "csv-1",
        "event": "product_view",
        "timestamp": "2026-03-01T09:30:00Z",
        "received_at": "2026-03-01T09:30:01Z",
        "user_id": "u-1",
        "properties": {"product_id": "p-1", "price": 19.90, "currency": "EUR"},
        "context": {"country": "DE"},
        "consent": {"analytics": True, "personalization": False},
    }


def test_an_empty_cell_is_absent() -> None:
    assert "consent" not in fixture("events.csv")[3]
    assert rows("e,purchase,t,,,,")[0]["properties"] == {}


def test_the_plan_decides_what_is_a_number() -> None:
    # product_id is a string and price is money; what spells no number stays, for the judge to refuse
    found = [row["properties"] for row in rows("a,purchase,t,7,7,,", "b,purchase,t,07,07,,", "c,purchase,t,x,1e1,,")]
    assert found == [
        {"product_id": "7", "price": 7},
        {"product_id": "07", "price": "07"},
        {"product_id": "x", "price": 10.0},
    ]


@pytest.mark.parametrize(("cell", "answer"), [("true", True), ("FALSE", False), ("yes", "yes"), ("1", "1")])
def test_only_true_and_false_are_answers(cell: str, answer: Any) -> None:
    assert rows(f"e,purchase,t,,,{cell},")[0]["consent"] == {"analytics": answer}


def test_columns_are_mapped_as_declared() -> None:
    contract = declared("csv", delimiter=";", columns={
        "Order": "event_id", "What": "event", "When": "timestamp", "SKU": "properties.product_id", "OK": "consent.analytics",
    }, events={"sold": "purchase"})  # fmt: skip
    assert rows("o-1;sold;2026-03-01T10:00:00Z;p-1;true;x", header="Order;What;When;SKU;OK;Mail\n", contract=contract) == [
        {"event_id": "o-1", "event": "purchase", "timestamp": "2026-03-01T10:00:00Z",
         "properties": {"product_id": "p-1"}, "consent": {"analytics": True}}
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["consent.sales", "context.email", "traits", "properties", "user.id", ""])
def test_a_column_cannot_go_where_the_envelope_has_no_place(tmp_path: Any, place: str) -> None:
    text = (PACKAGED / "adapters.yaml").read_text().replace("  columns: {}", f"  columns:\n    Mail: '{place}'")
    (tmp_path / "adapters.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        load_adapters((PACKAGED, tmp_path), PLAN.privacy)
    line = text.splitlines().index(f"    Mail: '{place}'") + 1
    assert str(error.value).startswith(f"{tmp_path}/adapters.yaml:{line}: key 'csv.columns': no place '{place}'")


def test_a_consent_category_must_stand_for_a_known_purpose(tmp_path: Any) -> None:
    text = (
        (PACKAGED / "adapters.yaml").read_text().replace("analytics_storage: [analytics]", "analytics_storage: [sales]")
    )
    (tmp_path / "adapters.yaml").write_text(text)
    with pytest.raises(
        InputError, match=r"adapters\.yaml:\d+: key 'ga4\.consent': no purpose 'sales'; known: analytics"
    ):
        load_adapters((PACKAGED, tmp_path), PLAN.privacy)


def test_a_cell_of_several_lines_is_one_row_and_one_line() -> None:
    found = rows('e-1,purchase,t,"p\n""1""\n",1,,', "e-2,purchase,t,p-2,1,,")
    assert [(row["event_id"], row["properties"]["product_id"]) for row in found] == [
        ("e-1", 'p\n"1"\n'),
        ("e-2", "p-2"),
    ]


def test_a_quote_that_is_never_closed_costs_one_line() -> None:
    good = "".join(f"e-{n},purchase,t,p,1,,\n" for n in range(300))
    bad = 'x,purchase,t,"never closed,1,,\n'
    lines, report = adapt_bytes("csv", (HEADER + bad + good).encode())
    assert lines[0] == bad.encode()
    assert (report.records, report.adapted, report.unreadable) == (301, 300, 1)


@pytest.mark.parametrize("line", ["a,b,c\n", "a,b,c,d,e,f,g,h\n", 'a,b,c,"d"x,e,f,g\n'])
def test_a_row_that_does_not_fit_its_header_stays_as_it_came(line: str) -> None:
    lines, report = adapt_bytes("csv", (HEADER + line).encode())
    assert (lines, report.unreadable) == ([line.encode()], 1)


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    lines, _ = adapt_bytes("csv", b"\xef\xbb\xbf" + HEADER.encode() + b"e-1,purchase,t,p-1,1,,\n")
    assert json.loads(lines[0])["event_id"] == "e-1"
