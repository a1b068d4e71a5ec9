"""The generated TypeScript client: tsc refuses what the plan does not know, Node and browsers run it, the pipeline takes what it writes.

What it does with consent, batches and retries stands in test_clients_alike.py, for every language.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from event_lines import RULES, Shop
from node_tools import CLIENTS, ROOT, needs_typescript, node, tsc

from zantara_pipeline.contracts_io import PACKAGED
from zantara_pipeline.tracking.codegen import write_output
from zantara_pipeline.tracking.codegen.typescript_client import javascript_pattern, typescript_client_files
from zantara_pipeline.tracking.plan import EventPlan, TrackingPlan, load_plan
from zantara_pipeline.tracking.verdict import Rules

PLAN = load_plan((PACKAGED, CLIENTS / "contracts"))
MY_RULES = Rules(PLAN, late_after_hours=RULES.late_after_hours, max_lateness_days=RULES.max_lateness_days)
STRICTEST = (
    "--noUncheckedIndexedAccess --exactOptionalPropertyTypes --noImplicitOverride --noImplicitReturns --noUnusedLocals "
    "--noPropertyAccessFromIndexSignature --noUnusedParameters --isolatedModules --erasableSyntaxOnly --declaration"
)
# tsc's own defaults (ES5); Node's modules without any library of browsers; a bundler with browsers' types and every strictness.
COMPILERS = {
    "defaults": "",
    "node": "--target es2022 --module nodenext --lib es2022",
    "browser": f"--target es2022 --module esnext --moduleResolution bundler --lib es2022,dom {STRICTEST}",
}

HEAD = """import { FileSink, HttpSink, TrackingClient, type Sink } from "./zantara_events.js";
const mine: Sink = { send: (events) => void events.map((one) => one.event_id) };
const client = new TrackingClient(mine, { analytics: true });
"""
RIGHT = """client.track("product_view", { product_id: "p", category: "audio", price: 9.5, currency: "EUR" }, { consent: "analytics" });
client.track("product_view", { product_id: "p", price: null }, { consent: "analytics" });
client.track("order_checked", { code: "AB-1", note: null, size: "l'xl", pieces: 2, gift: true, class: "c", constructor: "k" }, { consent: "analytics" });
const made: { product_id: string; brand?: string } = { product_id: "p" };
client.track("product_view", made, { consent: "analytics" });
client.track("help_opened", {}, { consent: "analytics" });
client.track("event", {}, { consent: "personalization" });
const id: string | null = client.track("event", {}, { consent: "personalization" });
client.context = { platform: "web", country: "DE" };
new TrackingClient(new FileSink("x.jsonl"), () => ({ analytics: true, personalization: null }), { batchSize: 5, random: () => 0.5 });
new TrackingClient(new HttpSink("/events", { timeoutMs: 500 }), {}).setConsent({ personalization: true });
client.flush().then((empty: boolean) => void [empty, id]);
"""
WRONG = {
    "unknown event": 'client.track("product_viewed", { product_id: "p" }, { consent: "analytics" });',
    "missing property": 'client.track("product_view", { price: 9.5 }, { consent: "analytics" });',
    "misspelt property": 'client.track("product_view", { product_id: "p", prize: 9.5 }, { consent: "analytics" });',
    "mistyped property": 'client.track("product_view", { product_id: "p", price: "9.5" }, { consent: "analytics" });',
    "unknown category": 'client.track("product_view", { product_id: "p" }, { consent: "marketing" });',
    "another event's category": 'client.track("product_view", { product_id: "p" }, { consent: "personalization" });',
    "no category": 'client.track("product_view", { product_id: "p" }, {});',
    "no options": 'client.track("product_view", { product_id: "p" });',
    "word outside the enum": 'client.track("order_checked", { code: "AB-1", note: "x", size: "xl" }, { consent: "analytics" });',
    "null where it must be": 'client.track("order_checked", { code: null, note: "x" }, { consent: "analytics" });',
    "null in a non-null option": 'client.track("order_checked", { code: "AB-1", note: "x", pieces: null }, { consent: "analytics" });',
    "nullable, but missing": 'client.track("order_checked", { code: "AB-1" }, { consent: "analytics" });',
    "text for a truth": 'client.track("order_checked", { code: "AB-1", note: "x", gift: "yes" }, { consent: "analytics" });',
    "property of another event": 'client.track("help_opened", { product_id: "p" }, { consent: "analytics" });',
    "property of an event without any": 'client.track("event", { topic: "x" }, { consent: "personalization" });',
    "event without a category": 'client.track("never_granted", {}, { consent: "analytics" });',
    "retired event": 'client.track("gone", {}, { consent: "analytics" });',
    "unknown purpose": "client.setConsent({ marketing: true });",
    "context that is not kept": 'client.context = { referrer: "x" };',
}


@needs_typescript
@pytest.mark.parametrize("options", COMPILERS.values(), ids=COMPILERS)
def test_tsc_takes_right_calls_and_refuses_each_wrong_one_on_its_line(options: str, tmp_path: Path) -> None:
    write_output(typescript_client_files(PLAN), tmp_path)
    (tmp_path / "app.ts").write_text(HEAD + RIGHT + "\n".join(WRONG.values()) + "\n")
    expected = "".join(f"// @ts-expect-error {name}\n{call}\n" for name, call in WRONG.items())
    (tmp_path / "expected.ts").write_text(HEAD + RIGHT + expected)
    done = tsc(tmp_path, "--noEmit", *options.split(), "app.ts", "expected.ts")
    errors = re.findall(r"^(\S+)\((\d+),\d+\): error", done.stdout, re.MULTILINE)
    first = (HEAD + RIGHT).count("\n") + 1
    assert {(file, int(line)) for file, line in errors} == {("app.ts", first + n) for n in range(len(WRONG))}, (
        done.stdout
    )


def smaller(*names: str) -> TrackingPlan:
    return TrackingPlan({name: PLAN.events[name] for name in names}, PLAN.privacy)


@needs_typescript
def test_browsers_fetch_can_be_given_and_plans_of_no_or_one_event_are_clients_too(tmp_path: Path) -> None:
    for folder, names in {"none": (), "one": ("event",)}.items():
        write_output(typescript_client_files(smaller(*names)), tmp_path / folder)
    (tmp_path / "app.ts").write_text(
        'import { HttpSink, TrackingClient } from "./one/zantara_events.js";\n'
        'import { TrackingClient as Nothing } from "./none/zantara_events.js";\n'
        'const client = new TrackingClient(new HttpSink("/events", { fetch }), {});\n'
        'client.track("event", {}, { consent: "personalization" });\n'
        "// @ts-expect-error\n"
        'client.track("help_opened", {}, { consent: "analytics" });\n'
        "// @ts-expect-error\n"
        'new Nothing(new HttpSink("/events"), {}).track("event", {}, { consent: "personalization" });\n'
    )
    done = tsc(tmp_path, "--noEmit", *COMPILERS["browser"].split(), "app.ts")
    assert done.returncode == 0, done.stdout


@needs_typescript
def test_the_how_to_compiles(tmp_path: Path) -> None:
    blocks = re.findall(r"```ts\n(.*?)```", (ROOT / "docs" / "how-to-send-events.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    write_output(typescript_client_files(PLAN), tmp_path)
    (tmp_path / "app.ts").write_text(
        "\n".join([*blocks, 'new TrackingClient(new FileSink("landing/app.jsonl"), {});\n'])
    )
    done = tsc(tmp_path, "--noEmit", *COMPILERS["browser"].split(), "app.ts")
    assert done.returncode == 0, done.stdout


# ---- what the client writes, and what the pipeline makes of it ------------------------------------------------------
@pytest.fixture(scope="module", params=["commonjs", "es2022"])
def client_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The client compiled for Node, as both kinds of modules."""
    folder = tmp_path_factory.mktemp("client")
    write_output(typescript_client_files(PLAN), folder)
    kind = "commonjs" if request.param == "commonjs" else "module"
    (folder / "package.json").write_text(json.dumps({"type": kind}))
    done = tsc(folder, "--target", "es2020", "--module", request.param, "zantara_events.ts")
    assert done.returncode == 0, done.stdout
    yield folder / "zantara_events.js"


