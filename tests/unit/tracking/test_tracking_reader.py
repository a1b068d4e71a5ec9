"""Landed bytes become numbered lines, whatever the bytes are."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from event_lines import Shop, event, text, viewed

from zantara_pipeline.errors import InputError
from zantara_pipeline.tracking import reader
from zantara_pipeline.tracking.reader import identify, landed_paths, line_batches, untaken


def lines_of(path: Path) -> list[tuple[int, str, bool]]:
    rows = []
    for batch in line_batches(identify(path, path.name), 3):
        assert set(batch.column("file_no").to_pylist()) <= {3}
        columns = (batch.column(name).to_pylist() for name in ("line_no", "line", "rendering"))
        rows += [
            (number, (shown or line).rstrip("\r\n"), shown is not None)
            for number, line, shown in zip(*columns, strict=True)
        ]
    return rows


def write(tmp_path: Path, content: bytes, name: str = "a.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 8 * 2**20])
def test_lines_and_numbers_do_not_depend_on_where_chunks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, name: str
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", chunk)
    content = '{"a":"é€𝄞"}\r\n\n   \n{"b":2}\n\t\r\n[3]'.encode()
    assert lines_of(write(tmp_path, content, name)) == [
        (1, '{"a":"é€𝄞"}', False),
        (4, '{"b":2}', False),
        (6, "[3]", False),
    ]


@pytest.mark.parametrize("chunk", [1, 5, 8 * 2**20])
def test_a_bad_byte_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", chunk)
    found = lines_of(write(tmp_path, b'{"a":1}\n{"b":"\xff\xfe"}\n\n{"c":3}\n'))
    assert [(number, bad) for number, _, bad in found] == [(1, False), (2, True), (4, False)]
    assert found[2][1] == '{"c":3}'


def test_a_character_cut_by_the_end_of_the_line_is_a_bad_byte_of_that_line_only(tmp_path: Path) -> None:
    # the two halves of a two-byte character around a newline are no character
    found = lines_of(write(tmp_path, b'"\xc3\n\xa9"\n"ok"\n'))
    assert [bad for _, _, bad in found] == [True, True, False]


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n \r\n\t\n", b"   "])
def test_nothing_but_blank_lines_is_no_line(tmp_path: Path, content: bytes) -> None:
    assert lines_of(write(tmp_path, content)) == []


BLANKS = {"newlines": "\n" * 100, "windows": "\r\n" * 100, "spaces first": "  \n" + "\n" * 100,
          "spaces among": "\n" * 60 + " \t\n" + "\n" * 60}  # fmt: skip
BEFORE = {"nothing": "", "a short line": "1\n", "a line": '{"a": "' + "x" * 60 + '"}\n'}


@pytest.mark.parametrize("chunk", [50, 2**22])
@pytest.mark.parametrize("blank", BLANKS.values(), ids=BLANKS)
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_however_many_blank_lines_are_no_line_and_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, blank: str, before: str
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", chunk)
    text = before + blank + '{"b": 2}\n' + blank
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    assert [(number, line) for number, line, _ in lines_of(write(tmp_path, text.encode()))] == lines


def test_a_line_of_many_chunks_arrives_whole(tmp_path: Path) -> None:
    long = "x" * (20 * 2**20)
    found = lines_of(write(tmp_path, f'1\n"{long}"\n2'.encode()))
    assert [(number, len(line)) for number, line, _ in found] == [(1, 1), (2, len(long) + 2), (3, 1)]


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b'{"a":1}\n' * 50_000)[:-9],
        gzip.compress(b'{"a":1}\n' * 50_000)[:200],
        b"this is no gzip file\n",
        gzip.compress(b"{}\n") + b"trailing",
    ],
    ids=["end cut off", "most cut off", "not gzip", "bytes after the end"],
)
def test_a_damaged_gzip_file_is_named_and_nothing_is_taken(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"b\.jsonl\.gz: the gzip file is truncated or damaged"):
        lines_of(path)


def test_a_gzip_file_of_several_members_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"1\n2") + gzip.compress(b"3\n"))
    assert [line for _, line, _ in lines_of(path)] == ["1", "23"]


def test_the_name_in_the_lake_changes_with_the_content(tmp_path: Path) -> None:
    path = write(tmp_path, b"1\n")
    first = identify(path, "day/a.jsonl")
    path.write_bytes(b"1\n2\n")
    grown = identify(path, "day/a.jsonl")
    assert first.source.startswith("day/a.jsonl#") and grown.source.startswith("day/a.jsonl#")
    assert first.source != grown.source


def test_event_files_are_found_below_a_folder_in_name_order(tmp_path: Path) -> None:
    for name in (
        "b.jsonl",
        "a/z.ndjson.gz",
        "a/c.json",
        "notes.txt",
        "c.csv",
        "d.tsv.gz",
        ".hidden/x.jsonl",
        "a/.part.jsonl",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert [name for _, name in landed_paths(tmp_path)] == ["a/c.json", "a/z.ndjson.gz", "b.jsonl", "c.csv", "d.tsv.gz"]
    assert landed_paths(tmp_path / "b.jsonl") == [(tmp_path / "b.jsonl", "b.jsonl")]


def test_a_place_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder; point EVENTS at"):
        landed_paths(tmp_path / "nowhere")


def test_a_sensor_sees_new_files_only_once_nobody_writes_them(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    path = shop.land("a.jsonl", [event()])
    written = path.stat().st_mtime
    assert untaken(shop.landing, shop.ledger, written - 1) is None
    assert untaken(shop.landing, shop.ledger, written + 1) is not None
    shop.ingest()
    assert untaken(shop.landing, shop.ledger, written + 1) is None
    path.write_bytes(path.read_bytes() + text([event(event_id="e-2")]))
    assert untaken(shop.landing, shop.ledger, path.stat().st_mtime + 1) is not None


def test_windows_line_ends_do_not_reach_what_is_kept(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    bad = json.dumps(viewed(price="5"))
    shop.land("a.jsonl", f"{json.dumps(event())}\r\n{bad}\r\nnot json\r\n".encode())
    assert shop.ingest().total.rows_in == 3
    assert shop.stages("a.jsonl") == {1: "accepted", 2: "quarantined", 3: "unparsable"}
    assert [row["payload_raw"] for row in shop.quarantined()] == [bad]
    assert [row["line"] for row in shop.unparsable()] == ["not json"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("end", [b"", b"\n", b'\n{"c":3}\n'])
def test_a_line_beyond_what_arrow_can_count_refuses_its_file_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: bytes
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 16)
    monkeypatch.setattr(reader, "MOST_BLOCK_BYTES", 100)
    path = write(tmp_path, b'{"a":1}\n\n' + b"x" * 101 + end, name)
    with pytest.raises(InputError) as error:
        lines_of(path)
    said = "a line is longer than can be read (100 bytes); end each event with a newline; nothing of the file was taken"
    assert str(error.value) == f"{path}:3: {said}"


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_just_below_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 16)
    monkeypatch.setattr(reader, "MOST_BLOCK_BYTES", 100)
    long = "x" * 80  # a block holds a line and at most one chunk beside it
    assert lines_of(write(tmp_path, b'{"a":1}\n' + long.encode() + end)) == [(1, '{"a":1}', False), (2, long, False)]


def test_a_long_line_of_bad_bytes_is_refused_before_it_is_written_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MOST_BLOCK_BYTES", 1000)
    assert lines_of(write(tmp_path, b"\xff" * 120))[0][1] == "\\xff" * 120
    with pytest.raises(InputError, match="a line is longer than can be read"):
        lines_of(write(tmp_path, b"\xff" * 130))


@pytest.mark.parametrize("chunk", [1, 7, 16, 64])
def test_looking_for_long_lines_beforehand_finds_what_reading_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(reader, "MOST_BLOCK_BYTES", 100)
    said: set[str | None] = set()
    for length in (30, 60, 84, 92, 99, 100, 101, 120, 200):
        file = identify(write(tmp_path, b"{}\n" * 40 + b"x" * length + b"\n{}\n" * 3), "a.jsonl")
        answers = []
        for read in (lambda file: list(line_batches(file, 0)), reader.refuse_long_lines):
            try:
                read(file)
                answers.append(None)
            except InputError as error:
                answers.append(str(error))
        assert answers[0] == answers[1]
        said.add(answers[0])
    assert said >= {None} and any(answer and ":41: " in answer for answer in said)


def test_a_file_with_newlines_throughout_is_not_read_to_look_for_long_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 20)
    monkeypatch.setattr(reader, "MOST_BLOCK_BYTES", 200)
    for line, looked_at in ((b'{"a":1}\n', True), (b"x" * 170 + b"\n", False)):
        file = identify(write(tmp_path, line * 50), "a.jsonl")
        assert reader._has_newlines_throughout(file) is looked_at
        reader.refuse_long_lines(file)


def test_the_offsets_of_the_largest_block_fit_into_32_bits() -> None:
    # with the newline that a last line may lack
    assert reader.MOST_BLOCK_BYTES + 1 <= 2**31 - 1


def test_a_run_goes_on_with_the_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_BLOCK_BYTES", 400)
    shop = Shop(tmp_path)
    shop.land("a.jsonl", [event()])
    shop.land("b.jsonl", [viewed(category="c" * 400)])
    result = shop.ingest()
    assert list(result.files) == ["a.jsonl"] and list(result.refused) == ["b.jsonl"]
    assert "a line is longer than can be read" in result.refused["b.jsonl"]
