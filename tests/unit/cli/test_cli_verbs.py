"""The `zantara` command as people meet it: its own process, exit codes, one line for what is wrong, nothing but JSON for machines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from event_lines import event, text, viewed
from pipeline_homes import zantara
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.errors import InputError
from zantara_pipeline.settings import load_settings

SECRET = "joe@example.com"
MIXED = [
    event(),
    viewed(price="5"),
    event(consent=None),
    f"{SECRET} broke the line",
    viewed(shelf=1, currency=SECRET),
    viewed(**{SECRET: 1}),
]


def verbs(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path
    for name, sub in (inner or {}).items():
        yield from verbs(sub, (*path, name))


VERBS = sorted(verbs(typer.main.get_command(app)))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "mixed.jsonl"
    path.write_bytes(text(MIXED))
    return path


def test_the_verbs_that_are_promised_are_there() -> None:
    promised = {("run",), ("simulate",), ("ui",), ("models",), ("docs",), ("events", "validate")}
    promised |= {("segments", verb) for verb in ("list", "show", "members", "why", "preview")}
    assert promised <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_says_what_a_verb_does_with_an_example(verb: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*verb, "--help"], prog_name="zantara")
    assert done.exit_code == 0 and f"Example: zantara {' '.join(verb)}" in done.output


def test_help_leaves_no_home(home: Path) -> None:
    done = zantara(home, "run", "--help")
    assert "Example: zantara run" in done.out and done.err == "" and not home.exists()


def test_a_verb_that_there_is_not(home: Path) -> None:
    assert zantara(home, "predict", code=2).only_line == "zantara: No such command 'predict'; see `zantara --help`"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["events", "validate"], "Missing argument 'file'"),
        (
            ["plan", "codegen"],
            "Missing argument 'output'. Choose from: json-schema, dbt, page, python, typescript; see `zantara plan codegen --help`",
        ),
        (["simulate", "--events", "many"], "Invalid value for '--events'"),
    ],
)
def test_wrong_usage_is_one_line(home: Path, arguments: list[str], said: str) -> None:
    line = zantara(home, *arguments, code=2).only_line
    verb = " ".join(arguments[: 1 if arguments[0] == "simulate" else 2])
    assert said in line and line.endswith(f"see `zantara {verb} --help`")


def test_a_group_without_a_verb_shows_its_verbs(home: Path) -> None:
    done = zantara(home, "events", code=2)
    assert "validate" in done.out + done.err


def test_validate_counts_and_names_lines_and_reasons(home: Path, mixed: Path) -> None:
    done = zantara(home, "events", "validate", mixed, code=1)
    first, *rest = done.out.splitlines()
    assert first == f"{mixed}: 6 rows in, 1 accepted, 3 quarantined, 1 suppressed, 1 unparsable"
    assert "  line 2: wrong_type $.properties.price (expected money, is string)" in rest
    assert "  line 4: unparsable $ (expected a JSON object, is text)" in rest
    (line,) = [line for line in rest if line.startswith("  line 5:")]
    assert "unknown_key $.properties.shelf (expected declared properties only, is object)" in line
    assert SECRET not in done.out
    assert done.err == "" and not home.exists()


def test_validate_as_json_names_as_many_lines_as_asked(home: Path, mixed: Path) -> None:
    done = zantara(home, "events", "validate", mixed, "--json", "--lines", "2", code=1)
    told = json.loads(done.out)
    counts = {"rows_in": 6, "accepted": 1, "quarantined": 3, "suppressed": 1, "unparsable": 1, "late": 0}
    assert {name: told[name] for name in counts} == counts
    assert [line["line"] for line in told["failing_lines"]] == [2, 4]
    price = {
        "event": "product_view",
        "code": "wrong_type",
        "path": "$.properties.price",
        "expected": "money",
        "rows": 1,
    }
    assert price in told["reasons"]
    assert SECRET not in done.out and done.err == ""


def test_validate_succeeds_where_nothing_is_wrong(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "good.jsonl.gz"
    path.write_bytes(gzip.compress(text([event(), event(consent=None)])))
    assert "2 rows in, 1 accepted" in zantara(home, "events", "validate", path).out


def test_validate_says_that_a_file_holds_no_line(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "blank.jsonl"
    path.write_text("\n \n")
    assert zantara(home, "events", "validate", path).out == f"{path}: it holds no line\n"


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_file_that_cannot_be_validated_is_one_line(home: Path, tmp_path: Path, form: list[str]) -> None:
    path = tmp_path / "torn.jsonl.gz"
    said = "no such file"
    if form:
        path.write_bytes(gzip.compress(text([event()] * 500))[:-20])
        said = "truncated or damaged"
    done = zantara(home, "events", "validate", path, *form, code=2)
    assert said in done.only_line and str(path) in done.only_line
    assert done.out == ""


def test_a_slip_in_the_plan_is_one_line(home: Path, mixed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "contracts" / "tracking_plan"
    folder.mkdir(parents=True)
    (folder / "ping.yaml").write_text("event: ping\nverison: 1-0-0\n")
    env = {"ZANTARA_CONTRACTS": str(tmp_path / "contracts")}
    line = zantara(home, "events", "validate", mixed, env=env, code=2).only_line
    assert line == f"zantara: {folder / 'ping.yaml'}:2: key 'verison': unknown key; did you mean 'version'?"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ZANTARA_AS_OF", "yesterday"),
        ("ZANTARA_AS_OF", "2026-03-01T00:00:00"),
        ("ZANTARA_AS_OF", "2026-13-01T00:00:00Z"),
        ("ZANTARA_AS_OF", "2026"),
        ("ZANTARA_AS_OF", "20260301"),
        ("ZANTARA_AS_OF", "0001-01-01T00:00:00+05:00"),
        ("ZANTARA_THREADS", "0"),
        ("ZANTARA_MEMORY_LIMIT", "lots"),
        ("ZANTARA_CONTRACTS", "/nowhere/at/all"),
        ("ZANTARA_MAX_LATENESS_DAYS", "a month"),
    ],
)
def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as error:
        load_settings()
    assert f"setting {name}" in str(error.value) and "\n" not in str(error.value)
    assert name != "ZANTARA_AS_OF" or str(error.value).endswith("; write it like 2026-03-01T00:00:00Z")


def test_the_clock_is_utc_whatever_zone_it_was_given_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZANTARA_AS_OF", "2026-03-01T02:00:00+05:00")
    as_of = load_settings().as_of
    assert as_of is not None and as_of.isoformat() == "2026-02-28T21:00:00+00:00"


def test_a_setting_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell and a compose file leave it; the working folder is nobody's contracts."""
    for name in ("CONTRACTS", "LANDING", "AS_OF", "FORMAT", "PII_KEYS"):
        monkeypatch.setenv(f"ZANTARA_{name}", "")
    found = load_settings()
    assert (found.contracts, found.landing, found.as_of, found.format, found.pii_keys) == (
        None,
        None,
        None,
        "auto",
        None,
    )


