"""What is handed out: pseudonyms and days, one file a destination, and no way from the one to the other or to a person.

The warehouse is a made-up one; the oracle of pseudonyms is RFC 2104 by Python's own hmac.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from event_lines import Shop, event
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from segment_meta import META
from typer.testing import CliRunner

from zantara_pipeline.cli.app import app
from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.errors import InputError
from zantara_pipeline.orchestration.erasure import hands
from zantara_pipeline.privacy import erasure
from zantara_pipeline.privacy.decoding import hits_in, scan
from zantara_pipeline.privacy.keyed_hash import Key, Keyring, load_keyring
from zantara_pipeline.privacy.people import Matcher, People
from zantara_pipeline.segments.contract import Segment, SegmentMeta
from zantara_pipeline.segments.destinations import check_destinations, key_of, named
from zantara_pipeline.segments.exports import (
    Clock,
    Written,
    _fill,
    erase_from_exports,
    file_of,
    memberships,
    opened,
    pseudonyms_of,
    remove_others,
    told,
    write_exports,
)
from zantara_pipeline.segments.lifecycle import record_membership
from zantara_pipeline.segments.reading import readings
from zantara_pipeline.segments.tables import sizes_of, write_tables
from zantara_pipeline.segments.visibility import load_rules, record_sizes
from zantara_pipeline.settings import Settings
from zantara_pipeline.storage.engine import publish, published, warehouse
from zantara_pipeline.storage.home import Home
from zantara_pipeline.storage.inventory import unexplained
from zantara_pipeline.storage.ledger import Ledger
from zantara_pipeline.tracking.plan import Destination, PrivacyContract, load_plan

LIMITS: dict[str, Any] = {"threads": 1, "memory_limit": "500MB"}
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
K1, K2 = Key("k1", b"1" * 32), Key("k2", b"2" * 32)
RING = Keyring((K1,))
SEGMENTS = {"seg_buyers": "user", "seg_readers": "user", "seg_carts": "session", "seg_inner": "user"}
COLUMNS = {"user": "u", "session": "s"}


def destination(name: str, *segments: str, **changes: Any) -> Destination:
    said = {"name": name, "description": "d", "recipient": f"{name} Ltd", "owner": "o@example.com",
            "purposes": ["personalization"], "segments": segments or ("seg_buyers",)}  # fmt: skip
    return Destination.model_validate(said | changes)


class House:
    """A home after a run, of which only what exports read was made; members are u-0, u-1, ... and sessions s-0, s-1, ..."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root).create()
        self.ledger = Ledger(self.home.state / "ledger.db")

    def run(
        self, *destinations: Destination, ring: Keyring | None = RING, sizes: dict[str, int] | None = None,
        denied: Sequence[str] = (), as_of: datetime = NOW, live: bool = True, expires: timedelta = 30 * DAY,
    ) -> list[Written]:  # fmt: skip
        """Everybody stays until `expires` after the clock, to the microsecond of their own; member 0 until the day after."""
        sizes = sizes or dict.fromkeys(SEGMENTS, 20)
        segments = [
            Segment(name, f"who is in {name}", "select 1", SegmentMeta.model_validate(
                META | {"entity": SEGMENTS[name], "access_level": "internal" if name == "seg_inner" else "export"}))
            for name in sizes
        ]  # fmt: skip
        with warehouse(self.home, **LIMITS) as con:
            con.execute("DROP SCHEMA IF EXISTS segments CASCADE; DROP SCHEMA IF EXISTS core CASCADE")
            con.execute(
                "CREATE SCHEMA segments; CREATE SCHEMA core; CREATE TABLE core.users AS SELECT 'u-' || i AS user_id FROM range(30) r (i)"
            )
            con.execute(
                "CREATE TABLE core.sessions AS SELECT 's-' || i AS session_id, 'u-' || i AS user_id FROM range(30) r (i)"
            )
            con.execute("CREATE TABLE core.consent_history AS SELECT user_id, 'personalization' AS purpose, "
                        "CASE WHEN list_contains($d, user_id) THEN 'denied' ELSE 'granted' END AS status, "
                        "NULL::TIMESTAMPTZ AS effective_from, NULL::TIMESTAMPTZ AS effective_to FROM core.users", {"d": list(denied)})  # fmt: skip
            for name, size in sizes.items():
                con.execute(
                    f"CREATE TABLE segments.{name} AS SELECT '{COLUMNS[SEGMENTS[name]]}-' || i AS entity_id, "
                    "$t - INTERVAL 40 DAY AS entered_at, $t + CASE i WHEN 0 THEN INTERVAL 25 HOUR ELSE $e END "
                    "+ INTERVAL (i) MICROSECOND AS expires_at, 'u-' || i AS secret FROM range($n) r (i)",
                    {"t": as_of, "e": expires, "n": size},
                )
            record_membership(con, self.ledger, segments, as_of)
            found = record_sizes(self.ledger, segments, sizes_of(con, segments), as_of, load_rules())
            write_tables(con, self.ledger, found, as_of)
        remove_others(self.home, [one.name for one in destinations])
        return write_exports(self.home, self.ledger, destinations, ring, Clock(as_of, live), **LIMITS)

    def publish(self) -> None:
        with warehouse(self.home, **LIMITS) as con:
            outside = readings(con, as_of=NOW, live=True, restricted=False)
        publish(self.home, **LIMITS, readings=outside)

    def rows(self, name: str, segment: str = "seg_buyers") -> list[tuple[str, datetime]]:
        with opened(file_of(self.home, name)) as con:
            return con.execute(f"FROM {segment}").fetchall()

    def pseudonyms(self, name: str, segment: str = "seg_buyers") -> list[str]:
        return [row[0] for row in self.rows(name, segment)]

    def people(self, *users: str) -> People:
        found = People(frozenset(users))
        return People(found.users, pseudonyms=pseudonyms_of(self.home, found, RING))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "home")


