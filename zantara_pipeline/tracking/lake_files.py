"""Accepted rows of a judged batch as the lake's Parquet: one file per event and received date.

Rows of plain lines are slices of their Arrow columns; the engine only says which of them were accepted. (Fetching them
through the engine and its partitioned COPY cost twice as much, a fifth of an ingest: decision 0014.) The few rows that
the engine read, and events with direct identifiers, whose tokens it makes, come from its tables.

Belongs here: the lake's columns and its files. Does not belong here: verdicts (verdict.py), what else a batch leaves
(batch.py), where files go when a commit counts (commits.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zantara_pipeline.errors import InputError
from zantara_pipeline.privacy.keyed_hash import SqlTokens
from zantara_pipeline.tracking.direct import direct_properties
from zantara_pipeline.tracking.line_values import values_of
from zantara_pipeline.tracking.plain_lines import value_column
from zantara_pipeline.tracking.plan import CONTEXT_KEYS, ENVELOPE_STRINGS, EventPlan
from zantara_pipeline.tracking.sql_checks import quote
from zantara_pipeline.tracking.typed_columns import typed_column
from zantara_pipeline.tracking.verdict import Rules

# A dictionary pays where a file holds few values; of ids it is built and thrown away (a tenth of the writing).
_FEW_VALUES = ["plan_version", "source", "consent_basis", *CONTEXT_KEYS]

# Statistics of any other column exclude nothing in a file of one event and day, and cost a fifth of the writing; those of a
# long text would be copied four times and left out.
_STATISTICS = ["occurred_at", "received_at"]

_Part = tuple[str, date, pa.RecordBatch]


class LakeFiles:
    """Writes the accepted rows of batches judged on one connection (temp tables `parsed` and `sources`)."""

    def __init__(self, con: duckdb.DuckDBPyConnection, rules: Rules, tokens: SqlTokens | None) -> None:
        self.con, self.rules, self.tokens = con, rules, tokens
        self._direct = {event for event, declared in rules.plan.events.items() if direct_properties(declared)}

    def write(
        self, plain: pa.Table, sources: Sequence[str], folder: Path, name: str, *, all_plain: bool = False
    ) -> None:
        """Write `folder`/event=E/received_date=D/`name`-0.parquet for every event and day that has accepted rows.

        plain : columns of the batch's plain lines (plain_lines.PlainLines.schema); `parsed.plain_no` is the row there.
        sources : the lake's name of each file number.
        all_plain : the batch has no other lines.
        """
        files: dict[tuple[str, date], list[pa.RecordBatch]] = defaultdict(list)
        of_engine = [] if all_plain and not self._direct else self._engine_parts()
        for event, day, rows in [*self._plain_parts(plain, pa.array(sources, pa.string())), *of_engine]:
            files[event, day].append(rows)
        for (event, day), parts in sorted(files.items()):
            place = folder / f"event={event}" / f"received_date={day}"
            place.mkdir(parents=True, exist_ok=True)
            rows = pa.Table.from_batches(parts)
            pq.write_table(
                rows, place / f"{name}-0.parquet", use_dictionary=_FEW_VALUES, write_statistics=_STATISTICS,
                store_schema=False, store_decimal_as_integer=True,
            )  # fmt: skip

    def _plain_parts(self, plain: pa.Table, sources: pa.Array) -> Iterator[_Part]:
        """Accepted rows of each block, event and day; they stand side by side there."""
        verdicts, first = self.con.sql(_VERDICTS_SQL).to_arrow_table().combine_chunks(), 0
        for block in plain.to_batches():
            judged = _one_batch(verdicts.slice(first, len(block)))
            first += len(block)
            rows, judged = self._taken(block, judged)
            names, events = rows.column("event").dictionary.to_pylist(), rows.column("event").indices
            shared = _shared_columns(rows, judged, sources)
            for start, end in _runs(judged, events):
                event = names[events[start].as_py()]
                day = judged.column("received_date")[start].as_py()
                yield event, day, _lake_rows(rows, shared, start, end, self.rules.plan.events[event])

    def _taken(self, block: pa.RecordBatch, judged: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Accepted rows of events without direct identifiers, filtered once a block: a slice costs nothing after it."""
        taken, events = judged.column("taken"), block.column("event")
        if self._direct:
            direct = [name in self._direct for name in events.dictionary.to_pylist()]
            taken = pc.and_not(taken, pa.array(direct, pa.bool_()).take(events.indices))
        return (block, judged) if taken.true_count == len(block) else (block.filter(taken), judged.filter(taken))

    def _engine_parts(self) -> Iterator[_Part]:
        for (event,) in self.con.execute(_ENGINE_EVENTS_SQL, [sorted(self._direct)]).fetchall():
            query = accepted_sql(event, self.rules, self.tokens, others_only=event not in self._direct)
            rows = _one_batch(self.con.sql(f"{query} ORDER BY p.received_date, p.file_no, p.line_no").to_arrow_table())
            for start, end in _runs(rows):
                day = rows.column("received_date")[start].as_py()
                yield event, day, rows.slice(start, end - start).drop_columns("received_date")


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(
        [c.chunk(0) if isinstance(c, pa.ChunkedArray) else c for c in columns], schema=table.schema
    )


