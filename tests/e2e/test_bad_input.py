"""Bad input ends with one line that says what, where and what to do, with exit code 2, and loses nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline_homes import assert_same_tables, copy_home, land, published, reading, started, wait_for, zantara

from zantara_pipeline.contracts_io import PACKAGED


def refused(home: Path, *arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """The one line that a refused run says."""
    done = zantara(home, *arguments, env=env, code=2)
    line = done.only_line
    assert line.startswith("zantara: ") and "Traceback" not in done.out + done.err
    return line


def state_of(home: Path) -> dict[str, str]:
    """Digest of every file that a run must not lose or change when it is refused (logs and Dagster's records aside)."""
    data = home / "data"
    kept = [
        p
        for name in ("landing", "lake", "restricted", "reports")
        for p in sorted((data / name).rglob("*"))
        if p.is_file()
    ]
    kept += [path for path in (data / "warehouse.duckdb", data / "published.duckdb") if path.exists()]
    digests = {path.relative_to(home).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}
    return digests | {f"ledger {table}": rows for table, rows in _ledger(data / "state" / "ledger.db").items()}


def _ledger(path: Path) -> dict[str, str]:
    import sqlite3
    from contextlib import closing

    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        return {name: str(sorted(map(repr, db.execute(f"SELECT * FROM {name}").fetchall()))) for name in tables}


# --- before anything is written ---------------------------------------------------------------------------------------


def test_an_empty_landing_folder(tmp_path: Path) -> None:
    line = refused(tmp_path / "home", "run")
    assert (
        "no event files have landed" in line
        and f"{tmp_path}/home/data/landing/events" in line
        and "zantara simulate" in line
    )


def test_an_empty_folder_of_events(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    line = refused(tmp_path / "home", "run", "--events", tmp_path / "events")
    assert "no event files have landed" in line and f"{tmp_path}/events" in line


@pytest.mark.parametrize("option", ["events", "items", "consent"])
def test_a_path_that_does_not_exist(option: str, tmp_path: Path) -> None:
    line = refused(tmp_path / "home", "run", f"--{option}", tmp_path / "nowhere")
    assert "no such file or folder" in line and f"--{option} {tmp_path}/nowhere" in line and "correct the path" in line


def test_a_home_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = refused(tmp_path / "file" / "home", "run", "--simulated-shop")
    assert "the home cannot be written" in line and str(tmp_path / "file" / "home") in line and "ZANTARA_HOME" in line


def test_a_clock_without_a_zone(tmp_path: Path) -> None:
    assert "ZANTARA_AS_OF" in refused(tmp_path / "home", "run", "--simulated-shop", "--as-of", "2026-03-01T00:00:00")


@pytest.fixture
def filesystem(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of so many MB of its own; skipped where mounting is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("filesystem", [20], indirect=True)
def test_a_full_home_is_refused_before_it_starts(filesystem: Path, small_shop: Path) -> None:
    line = refused(filesystem / "home", "run", "--events", small_shop / "events")
    assert "MB free" in line and str(filesystem / "home") in line and "free space" in line


TYPOS = {
    "tracking_plan/purchase.yaml": ("consent_category:", "consent_categry:"),
    "experiments/checkout_redesign.yaml": ("hypothesis:", "hypotesis:"),
    "experiments/ab-test-guardrails.yaml": ("srm_check:", "srm_chek:"),
    "recommendation.yaml": ("weight_cap:", "weight_capp:"),
    "alerts.yaml": ("min_severity: info", "min_severty: info"),
    "privacy.yaml": ("unparsable_expiry_days:", "unparsable_expiry_day:"),
}


@pytest.mark.parametrize("name", list(TYPOS))
def test_a_typo_in_a_contract_is_found_before_anything_is_taken(name: str, tmp_path: Path) -> None:
    good, bad = TYPOS[name]
    text = (PACKAGED / name).read_text(encoding="utf-8")
    assert good in text
    wrong = tmp_path / "contracts" / name
    wrong.parent.mkdir(parents=True)
    wrong.write_text(text.replace(good, bad, 1), encoding="utf-8")
    number = next(n for n, line in enumerate(wrong.read_text().splitlines(), 1) if bad.split(":")[0] in line)

    line = refused(tmp_path / "home", "run", "--simulated-shop", env={"ZANTARA_CONTRACTS": str(tmp_path / "contracts")})
    assert f"{wrong}:{number}" in line and bad.split(":")[0] in line and "unknown key" in line
    assert f"did you mean '{good.split(':')[0]}'?" in line
    assert not (tmp_path / "home" / "data" / "landing" / "truth.json").exists()


def test_a_contract_that_nothing_reads(tmp_path: Path) -> None:
    (tmp_path / "contracts").mkdir()
    wrong = tmp_path / "contracts" / "recomendation.yaml"
    shutil.copy(PACKAGED / "recommendation.yaml", wrong)
    line = refused(tmp_path / "home", "run", "--simulated-shop", env={"ZANTARA_CONTRACTS": str(tmp_path / "contracts")})
    assert f"{wrong}: nothing reads a contract of this name" in line and "recommendation.yaml" in line


def test_yaml_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "contracts").mkdir()
    wrong = tmp_path / "contracts" / "alerts.yaml"
    wrong.write_text("sinks: {log: [\n")
    line = refused(tmp_path / "home", "run", "--simulated-shop", env={"ZANTARA_CONTRACTS": str(tmp_path / "contracts")})
    assert "not valid YAML" in line and f"{wrong}:" in line


# --- a home with history ----------------------------------------------------------------------------------------------


@pytest.fixture
def home(small_home: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of a home that has run."""
    place = copy_home(small_home, tmp_path / "home")
    yield place
    shutil.rmtree(place)


@pytest.mark.e2e
def test_real_data_never_mixes_with_the_simulated_shop(tmp_path: Path) -> None:
    home = tmp_path / "home"
    zantara(home, "simulate", "--events", "2000")
    real = tmp_path / "real"
    real.mkdir()
    (real / "a.jsonl").write_text("{}\n")
    before = state_of(home)
    line = refused(home, "run", "--events", real)
    assert "holds the simulated shop" in line and str(home) in line and "ZANTARA_HOME" in line
    assert state_of(home) == before


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("option", "text", "says"),
    [
        ("items", "id,title\n1,A\n", "no column product_id"),
        ("consent", "user_id,purpose,status,effective_from\nu1,analytics,granted,2026-01-01T00:00:00Z\nu2,analytics,perhaps,2026-01-01T00:00:00Z\n", "the status is none of"),
        ("consent", "user_id,purpose,status,effective_from\nu1,analytics,granted,2026-01-01T00:00:00Z\nu2,marketng,granted,2026-01-01T00:00:00Z\n", "unknown purpose; known: analytics"),
    ],
    ids=["items", "consent_status", "consent_purpose"],
)  # fmt: skip
def test_a_bad_line_in_a_side_file(
    option: str, text: str, says: str, home: Path, alerting: dict[str, str], tmp_path: Path
) -> None:
    """Found before new events are taken, and nothing of the file is kept: not its good lines either."""
    bad = tmp_path / f"{option}.csv"
    bad.write_text(text)
    # the folder of a simulated shop takes no --items; its own folder does
    for path in (home / "data" / "landing" / option).iterdir():
        path.unlink()
    shutil.copy(bad, home / "data" / "landing" / option / "bad.csv")
    (home / "data" / "landing" / "events" / "new.jsonl").write_text("{}\n")
    before = state_of(home)
    line = refused(home, "run", env=alerting)
    where = home / "data" / "landing" / option / "bad.csv"
    assert says in line and f"{where}:{1 if option == 'items' else 3}" in line
    assert "u2" not in line
    assert state_of(home) == before


@pytest.mark.e2e
def test_a_second_run_is_told_who_writes(home: Path, small_home: Path, alerting: dict[str, str]) -> None:
    with started(home, env=alerting) as first:
        wait_for(first, "start", "dbt_models")
        line = refused(home, "run", env=alerting)
        assert "is being written by" in line and f"process {first.pid}" in line and "wait for it to end" in line
        rest = first.communicate(timeout=300)[0]
        assert first.returncode == 0, rest
    assert_same_tables(published(small_home), published(home))


@pytest.mark.e2e
def test_two_runs_that_start_at_once(home: Path, small_home: Path, alerting: dict[str, str]) -> None:
    """Exactly one works; the other is told, whichever of the two it is."""
    with started(home, env=alerting) as first, started(home, env=alerting) as second:
        said = [process.communicate(timeout=400)[0] for process in (first, second)]
        codes = sorted((first.returncode, second.returncode))
    assert codes == [0, 2], said
    loser = said[0] if first.returncode == 2 else said[1]
    assert "zantara: " in loser and "is being written by" in loser and "Traceback" not in loser
    assert_same_tables(published(small_home), published(home))


@pytest.mark.e2e
def test_files_that_are_no_events_among_good_ones(
    small_shop: Path, small_home: Path, alerting: dict[str, str], new_home: Path
) -> None:
    """An empty file, an image and a CSV are taken, counted and said; a truncated .gz is refused until it is whole."""
    home = new_home
    land(home, small_shop)
    events = home / "data" / "landing" / "events"
    (events / "a_empty.jsonl").touch()
    (events / "a_image.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)
    (events / "a_table.jsonl").write_text("user_id,event\nu1,purchase\nu2,purchase\n")
    whole = sorted(events.glob("*.gz"))[0]
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])

    done = zantara(home, "run", env=alerting, code=2)
    line = done.only_line
    assert str(whole) in line and "truncated" in line and "land it again" in line
    for name, says in (
        ("a_empty.jsonl", "the file is empty"),
        ("a_image.jsonl", "is it an event file?"),
        ("a_table.jsonl", "none of its 3 lines"),
    ):
        assert any(name in said and says in said for said in done.out.splitlines()), (name, done.out)
    with reading(published(home)) as con:
        files = dict(con.execute("SELECT file, rows_in FROM ops.ingested_files").fetchall())
        assert whole.name not in files and len(files) == 55 + 3
        assert files["a_empty.jsonl"] == 0 and files["a_table.jsonl"] == 3
        open_alerts = con.execute(
            "SELECT kind, subject FROM ops.alerts WHERE kind = 'unreadable_file' AND resolved_at IS NULL"
        ).fetchall()
        assert open_alerts == [("unreadable_file", f"file/{whole.name}")]
        unparsable = con.execute(
            "SELECT sum(unparsable), sum(rows_in) FROM ops.ingested_files WHERE file LIKE 'a_%.jsonl' AND file NOT LIKE 'events%'"
        ).fetchall()
        assert unparsable[0][0] == unparsable[0][1] > 3

    whole.write_bytes(content)  # landed again, whole
    good = zantara(home, "run", env=alerting)
    assert good.err == ""
    assert_same_tables(
        published(small_home),
        published(home),
        besides=["ops.ingested_files", "ops.alerts", "segments.membership_history", "expiring.membership_history"],
    )
    with reading(published(home)) as con:
        assert con.execute(
            "SELECT resolved_at IS NOT NULL FROM ops.alerts WHERE kind = 'unreadable_file'"
        ).fetchall() == [(True,)]
    shutil.rmtree(home)


@pytest.mark.e2e
def test_nothing_but_files_that_are_no_events(new_home: Path) -> None:
    """Nothing was usable: the run says so last and ends like any other bad input; the next, good one works."""
    home = new_home
    events = home / "data" / "landing" / "events"
    events.mkdir(parents=True)
    (events / "items.csv").write_text("product_id,title\np-1,Radio\n")
    assert f"{events}: no event files have landed" in refused(home, "run")
    (events / "empty.jsonl").touch()
    assert f"{events}: every landed file is empty" in refused(home, "run")
    (events / "image.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(64).replace(b"\n", b"x"))
    line = refused(home, "run")
    assert "landed lines is a JSON object" in line and str(events) in line


@pytest.mark.e2e
@pytest.mark.parametrize("filesystem", [90], indirect=True)
def test_a_disk_that_fills_up_while_a_run_writes(
    filesystem: Path, small_home: Path, alerting: dict[str, str], small_shop: Path
) -> None:
    home = copy_home(small_home, filesystem / "home")
    (home / "data" / "warehouse.duckdb").unlink()
    (home / "data" / "published.duckdb").unlink()
    ballast = filesystem / "ballast"
    with started(home, env=alerting) as process:
        wait_for(process, "done", "ingest")
        ballast.write_bytes(b"x" * (shutil.disk_usage(filesystem).free - 2**20))
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 2, said
    line = [text for text in said.splitlines() if text.startswith("zantara: ")]
    assert len(line) == 1 and "space" in line[0] and str(filesystem) in line[0], said
    assert "Traceback" not in said
    ballast.unlink()
    zantara(home, "run", env=alerting)
    assert_same_tables(published(small_home), published(home))