def calls(event_plan: EventPlan, examples: Any) -> list[tuple[str, Any, str | None]]:
    return [(event_plan.event, properties, event_plan.consent_category) for properties in examples]


@needs_typescript
def test_from_client_to_file_to_lake(client_file: Path, tmp_path: Path) -> None:
    shop = Shop(tmp_path / "home", MY_RULES)
    plans = [plan for plan in PLAN.events.values() if plan.examples.valid]
    right = [call for plan in plans for call in calls(plan, plan.examples.valid)]
    right += [("order_checked", {"code": "AB-\r", "note": "𝄞" * 5, "total": 19}, "analytics"), ("help_opened", {}, "analytics")]  # fmt: skip
    wrong = [call for plan in plans for call in calls(plan, [example.properties for example in plan.examples.invalid])]
    answer = node(CLIENTS / "send.mjs", client_file, shop.landing / "new" / "app.jsonl", stdin=right + wrong)
    sent, refused = answer["said"][: len(right)], answer["said"][len(right) :]
    assert len(right) > 15 and all("error" in said for said in refused)
    total = shop.ingest().total
    assert (total.accepted, total.rows_in) == (len(right), len(right)), shop.reasons()
    rows = shop.accepted()
    assert {row["event_id"] for row in rows} == set(sent)
    ids = ("user_id", "anonymous_id", "device_id", "session_id", "platform", "country")
    assert {tuple(row[name] for name in ids) for row in rows} == {("u-1", "a-1", "d-1", answer["session"], "web", "DE")}