def everything(path: Path) -> str:
    """All that the engine gives out of a file: rows, names, comments, SQL of views; and its bytes, as they lie on disk."""
    with opened(path) as con:
        said = [
            con.execute(f"FROM {what}").fetchall() for what in ("duckdb_columns()", "duckdb_views()", "duckdb_tables()")
        ]
        tables = con.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
        said += [con.execute(f'FROM "{schema}"."{table}"').fetchall() for schema, table in tables]
    return f"{said} {path.read_bytes().decode('latin-1')}"


def oracle(secret: bytes, name: str, what: str) -> str:
    own = hmac.new(secret, f"zantara_pipeline: pseudonyms for {name}".encode(), hashlib.sha256).digest()
    return hmac.new(own, what.encode(), hashlib.sha256).hexdigest()


def test_a_destination_receives_keyed_hashes_and_days_and_nothing_else(house: House) -> None:
    house.run(destination("ads"))
    expected = sorted(oracle(K1.secret, "ads", f"user u-{i}") for i in range(20))
    assert house.pseudonyms("ads") == expected, "in an order that says nothing of the ids"
    with opened(file_of(house.home, "ads")) as con:
        columns = con.execute(
            "SELECT DISTINCT column_name FROM duckdb_columns() WHERE table_name = 'seg_buyers'"
        ).fetchall()
        assert sorted(columns) == [("expires_at",), ("pseudonym",)]
    days = {until for _, until in house.rows("ads")}
    assert len(days) == 2 and all(day == day.replace(hour=0, minute=0, second=0, microsecond=0) for day in days)
    assert max(days) <= NOW + 30 * DAY + timedelta(microseconds=20), "nobody longer than in the segment"