def test_contracts_one_folder_too_deep_are_named(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "contracts" / "tracking_plan"
    folder.mkdir(parents=True)
    (folder / "ping.yaml").write_text("event: ping\nversion: 1-0-0\n")
    env = {"ZANTARA_CONTRACTS": str(folder)}
    for command in (("plan", "lint"), ("run", "--simulated-shop")):
        done = zantara(home, *command, env=env, code=1 if command[0] == "plan" else 2)
        assert f"name the folder above it, {tmp_path / 'contracts'}" in done.out + done.err


def test_validate_shows_paths_and_rules_whole_whatever_stands_in_them(home: Path, tmp_path: Path) -> None:
    """A pattern such as [A-Z] is no markup, and nothing is cut where no terminal is."""
    (tmp_path / "tracking_plan").mkdir()
    name = "a_property_with_a_name_of_forty_letters"
    (tmp_path / "tracking_plan" / "gift.yaml").write_text(
        f"event: gift\nversion: 1-0-0\nconsent_category: analytics\nproperties:\n  {name}: {{type: string, pattern: '^[a-z]{{3}}[/b]$'}}\n"
    )
    lines = [event("gift", {name: "x"}), event("gift", {"[/b]": 1}), event("gift", {}, consent={"analytics": False})]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = zantara(home, "events", "validate", file, env={"ZANTARA_CONTRACTS": str(tmp_path)}, code=1)
    assert f"gift pattern_mismatch $.properties.{name} ^[a-z]{{3}}[/b]$ 1" in " ".join(done.out.split())
    assert "suppressed lines do not grant (`consent`) the purpose that their event needs\n" in done.out


def test_a_bad_clock_of_a_run_is_one_line(home: Path) -> None:
    assert "ZANTARA_AS_OF" in zantara(home, "run", "--as-of", "2026-03-01T00:00:00", code=2).only_line


def test_segments_before_any_run_say_what_to_do(home: Path) -> None:
    done = zantara(home, "segments", "list", "--json", code=2)
    assert done.only_line.endswith("nothing has been published here yet; run `zantara run` first")
    assert done.out == ""


def test_alerts_before_any_run_are_none(home: Path) -> None:
    home.mkdir()
    assert zantara(home, "alerts", "list").out.strip() == "no alerts"
    assert json.loads(zantara(home, "alerts", "list", "--json").out) == []


def test_simulate_prints_nothing_but_its_truth_under_json(home: Path, tmp_path: Path) -> None:
    done = zantara(home, "simulate", "--events", "2000", "--seed", "3", "--out", tmp_path / "shop", "--json")
    assert json.loads(done.out) == json.loads((tmp_path / "shop" / "truth.json").read_text())
    assert "simulated" in done.err


def test_simulating_over_somebody_elses_folder_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").write_text("mine")
    line = zantara(home, "simulate", "--events", "2000", "--out", tmp_path / "shop", code=2).only_line
    assert str(tmp_path / "shop") in line
    assert (tmp_path / "shop" / "mine.txt").read_text() == "mine"


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = zantara(tmp_path / "file" / "home", "simulate", "--events", "2000", code=2).only_line
    assert "cannot be written" in line and "set ZANTARA_HOME" in line


def test_run_on_a_path_that_is_not_there_is_one_line(home: Path, tmp_path: Path) -> None:
    line = zantara(home, "run", "--items", tmp_path / "nowhere", code=2).only_line
    assert "--items" in line and "no such file or folder" in line