# ---- patterns -------------------------------------------------------------------------------------------------------
PATTERNS = [
    "^[A-Z]{3}$", "^.$", "^.{1,2}$", r"^a\-b$", r"^[a\-z]$", r"^[\w\-]+$".replace(r"\w", "a-z"), "^[]a]+$", "^[^]a]+$", r"^[\]a]$", r"^[\[a]+$",
    "^a{b$", "^a}b$", "^a]b$", r"^\{a\}$", r"^a\/b$", "^a/b$", r"^\_\:\@\ \#$", r"^[\_\:\@]$", r"^\.\*\?$", "^(?:a|b)+?$", "^(a|bc){2,}$", r"^a\tb\n$",
    r"^\a$", "^é+$", "^[^é]$", "^[𝄞é]+$", "^a|b$", "^$", r"^\\$", r"^[\\/]$", "^[a^]$", "^[a-]$", "^[-a]$", "^[.]$", "^[({|}$]+$",
]  # fmt: skip
WORDS = [
    "", "a", "b", "ab", "a-b", "-", "z", "m", "]", "[", "]a", "x", "a{b", "a}b", "a]b", "{a}", "a/b", "_:@ #", "_", ":", ".", "*", ".*?", "aa", "bcbc", "abc",
    "a\tb\n", "\x07", "é", "éé", "𝄞", "𝄞é", "𝄞𝄞", "\n", "\r", "\u2028", "\\", "/", "^", "a\n", "EUR", "EURO", "EUR\n", "({|}$", "w",
]  # fmt: skip


@needs_typescript
def test_patterns_mean_in_javascript_what_they_mean_in_python(tmp_path: Path) -> None:
    script = tmp_path / "match.mjs"
    script.write_text(
        'import { readFileSync } from "node:fs";\n'
        'const { patterns, words } = JSON.parse(readFileSync(0, "utf8"));\n'
        'console.log(JSON.stringify(patterns.map((one) => words.filter((word) => new RegExp(`^(?:${one})$`, "u").test(word)))));\n'
    )
    found = node(script, stdin={"patterns": [javascript_pattern(one) for one in PATTERNS], "words": WORDS})
    wanted = [[word for word in WORDS if re.fullmatch(one, word)] for one in PATTERNS]
    assert dict(zip(PATTERNS, found, strict=True)) == dict(zip(PATTERNS, wanted, strict=True))
    assert sum(map(len, found)) > 60


# ---- sending --------------------------------------------------------------------------------------------------------
def run(client_file: Path, tmp_path: Path, body: str) -> Any:
    """Run a script that has the client's names; it prints JSON."""
    script = tmp_path / "script.mjs"
    script.write_text(
        f'const {{ FileSink, HttpSink, TrackingClient }} = await import("{client_file.as_uri()}");\n'
        'const track = (client, topic) => client.track("help_opened", topic === undefined ? {} : { topic }, { consent: "analytics" });\n'
        f"const say = (value) => console.log(JSON.stringify(value));\n{body}"
    )
    return node(script)


