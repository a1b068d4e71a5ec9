"""A version that an erasure marked and that still serves is told near its day and past it, and settled when it is replaced."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from recommend_shop import as_of, clustered_events, clustered_products, config, warehouse

from zantara_pipeline.alerts import AlertLedger
from zantara_pipeline.recommend import Bundle, retraining_findings, train_and_evaluate
from zantara_pipeline.recommend.erasure import erase_from_models
from zantara_pipeline.recommend.retraining import KINDS
from zantara_pipeline.registry import open_registry
from zantara_pipeline.storage.ledger import Ledger

DUE = datetime(2026, 4, 10, 15, tzinfo=UTC)
DAY = timedelta(days=1)


def train(home: Path, events: list[Any], **changes: Any) -> Any:
    con = warehouse(events, clustered_products())
    return train_and_evaluate(
        con,
        config(**changes),
        as_of=as_of(),
        home_mlflow=home,
        git_revision="abc",
        ledger=Ledger(home.parent / "ledger.db"),
    )


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    home = tmp_path_factory.mktemp("registry") / "mlflow"
    train(home, clustered_events())
    [folder] = home.glob("artifacts/**/bundle")
    gone = Bundle.load(folder).user_ids[0].as_py()
    erase_from_models(home, [gone], DUE)
    return home, gone


@pytest.fixture
def erased(once: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A registry whose one version was trained on somebody who was erased, and who that was."""
    return shutil.copytree(once[0], tmp_path / "mlflow"), once[1]


@pytest.mark.parametrize(
    ("days", "kinds"),
    [
        (-30, []), (-8, []), (-7, [("retrain_soon", "warning")]), (0, [("retrain_soon", "warning")]),
        (1, [("retrain_overdue", "critical")]), (400, [("retrain_overdue", "critical")]),
    ],
)  # fmt: skip
def test_it_is_told_a_week_before_its_day_and_from_the_day_after(
    erased: tuple[Path, str], days: int, kinds: list[tuple[str, str]]
) -> None:
    home, gone = erased
    found = retraining_findings(home, DUE - 4000 * DAY, DUE + days * DAY)
    assert [(finding.kind, finding.severity) for finding in found] == kinds
    for finding in found:
        told = f"{finding.subject} {finding.message} {finding.details_json()}"
        assert all(
            word in told for word in ("zantara-recommender", "version 1 ", "2026-04-10", "zantara run", "erased")
        )
        assert gone not in told


def test_the_later_clock_counts(erased: tuple[Path, str]) -> None:
    home, _ = erased
    kinds = [
        [finding.kind for finding in retraining_findings(home, run, wall)]
        for run, wall in ((DUE - 4000 * DAY, DUE + DAY), (DUE + DAY, DUE - 20 * DAY), (DUE - 20 * DAY, DUE - 20 * DAY))
    ]
    assert kinds == [["retrain_overdue"], ["retrain_overdue"], []]


def test_it_stays_open_while_too_little_is_left_to_train_on_and_is_settled_by_a_new_version(
    erased: tuple[Path, str], tmp_path: Path
) -> None:
    home, gone = erased
    ledger = AlertLedger(tmp_path / "alerts.db")

    def run(day: datetime, **changes: Any) -> tuple[int, int]:
        rest = [row for row in clustered_events() if row[0] != gone]
        train(home, rest, **changes)
        raised, resolved = ledger.sync(retraining_findings(home, day, day), day, KINDS)
        return len(raised), len(resolved)

    few = {"data": {"min_users": 10_000}}
    assert run(DUE - 3 * DAY, **few) == (1, 0)
    assert run(DUE - 2 * DAY, **few) == (0, 0)
    assert run(DUE + DAY, **few) == (1, 1), "the warning becomes the critical one"
    assert run(DUE + 2 * DAY, **few) == (0, 0)
    assert [alert.kind for alert in ledger.alerts(open_only=True)] == ["retrain_overdue"]
    assert run(DUE + 3 * DAY) == (0, 1)
    assert ledger.alerts(open_only=True) == []


def test_a_marked_version_that_does_not_serve_any_more_is_nobodys_worry(
    erased: tuple[Path, str], tmp_path: Path
) -> None:
    home, _ = erased
    assert len(retraining_findings(home, DUE + DAY, DUE + DAY)) == 1
    with open_registry(home, "zantara-recommender", write=True) as registry:
        registry._client.delete_registered_model_alias("zantara-recommender", "champion")
    assert retraining_findings(home, DUE + DAY, DUE + DAY) == []
    nowhere = tmp_path / "nowhere"
    assert retraining_findings(nowhere, DUE, DUE) == [] and not nowhere.exists(), "nothing was ever trained"