def test_nobody_who_has_the_file_finds_an_id_in_it(house: House) -> None:
    house.run(destination("ads", "seg_buyers", "seg_carts"))
    house.publish()
    ids = {f"{kind}-{i}" for kind in "us" for i in range(20)}
    control, searched = Matcher(ids), Matcher(ids)
    assert hits_in(house.home.published, control) > 60 and control.found == ids
    path = file_of(house.home, "ads")
    assert hits_in(path, searched) == 0 and not searched.found
    text = everything(path)
    assert not [one for one in ids if f"'{one}'" in text or f'"{one}"' in text]
    assert META["owner"] not in text and "o@example.com" not in text and str(house.home.root) not in text
    for secret in (K1.secret, key_of(K1, "ads").secret):
        assert secret.hex() not in text and secret.decode("latin-1") not in text


def test_two_destinations_cannot_join_their_files(house: House) -> None:
    house.run(destination("ads", "seg_buyers", "seg_readers"), destination("mail", "seg_buyers"))
    ads, mail = house.rows("ads"), house.rows("mail")
    assert len(ads) == len(mail) == 20 and not {one for one, _ in ads} & {one for one, _ in mail}
    assert set(house.pseudonyms("ads", "seg_readers")) == {one for one, _ in ads}, (
        "one recipient knows its people again"
    )
    # the moment that each person has alone is in neither file, and the place in the file is that of the pseudonym
    assert len({until for _, until in ads}) == 2
    real = {oracle(K1.secret, name, f"user u-{i}"): i for name in ("ads", "mail") for i in range(20)}
    assert [real[one] for one, _ in ads] != [real[one] for one, _ in mail]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5), st.sampled_from(["user", "device", "session"]))
def test_pseudonyms_of_the_engine_are_those_of_python(ids: list[str], entity: str) -> None:
    from zantara_pipeline.privacy.keyed_hash import SqlTokens

    with duckdb.connect() as con:
        sql = SqlTokens(con, Keyring((key_of(K1, "ads"),))).digest_of(f"'{named(entity, '')}' || id")
        ids = [one.replace("\0", "") for one in ids]
        got = con.execute(f"SELECT {sql} FROM (SELECT unnest(?::VARCHAR[]) AS id)", [ids]).fetchall()
    assert [row[0] for row in got] == [oracle(K1.secret, "ads", f"{entity} {one}") for one in ids]


MEMBER = st.tuples(st.integers(0, 30), st.booleans())  # hours that are left, and whether the person consents now


@settings(deadline=None, max_examples=40)
@given(st.lists(MEMBER, max_size=8), st.integers(1, 6), st.booleans(), st.integers(0, 23))
def test_a_file_holds_those_who_may_be_handed_out_and_nobody_else(
    members: list[tuple[int, bool]], min_size: int, visible: bool, hour: int
) -> None:
    """Whatever the memberships are: who consents, whose last whole day is not over, of a segment that is large enough."""
    as_of = datetime(2026, 3, 1, hour, 30, tzinfo=UTC)
    with duckdb.connect() as con:
        con.execute(
            "SET TimeZone = 'UTC'; SET threads = 1; ATTACH ':memory:' AS w; ATTACH ':memory:' AS p; CREATE SCHEMA w.segments; "
            "CREATE SCHEMA w.core; CREATE SCHEMA w.state; CREATE TABLE w.segments.catalog AS SELECT 'seg_buyers' AS segment, "
            "'d' AS description, 'personalization' AS purpose, 'consent' AS legal_basis, 'user' AS entity, 30 AS ttl_days, "
            f"{min_size} AS min_size, 'export' AS access_level; "
            f"CREATE TABLE w.state.segment_visibility AS SELECT 'seg_buyers' AS segment, {visible} AS visible; "
            "CREATE TABLE w.segments.seg_buyers (entity_id VARCHAR, expires_at TIMESTAMPTZ); CREATE TABLE w.core.consent_history "
            "(user_id VARCHAR, purpose VARCHAR, status VARCHAR, effective_to TIMESTAMPTZ)"
        )
        for number, (hours, consents) in enumerate(members):
            ends = as_of + timedelta(hours=hours, microseconds=number + 1)
            con.execute("INSERT INTO w.segments.seg_buyers VALUES (?, ?)", [f"u-{number}", ends])
            said = (
                ("personalization", "granted")
                if consents
                else ("analytics", "granted")
                if number % 2
                else ("personalization", "denied")
            )
            con.execute("INSERT INTO w.core.consent_history VALUES (?, ?, ?, NULL)", [f"u-{number}", *said])
        _fill(con, destination("ads"), K1, Clock(as_of, live=False))
        found = set(con.execute("FROM p.main.seg_buyers").fetchall())
        kept = set(con.execute("FROM p.expiring.seg_buyers").fetchall())
    midnights = [(n, (as_of + timedelta(hours=hours, microseconds=n + 1)).replace(hour=0, minute=0, second=0, microsecond=0))
                 for n, (hours, consents) in enumerate(members) if consents]  # fmt: skip
    expected = {(oracle(K1.secret, "ads", f"user u-{n}"), day) for n, day in midnights if day > as_of}
    assert found == kept == (expected if visible and len(expected) >= min_size else set())