def _runs(judged: pa.RecordBatch, events: pa.Array | None = None) -> Iterator[tuple[int, int]]:
    """(start, end) of neighbours of one received date, and of one event where they are given."""
    if not len(judged):
        return
    days = judged.column("received_date").cast(pa.int32()).fill_null(-(2**31)).to_numpy()
    other = days[1:] != days[:-1]
    if events is not None:
        codes = events.to_numpy()
        other |= codes[1:] != codes[:-1]
    starts = [0, *(np.flatnonzero(other) + 1).tolist()]
    yield from zip(starts, [*starts[1:], len(days)], strict=True)


def _shared_columns(rows: pa.RecordBatch, judged: pa.RecordBatch, sources: pa.Array) -> dict[str, pa.Array]:
    """The columns of `accepted_sql` that every event has, but the date; the plan's version, which differs by event, is null."""
    columns = {name: rows.column(name) for name in ("event_id", "occurred_at")}
    columns |= {"received_at": judged.column("received_at")} | {name: rows.column(name) for name in ENVELOPE_STRINGS}
    columns |= {"plan_version": pa.nulls(len(rows), pa.string()), "source": sources.take(rows.column("file_no"))}
    columns |= {"line_no": rows.column("line_no"), "consent_basis": pa.repeat("granted", len(rows))}
    columns |= {name: judged.column(name) for name in ("consent_analytics", "consent_personalization", "is_late")}
    columns["received_at_missing"] = rows.column("stated_received_at").is_null()
    return columns | {name: rows.column(name) for name in CONTEXT_KEYS}


def _lake_rows(
    rows: pa.RecordBatch, shared: dict[str, pa.Array], start: int, end: int, event: EventPlan
) -> pa.RecordBatch:
    """Some neighbouring rows of one event as the lake's columns."""
    columns = {name: column.slice(start, end - start) for name, column in shared.items()}
    columns["plan_version"] = pa.repeat(event.version, end - start)
    for name, declared in event.properties.items():
        columns[name] = rows.column(value_column(name, declared.type)).slice(start, end - start)
    return pa.RecordBatch.from_pydict(columns)


def accepted_sql(event: str, rules: Rules, tokens: SqlTokens | None, *, others_only: bool = False) -> str:
    """Accepted rows of one event as the lake's columns, direct identifiers as their tokens.

    others_only : leave out the plain lines.

    Raises
    ------
    InputError : the event has direct identifiers and there is no key.
    """
    ids = ", ".join(f"v.{name}" for name in ENVELOPE_STRINGS)
    context = ", ".join(f"v.{name}" for name in CONTEXT_KEYS)
    declared = rules.plan.events[event]
    columns = {name: f"v.{typed_column(name, declared)}" for name in declared.properties}
    for name in direct_properties(declared):
        if tokens is None:
            raise InputError(f"'{name}' is a direct identifier and no key is set", f"event {event}")
        columns[name] = (tokens.of_stored if rules.stored else tokens.of_values)(columns[name])
    properties = "".join(f', {value} AS "{name}"' for name, value in columns.items())
    return f"""
        SELECT p.event_id, p.occurred_at, p.received_at, {ids}, {quote(declared.version)} AS plan_version, s.source, p.line_no,
            'granted' AS consent_basis, p.consent_analytics, p.consent_personalization, p.is_late, p.received_at_missing,
            {context}{properties}, p.received_date
        FROM parsed p JOIN {values_of(event, others_only=others_only)} v USING (row_id) JOIN sources s ON s.file_no = p.file_no
        WHERE p.stage = 'accepted' AND NOT p.exempt AND p.event = {quote(event)}
    """


_VERDICTS_SQL = """
    SELECT stage = 'accepted' AND NOT exempt AS taken, received_at, received_date,
        consent_analytics, consent_personalization, is_late
    FROM parsed WHERE plain_no IS NOT NULL ORDER BY plain_no
"""

_ENGINE_EVENTS_SQL = """
    SELECT DISTINCT event FROM parsed
    WHERE stage = 'accepted' AND NOT exempt AND (plain_no IS NULL OR event IN (SELECT unnest(?::VARCHAR[])))
"""