@needs_typescript
def test_a_collector_gets_each_event_once_it_answers(client_file: Path, tmp_path: Path) -> None:
    """A real collector that is busy, then answers too late, then takes it; then one that nobody runs."""
    told = run(
        client_file,
        tmp_path,
        """
        import http from "node:http";
        const bodies = [], types = [];
        const server = http.createServer((request, response) => {
          let body = "";
          request.on("data", (part) => (body += part));
          request.on("end", () => {
            bodies.push(body);
            types.push([request.method, request.headers["content-type"]]);
            if (bodies.length === 2) return;
            response.writeHead(bodies.length === 1 ? 503 : 200).end("thanks");
          });
        });
        await new Promise((done) => server.listen(0, "127.0.0.1", done));
        const url = `http://127.0.0.1:${server.address().port}/events`;
        const waits = [];
        const settings = { sleep: async (milliseconds) => void waits.push(milliseconds), random: () => 0 };
        const client = new TrackingClient(new HttpSink(url, { timeoutMs: 1500 }), { analytics: true }, settings);
        const id = track(client, "é");
        const sent = await client.flush();
        const failure = String(client.lastError);
        server.closeAllConnections();
        await new Promise((done) => server.close(done));
        track(client);
        say({ id, sent, failure, bodies, types, waits: [...waits], later: await client.flush() });
        """,
    )
    assert told["sent"] is True and told["later"] is False
    assert told["waits"] == [500, 1000]
    assert {json.loads(body)["event_id"] for body in told["bodies"]} == {told["id"]} and len(told["bodies"]) == 3
    assert told["types"] == [["POST", "application/x-ndjson"]] * 3
    assert "Abort" in told["failure"]


@needs_typescript
def test_a_wait_is_a_real_one_where_none_is_given(client_file: Path, tmp_path: Path) -> None:
    milliseconds = run(
        client_file,
        tmp_path,
        """
        let first = true;
        const sink = { send() { if (first) { first = false; throw new Error("not now"); } } };
        const client = new TrackingClient(sink, { analytics: true });
        track(client);
        const start = performance.now();
        await client.flush();
        say(performance.now() - start);
        """,
    )
    assert 240 <= milliseconds < 5000


@needs_typescript
def test_flushes_wait_for_each_other_and_what_is_tracked_meanwhile_is_sent_once(
    client_file: Path, tmp_path: Path
) -> None:
    told = run(
        client_file,
        tmp_path,
        """
        const batches = [];
        const sink = { async send(events) {
          await new Promise((done) => setTimeout(done, 20));
          batches.push(events.map((one) => one.event_id));
        } };
        const client = new TrackingClient(sink, { analytics: true }, { batchSize: 2 });
        const ids = [track(client), track(client), track(client)];
        const first = client.flush();
        await new Promise((done) => setTimeout(done, 5));
        ids.push(track(client), track(client));
        await Promise.all([first, client.flush(), client.flush()]);
        say({ ids, batches });
        """,
    )
    assert [one for batch in told["batches"] for one in batch] == told["ids"]


@needs_typescript
def test_what_is_on_its_way_is_not_counted_as_dropped(client_file: Path, tmp_path: Path) -> None:
    told = run(
        client_file,
        tmp_path,
        """
        const sent = [];
        const sink = { async send(events) {
          await new Promise((done) => setTimeout(done, 20));
          sent.push(...events.map((one) => one.properties.topic));
        } };
        const client = new TrackingClient(sink, { analytics: true }, { mostHeld: 2 });
        track(client, "a"); track(client, "b");
        const first = client.flush();
        await new Promise((done) => setTimeout(done, 5));
        track(client, "c"); track(client, "d"); track(client, "e"); track(client, "f");
        await first;
        await client.flush();
        say({ sent, dropped: client.dropped });
        """,
    )
    assert set("ab") <= set(told["sent"]) and len(told["sent"]) + told["dropped"] == 6
    assert len(set(told["sent"])) == len(told["sent"])