def test_a_small_segment_leaves_nothing_in_the_file_and_no_size(house: House) -> None:
    [written] = house.run(destination("ads", "seg_buyers", "seg_readers"), sizes={"seg_buyers": 20, "seg_readers": 9})
    house.publish()
    assert written.members == {"seg_buyers": 20, "seg_readers": None}
    with opened(file_of(house.home, "ads")) as con:
        assert con.execute("SELECT count(*) FROM expiring.seg_readers").fetchall() == [(0,)]
        assert con.execute("SELECT segment, members FROM catalog ORDER BY 1").fetchall() == [
            ("seg_buyers", 20),
            ("seg_readers", None),
        ]
    with published(house.home) as con:
        assert con.execute("SELECT count(*) FROM segments.seg_readers").fetchall() == [(0,)]


def test_whoever_does_not_consent_now_is_not_handed_out_whatever_the_segment_says(house: House) -> None:
    house.run(destination("ads"), denied=["u-3", "u-4"])
    assert set(house.pseudonyms("ads")) == {
        oracle(K1.secret, "ads", f"user u-{i}") for i in range(20) if i not in (3, 4)
    }


def test_a_file_that_lies_around_shows_nobody_past_their_time_and_no_small_rest(house: House) -> None:
    house.run(destination("ads"), as_of=NOW - 3 * DAY)
    assert len(house.rows("ads")) == 19
    house.run(destination("ads"), as_of=NOW - timedelta(days=2), expires=1 * DAY, sizes={"seg_buyers": 40})
    assert house.rows("ads") == []
    house.run(destination("history"), as_of=NOW - timedelta(days=400), live=False)
    assert len(house.rows("history")) == 20


def test_what_is_gone_takes_its_file_along(house: House) -> None:
    house.run(destination("ads", "seg_buyers", "seg_readers"), destination("mail"))
    house.run(destination("ads", "seg_readers"))
    assert not (house.home.exports / "mail").exists()
    with opened(file_of(house.home, "ads")) as con:
        assert con.execute(
            "SELECT DISTINCT table_name FROM information_schema.tables WHERE starts_with(table_name, 'seg')"
        ).fetchall() == [("seg_readers",)]
    house.run()
    assert list(house.home.exports.rglob("*")) == [] and unexplained(house.home.root) == []