@needs_typescript
def test_withdrawn_while_a_batch_waits_for_its_turn_means_not_sent(client_file: Path, tmp_path: Path) -> None:
    told = run(
        client_file,
        tmp_path,
        """
        const sent = [];
        const sink = { async send(events) {
          await new Promise((done) => setTimeout(done, 20));
          sent.push(...events.map((one) => one.properties.topic));
        } };
        const client = new TrackingClient(sink, { analytics: true }, { batchSize: 1 });
        track(client, "a"); track(client, "b");
        await new Promise((done) => setTimeout(done, 5));
        client.setConsent({ analytics: false });
        say({ empty: await client.flush(), sent, later: track(client, "c") });
        """,
    )
    assert told == {"empty": True, "sent": ["a"], "later": None}


@needs_typescript
def test_a_consent_that_cannot_be_asked_sends_nothing_and_loses_nothing(client_file: Path, tmp_path: Path) -> None:
    told = run(
        client_file,
        tmp_path,
        """
        let broken = false;
        const sent = [];
        const ask = () => { if (broken) throw new Error("no consent banner"); return { analytics: true }; };
        const client = new TrackingClient({ send: (events) => void sent.push(...events) }, ask);
        track(client);
        broken = true;
        const failure = await client.flush().catch((error) => error.message);
        const during = sent.length;
        broken = false;
        say({ failure, during, after: (await client.flush()) && sent.length });
        """,
    )
    assert told == {"failure": "no consent banner", "during": 0, "after": 1}


@needs_typescript
@pytest.mark.parametrize(
    "crypto", ["undefined", "{ getRandomValues: (bytes) => bytes.fill(255) }", "globalThis.crypto"]
)
def test_ids_are_uuids_with_whatever_randomness_there_is(client_file: Path, tmp_path: Path, crypto: str) -> None:
    ids = run(
        client_file,
        tmp_path,
        f"""
        Object.defineProperty(globalThis, "crypto", {{ value: {crypto}, configurable: true }});
        const client = new TrackingClient({{ send() {{}} }}, {{ analytics: true }}, {{ batchSize: 5000 }});
        say(Array.from({{ length: 2000 }}, () => track(client)));
        """,
    )
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one) for one in ids)
    assert len(set(ids)) == (1 if "fill" in crypto else 2000)


@needs_typescript
def test_a_browser_needs_nothing_of_node(client_file: Path, tmp_path: Path) -> None:
    """The compiled file in a context that has what browsers have and neither require nor process."""
    source = client_file.read_text(encoding="utf-8")
    assert not re.findall(r"^import |require\([\"']|import\([\"']", source, re.MULTILINE)
    told = run(
        client_file,
        tmp_path,
        """
        import { readFileSync } from "node:fs";
        import { fileURLToPath } from "node:url";
        import vm from "node:vm";
        const asked = [];
        const window = vm.createContext({
          exports: {}, setTimeout, clearTimeout, AbortController, crypto: { getRandomValues: (bytes) => crypto.getRandomValues(bytes) },
        });
        window.fetch = async function (url, init) {
          if (this !== window && this !== undefined && !("exports" in this)) throw new TypeError("Illegal invocation");
          asked.push({ url, keepalive: init.keepalive, lines: init.body.trim().split("\\n").length });
          return { ok: true, status: 204 };
        };
        const source = readFileSync(FILE, "utf8").replace(/^export /gm, "");
        vm.runInContext(source + "\\nthis.made = new TrackingClient(new HttpSink('/events'), { analytics: true });", window);
        track(window.made); track(window.made);
        const small = await window.made.flush();
        for (let n = 0; n < 19; n++) track(window.made, "x".repeat(2000));
        const large = await window.made.flush();
        const none = vm.runInContext("new TrackingClient(new FileSink('x'), { analytics: true }, { tries: 1 })", window);
        track(none);
        say({ small, large, asked, file: await none.flush() });
        """.replace("FILE", json.dumps(str(client_file))),
    )
    assert (told["small"], told["large"], told["file"]) == (True, True, False)
    assert told["asked"] == [
        {"url": "/events", "keepalive": True, "lines": 2},
        {"url": "/events", "keepalive": False, "lines": 19},
    ]