def test_a_write_that_was_killed_leaves_the_file_of_before_and_nothing_behind(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.run(destination("ads"))
    path = file_of(house.home, "ads")
    before = path.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zantara_pipeline.storage.engine._swap_in", killed)
    with pytest.raises(KeyboardInterrupt):
        house.run(destination("ads"), sizes={"seg_buyers": 12})
    assert path.read_bytes() == before and unexplained(house.home.root) == []
    assert path.with_suffix(".duckdb.new").exists()
    monkeypatch.undo()
    house.run(destination("ads"), sizes={"seg_buyers": 12})
    assert len(house.rows("ads")) == 12 and [one.name for one in path.parent.iterdir()] == ["segments.duckdb"]


def test_a_file_that_is_damaged_is_told_and_written_anew(house: House) -> None:
    house.run(destination("ads"))
    path = file_of(house.home, "ads")
    path.unlink()
    path.write_bytes(b"no database")
    with pytest.raises(InputError, match=r"segments\.duckdb: the file cannot be read; remove it"):
        house.people("u-1")
    house.run(destination("ads"))
    assert len(house.rows("ads")) == 20


def test_a_new_key_gives_new_pseudonyms_and_is_told(house: House) -> None:
    [first] = house.run(destination("ads"))
    before = house.pseudonyms("ads")
    [same] = house.run(destination("ads"))
    assert first.replaced_key is None and same.replaced_key is None and house.pseudonyms("ads") == before
    [rotated] = house.run(destination("ads"), ring=Keyring((K1, K2)))
    assert rotated.told == "exports/ads: every pseudonym is a new one, key 'k2' took the place of 'k1'; tell ads Ltd"
    assert not set(before) & set(house.pseudonyms("ads")) and told(rotated.path)["key_id"] == "k2"
    rotated.path.unlink()  # the ledger remembers, too
    assert house.run(destination("ads"), ring=Keyring((Key("k3", b"3" * 32),)))[0].replaced_key == "k2"


def test_another_key_under_an_old_name_is_refused_and_nothing_written(house: House) -> None:
    house.run(destination("ads"))
    before = house.pseudonyms("ads")
    with pytest.raises(InputError, match=r"ZANTARA_EXPORT_KEYS_FILE: key 'k1' is another one than the 'k1'"):
        house.run(destination("ads"), ring=Keyring((Key("k1", b"x" * 32),)))
    assert house.pseudonyms("ads") == before


def test_an_erased_person_is_found_before_and_nowhere_after(house: House) -> None:
    house.run(
        destination("ads", "seg_buyers", "seg_readers", "seg_carts"),
        destination("mail"),
        sizes=dict.fromkeys(SEGMENTS, 12),
    )
    house.publish()
    person = house.people("u-5")
    found = scan(house.home, person)["exports"]
    held = memberships(house.home, person.pseudonyms)
    assert found.hits == len(held) == 4 and len(found.files) == 2
    assert [(one["destination"], one["segment"]) for one in held] == [
        ("ads", "seg_buyers"), ("ads", "seg_carts"), ("ads", "seg_readers"), ("mail", "seg_buyers")
    ]  # fmt: skip
    before = {name: set(house.pseudonyms(name)) for name in ("ads", "mail")}
    assert erase_from_exports(house.home, person.pseudonyms) == 2
    after = scan(house.home, person)["exports"]
    assert (after.hits, after.unreadable) == (0, []) and memberships(house.home, person.pseudonyms) == []
    assert not [one for one in person.pseudonyms for name in before if one in everything(file_of(house.home, name))]
    for name, was in before.items():
        assert set(house.pseudonyms(name)) == was - person.pseudonyms and len(house.pseudonyms(name)) == 11
    assert house.rows("ads", "seg_carts") == [], "whose a shared session was nobody knows here"
    assert erase_from_exports(house.home, person.pseudonyms) == 0, "and again without harm"


def test_an_erasure_that_was_killed_is_finished_without_the_key(tmp_path: Path) -> None:
    """From the request on, it is known by which pseudonyms the person was handed out; no id and no pseudonym is in the receipt."""
    shop, house = Shop(tmp_path / "home"), House(tmp_path / "home")
    shop.land("a.jsonl", [event(user_id="u-5", event_id="e-1"), event(user_id="u-6", event_id="e-2")])
    shop.ingest()
    house.run(destination("ads"))
    with_key = Settings(home=house.home.root, export_keys=SecretStr(f"k1={K1.secret.hex()}"))
    plan = load_plan(with_key.contract_dirs)
    work = hands(with_key, house.home, house.ledger, plan)
    looked = erasure.look(house.home, house.ledger, work, ["u-5"])
    assert looked.found["exports"].hits == 1
    erasure._Request.new(looked, work).save(house.home)

    without = hands(Settings(home=house.home.root), house.home, house.ledger, plan)
    with pytest.raises(InputError, match="made with key 'k1', which is not given"):
        erasure.look(house.home, house.ledger, without, ["u-6"])
    receipt = erasure.finish_open(house.home, house.ledger, without)
    assert receipt is not None and (receipt.status, receipt.people) == ("complete", 1)
    [exports] = [store for store in receipt.stores if store.store == "exports"]
    assert (exports.hits_before, exports.files_before, exports.hits_after) == (1, 1, 0)
    assert not set(house.pseudonyms("ads")) & looked.people.pseudonyms and len(house.pseudonyms("ads")) == 19
    written = next(house.home.receipts.glob("*.json")).read_text()
    assert not [one for one in (*looked.people.pseudonyms, "u-5") if one in written]


def test_an_erasure_below_min_size_takes_the_segment_along(house: House) -> None:
    house.run(destination("ads"), sizes={"seg_buyers": 12})
    person = house.people(*(f"u-{i}" for i in range(3)))
    erase_from_exports(house.home, person.pseudonyms)
    with opened(file_of(house.home, "ads")) as con:
        assert con.execute("SELECT count(*) FROM expiring.seg_buyers").fetchall() == [(0,)]


def test_an_erasure_touches_only_files_that_hold_the_person(house: House) -> None:
    house.run(destination("ads"), destination("mail", "seg_readers"), sizes={"seg_buyers": 20, "seg_readers": 12})
    path = file_of(house.home, "mail")
    before = path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()
    assert erase_from_exports(house.home, house.people("u-15").pseudonyms) == 1
    assert (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()) == before


def test_without_the_key_of_a_file_nobody_says_who_is_in_it(house: House) -> None:
    assert pseudonyms_of(house.home, People(frozenset({"u-1"})), None) == frozenset(), "there is no file"
    house.run(destination("ads"))
    for ring in (None, Keyring((K2,))):
        with pytest.raises(InputError, match=r"made with key 'k1', which is not given.*zantara run"):
            pseudonyms_of(house.home, People(frozenset({"u-1"})), ring)


def test_the_command_tells_what_is_off_written_and_gone_and_names_nobody(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.run(destination("ad_network"), destination("mail", "seg_readers"), sizes={"seg_buyers": 20, "seg_readers": 9})
    monkeypatch.setenv("ZANTARA_HOME", str(house.home.root))

    def say(*arguments: str, contracts: str | None = None) -> Any:
        if contracts is not None:
            (tmp_path / "contracts").mkdir(exist_ok=True)
            (tmp_path / "contracts" / "privacy.yaml").write_text(contracts)
            monkeypatch.setenv("ZANTARA_CONTRACTS", str(tmp_path / "contracts"))
        return CliRunner().invoke(app, ["segments", "export", *arguments])

    off = say("list").stdout.splitlines()
    assert off == [
        "ad_network: off, and its file goes with the next run. Example Ads Ltd, processor. seg_buyers 20",
        "mail: gone from privacy.yaml, and its file goes with the next run. mail Ltd. seg_readers too few to hand out",
    ]
    on = (PACKAGED / "privacy.yaml").read_text().replace("enabled: false\n", "enabled: true\n")
    shown = say("show", "ad_network", contracts=on).stdout
    for words in (
        "state         written",
        "key_id        k1",
        "segment       seg_buyers: 20 (user, personalization, 30 days, at least 10)",
    ):
        assert words in shown
    told_ = json.loads(say("show", "ad_network", "--json").stdout)
    assert told_["handed_out"][0]["members"] == 20 and told_["recipient"] == "Example Ads Ltd, processor"
    assert not [one for one in house.pseudonyms("ad_network") if one in shown + json.dumps(told_)]
    unknown = say("show", "nobody")
    assert isinstance(unknown.exception, InputError) and "there is no destination of this name" in str(
        unknown.exception
    )
    house.run()
    assert "ad_network: not written yet. Example Ads Ltd, processor. seg_recent_buyers" in say("list").stdout


# ---- the contract

PRIVACY = {"purposes": {name: {"description": "d"} for name in ("analytics", "personalization")},
           "unknown_event_category": "analytics", "unparsable_expiry_days": 7}  # fmt: skip
METAS = {
    name: SegmentMeta.model_validate(META | {"access_level": level})
    for name, level in {"seg_buyers": "export", "seg_inner": "internal", "seg_secret": "restricted"}.items()
}


def checked(tmp_path: Path, *destinations: Destination, ring: Keyring | None = RING) -> str:
    """What is wrong, as lines."""
    import yaml

    path = tmp_path / "privacy.yaml"
    said = [one.model_dump(mode="json") for one in destinations]
    path.write_text(yaml.safe_dump(PRIVACY | {"destinations": said}, sort_keys=False))
    with pytest.raises(InputError) as raised:
        check_destinations(PrivacyContract.model_validate(PRIVACY | {"destinations": said}), METAS, ring, [tmp_path])
    return str(raised.value).replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"segments": ["seg_inner"]}, "'seg_inner' must not leave the house: its access_level is internal; hand out another one"),
        ({"segments": ["seg_secret"]}, "its access_level is restricted"),
        ({"segments": ["seg_nobody"]}, "there is no segment 'seg_nobody'; see `zantara segments list`"),
        ({"segments": ["seg_buyers", "seg_buyers"]}, "'seg_buyers' stands twice; remove one"),
        ({"purposes": ["analytics"]}, "people allowed 'seg_buyers' for personalization, and 'ads' may use it for analytics; remove"),
        ({"purposes": ["sorcery", "personalization"]}, "'sorcery' is not among the purposes (analytics, personalization)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("enabled", [True, False])
def test_what_must_not_be_handed_out_is_refused_with_file_and_line(
    tmp_path: Path, change: dict[str, Any], said: str, enabled: bool
) -> None:
    wrong = checked(tmp_path, destination("ads", **change, enabled=enabled), ring=RING if enabled else None)
    assert said in wrong and wrong.startswith("/privacy.yaml:") and "\n" not in wrong


def test_without_a_key_a_destination_is_refused_in_one_line(tmp_path: Path) -> None:
    wrong = checked(tmp_path, destination("off", enabled=False), destination("ads"), ring=None)
    assert (
        "'ads' is handed pseudonyms, which are keyed hashes, and no key is set; set ZANTARA_EXPORT_KEYS_FILE" in wrong
    )
    assert "\n" not in wrong
    off = PRIVACY | {"destinations": [destination("off", enabled=False).model_dump()]}
    check_destinations(PrivacyContract.model_validate(off), METAS, None, [tmp_path])


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    assert len(checked(tmp_path, destination("ads"), destination("ads", "seg_inner", "seg_secret")).splitlines()) == 3


@pytest.mark.parametrize("change", [{"name": "../up"}, {"name": "Ads"}, {"recipient": ""}, {"owner": "me"}, {"segments": []}, {"key": "x"}])  # fmt: skip
def test_a_slip_in_a_destination_is_no_destination(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Destination.model_validate(destination("ads").model_dump() | change)


def test_keys_are_read_like_those_of_identifiers_and_name_their_own_setting() -> None:
    with pytest.raises(InputError, match=r"setting ZANTARA_EXPORT_KEYS, key 1: the key has fewer than 32 bytes"):
        load_keyring(None, "k1=abcd", "ZANTARA_EXPORT_KEYS")
