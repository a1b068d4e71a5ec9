/*
 * The part of the TypeScript tracking client that is the same for every plan; `typescript_client.py` adds the events.
 * It does what python_runtime.py does; tests/fixtures/clients/behaviour.json holds both to it.
 *
 * Belongs here: envelope, consent, batches, retries, sinks. Does not belong here: anything that depends on the plan.
 */

type Value = string | number | boolean | null;
type State = { readonly [purpose: string]: boolean | null | undefined };

/** One event as the pipeline reads it. */
export interface Envelope {
  event_id: string;
  event: string;
  timestamp: string;
  sent_at?: string;
  user_id?: string;
  anonymous_id?: string;
  session_id?: string;
  device_id?: string;
  organisation_id?: string;
  properties: { [name: string]: Value };
  context?: { [name: string]: string };
  consent: { [purpose: string]: boolean };
}

/** Where batches go. Throws (or rejects) when it cannot take one now; the client tries again later. */
export interface Sink {
  send(events: readonly Envelope[]): Promise<void> | void;
}

/** The part of `fetch` that is used. */
export type Fetch = (
  url: string,
  init: {
    method: string;
    headers: { [name: string]: string };
    body: string;
    keepalive: boolean;
    redirect: "manual";
    signal?: any;
  },
) => Promise<{ ok: boolean; status: number; text?: () => Promise<string> }>;

export interface ClientSettings {
  /** Events per batch. */
  batchSize?: number;
  /** Attempts per batch. Between them the client waits 0.5, 1, 2, ... seconds, 30 at most, less up to a half by chance. */
  tries?: number;
  /**
   * What cannot be sent is kept, so many events at most; beyond that the oldest are dropped and counted. Until a batch is
   * taken `track` tries once after each pause, and the pauses go on growing where the waits ended; `flush` always tries.
   */
  mostHeld?: number;
  /** Waits so many milliseconds. */
  sleep?: (milliseconds: number) => Promise<void>;
  /** A number from 0 up to 1. */
  random?: () => number;
  /** Milliseconds that only grow. */
  clock?: () => number;
}

interface Rule {
  readonly type: "string" | "number" | "integer" | "money" | "boolean";
  readonly required?: boolean;
  readonly nullable?: boolean;
  readonly enum?: readonly string[];
  readonly pattern?: string;
  readonly max_length?: number;
  readonly min?: number;
  readonly max?: number;
}

interface Rules {
  readonly consent: string;
  readonly properties: { readonly [name: string]: Rule };
}

type Ids = {
  user_id: string | null;
  anonymous_id: string | null;
  session_id: string | null;
  device_id: string | null;
  organisation_id: string | null;
};

interface Plan {
  readonly [event: string]: Rules;
}

// What browsers and Node have in common, named here so that neither's type definitions are needed.
const world = globalThis as unknown as {
  fetch?: Fetch;
  crypto?: { randomUUID?: () => string; getRandomValues?: (bytes: Uint8Array) => Uint8Array };
  performance?: { now?: () => number };
  setTimeout: (callback: () => void, milliseconds: number) => unknown;
  clearTimeout: (timer: any) => void;
  AbortController: new () => { readonly signal: unknown; abort(): void };
};

/**
 * Appends to a file that the pipeline ingests as it is (one JSON object a line). What fits in part is taken back.
 * Node only; browsers never load it.
 */
export class FileSink implements Sink {
  private readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  async send(events: readonly Envelope[]): Promise<void> {
    const files = await nodeModule("node:fs/promises");
    const paths = await nodeModule("node:path");
    await files.mkdir(paths.dirname(this.path), { recursive: true });
    const { Buffer } = await nodeModule("node:buffer");
    const file = await files.open(this.path, "a+");
    try {
      const before: number = (await file.stat()).size;
      const last = before > 0 ? (await file.read(Buffer.alloc(1), 0, 1, before - 1)).buffer[0] : 10;
      // Somebody was killed while writing: their piece shall take no line with it.
      await writeOrTakeBack(file, Buffer.from((last === 10 ? "" : "\n") + asLines(events), "utf8"), before);
    } finally {
      await file.close();
    }
  }
}

/** Posts a batch as lines of JSON to a collector; any answer but 2xx counts as not taken, a redirect too. */
export class HttpSink implements Sink {
  private readonly url: string;
  private readonly post: Fetch;
  private readonly timeoutMs: number;

  constructor(url: string, options: { timeoutMs?: number; fetch?: Fetch } = {}) {
    this.url = url;
    this.timeoutMs = options.timeoutMs ?? 10_000;
    this.post = options.fetch ?? ((address, init) => world.fetch!(address, init));
  }

  async send(events: readonly Envelope[]): Promise<void> {
    const body = asLines(events);
    const headers = { "Content-Type": "application/x-ndjson" };
    // Browsers let a request outlive its page only up to 64 KiB; three bytes a character is the worst of UTF-8.
    const keepalive = body.length * 3 < 65_536;
    const controller = new world.AbortController();
    const timer = world.setTimeout(() => controller.abort(), this.timeoutMs);
    const post = this.post;
    try {
      // A POST that is redirected by 301, 302 or 303 becomes a GET without the events.
      const redirect = "manual";
      const answer = await post(this.url, { method: "POST", headers, body, keepalive, redirect, signal: controller.signal });
      await answer.text?.();
      if (!answer.ok) throw new Error(`the collector answered ${answer.status}`);
    } finally {
      world.clearTimeout(timer);
    }
  }
}

/** Builds envelopes, holds events back until a batch is full, and never sends without consent. */
class ClientCore {
  /** Events that were dropped because too many were held. */
  dropped = 0;
  /** Why the last attempt to send failed. */
  lastError: unknown = undefined;

  private readonly plan: Plan;
  private readonly purposes: readonly string[];
  private readonly sink: Sink;
  private readonly batchSize: number;
  private readonly tries: number;
  private readonly mostHeld: number;
  private readonly sleep: (milliseconds: number) => Promise<void>;
  private readonly random: () => number;
  private readonly clock: () => number;
  private failures = 0; // attempts since a batch was taken
  private notBefore = -Infinity; // when `track` may send again
  private readonly ids: Ids = { user_id: null, anonymous_id: null, session_id: uuid(), device_id: null, organisation_id: null };
  private consent: () => State;
  private held: Envelope[] = [];
  private onTheWay: readonly Envelope[] = [];
  private flushing = 0;
  private last: Promise<unknown> = Promise.resolve();

  constructor(plan: Plan, purposes: readonly string[], sink: Sink, consent: State | (() => State), given: ClientSettings) {
    this.plan = plan;
    this.purposes = purposes;
    this.sink = sink;
    this.consent = asked(consent);
    this.batchSize = given.batchSize ?? 20;
    this.tries = given.tries ?? 4;
    this.mostHeld = given.mostHeld ?? 10_000;
    this.sleep = given.sleep ?? ((milliseconds) => new Promise((done) => void world.setTimeout(done, milliseconds)));
    this.random = given.random ?? Math.random;
    this.clock = given.clock ?? (() => world.performance?.now?.() ?? Date.now());
  }

  // Ids are checked when they are set, so that an event that was accepted is one that the pipeline can read.
  get userId(): string | null {
    return this.ids.user_id;
  }

  set userId(value: string | null) {
    this.ids.user_id = checkedId("user_id", value);
  }

  get anonymousId(): string | null {
    return this.ids.anonymous_id;
  }

  set anonymousId(value: string | null) {
    this.ids.anonymous_id = checkedId("anonymous_id", value);
  }

  get deviceId(): string | null {
    return this.ids.device_id;
  }

  set deviceId(value: string | null) {
    this.ids.device_id = checkedId("device_id", value);
  }

  get organisationId(): string | null {
    return this.ids.organisation_id;
  }

  set organisationId(value: string | null) {
    this.ids.organisation_id = checkedId("organisation_id", value);
  }

  get sessionId(): string {
    return this.ids.session_id as string;
  }

  set sessionId(value: string) {
    this.ids.session_id = checkedId("session_id", value);
  }

  /** From here on events belong to this person; null after they logged out. Throws TypeError: no text for an id. */
  identify(userId: string | null): void {
    this.userId = userId;
  }

  /** Start another session. */
  newSession(): void {
    this.sessionId = uuid();
  }

  /**
   * Send what is held; true when nothing is left. Events whose consent was withdrawn since are dropped.
   * Flushes wait for each other, so that no event is on its way twice.
   */
  flush(): Promise<boolean> {
    return this.inTurn(this.tries);
  }

  protected changeConsent(state: State): void {
    this.consent = asked(state);
    this.dropWithdrawn();
  }

  protected queue(
    event: string,
    properties: { readonly [name: string]: unknown },
    category: string | undefined,
    context: { readonly [name: string]: string | undefined },
  ): string | null {
    const kept = checked(this.plan, this.purposes, event, properties, category);
    const known = checkedContext(context); // again: who has it may change it in place
    const allowed = this.consent();
    if (allowed?.[kept.category] !== true) {
      this.held = this.held.filter((one) => this.categoryOf(one) !== kept.category);
      return null;
    }
    const envelope: Envelope = { event_id: uuid(), event, timestamp: now(), ...present(this.ids), properties: kept.values, consent: {} };
    if (Object.keys(known).length > 0) envelope.context = known;
    for (const purpose of this.purposes) envelope.consent[purpose] = allowed[purpose] === true;
    this.held.push(envelope);
    this.dropOldest();
    if (this.held.length >= this.batchSize && this.flushing === 0 && this.clock() >= this.notBefore) {
      this.inTurn(this.failures > 0 ? 1 : this.tries).catch((error: unknown) => void (this.lastError = error));
    }
    return envelope.event_id;
  }

  private inTurn(tries: number): Promise<boolean> {
    this.flushing += 1;
    const mine = this.last.then(() => this.sendHeld(tries));
    const over = (): void => void (this.flushing -= 1);
    this.last = mine.then(over, over);
    return mine;
  }

  private async sendHeld(tries: number): Promise<boolean> {
    let attempt = 0;
    while (true) {
      // Asked before every attempt: a person may have withdrawn while the client was waiting.
      this.dropWithdrawn();
      if (this.held.length === 0) return true;
      const batch = (this.onTheWay = this.held.slice(0, this.batchSize));
      const sentAt = now();
      try {
        await this.sink.send(batch.map((one) => ({ ...one, sent_at: sentAt })));
        this.held = this.held.filter((one) => batch.indexOf(one) < 0);
        attempt = this.failures = 0;
        this.notBefore = -Infinity;
        continue;
      } catch (error) {
        this.lastError = error;
      } finally {
        this.onTheWay = [];
      }
      attempt += 1;
      this.failures += 1;
      this.dropOldest();
      if (attempt >= tries) {
        this.notBefore = this.clock() + this.waitAfter(this.failures);
        return false;
      }
      await this.sleep(this.waitAfter(attempt));
    }
  }

  /** Milliseconds: 500, 1000, 2000, ..., from the seventh failure on 30000. */
  private waitAfter(failures: number): number {
    return Math.min(500 * 2 ** (failures - 1), 30_000) * (1 - this.random() / 2);
  }

  private categoryOf(one: Envelope): string {
    return this.plan[one.event]!.consent;
  }

  private dropWithdrawn(): void {
    const allowed = this.consent();
    this.held = this.held.filter((one) => allowed?.[this.categoryOf(one)] === true);
  }

  private dropOldest(): void {
    let surplus = this.held.length - this.mostHeld;
    if (surplus <= 0) return;
    const before = this.held.length;
    this.held = this.held.filter((one) => this.onTheWay.indexOf(one) >= 0 || surplus-- <= 0);
    this.dropped += before - this.held.length;
  }
}

function checked(
  plan: Plan,
  purposes: readonly string[],
  event: string,
  properties: { readonly [name: string]: unknown },
  category: string | undefined,
): { category: string; values: { [name: string]: Value } } {
  if (!has(plan, event)) throw new TypeError(`'${event}' is no event of the tracking plan`);
  if (category === undefined || purposes.indexOf(category) < 0) {
    throw new TypeError(`'${category}' is no consent category; known: ${purposes.join(", ")}`);
  }
  const rules = plan[event]!;
  if (category !== rules.consent) throw new TypeError(`${event} needs the consent '${rules.consent}', not '${category}'`);
  for (const name of Object.keys(properties)) {
    if (!has(rules.properties, name)) throw new TypeError(`${event}: the plan declares no property '${name}'`);
  }
  const values: { [name: string]: Value } = {};
  for (const name of Object.keys(rules.properties)) {
    // undefined is what JSON leaves out
    const value = has(properties, name) ? properties[name] : undefined;
    const wrong = problem(rules.properties[name]!, value);
    if (wrong) throw new TypeError(`${event}: the property '${name}' ${wrong}`);
    if (value !== undefined) values[name] = value as Value;
  }
  return { category, values };
}

/** What is wrong with a value, or undefined; never the value itself. */
function problem(rule: Rule, value: unknown): string | undefined {
  if (value === undefined) return rule.required ? "is missing" : undefined;
  if (value === null) return rule.nullable ? undefined : "must not be null";
  if (typeof value === "number" && !Number.isFinite(value)) return "must be a finite number";
  if (!KINDS[rule.type](value)) return `must be of type '${rule.type}'`;
  if (typeof value === "string") return textProblem(rule, value);
  if (typeof value === "number") {
    if (rule.min !== undefined && value < rule.min) return "breaks the plan's 'min'";
    if (rule.max !== undefined && value > rule.max) return "breaks the plan's 'max'";
  }
  return undefined;
}

function textProblem(rule: Rule, value: string): string | undefined {
  const unfit = unfitText(value);
  if (unfit) return unfit;
  if (rule.enum !== undefined && rule.enum.indexOf(value) < 0) return "breaks the plan's 'enum'";
  // The whole text, as the pipeline does: `^a|b$` would be found in more.
  if (rule.pattern !== undefined && !new RegExp(`^(?:${rule.pattern})$`, "u").test(value)) return "breaks the plan's 'pattern'";
  // Characters, not UTF-16 units.
  if (rule.max_length !== undefined && Array.from(value).length > rule.max_length) return "breaks the plan's 'max_length'";
  return undefined;
}

function unfitText(value: unknown): string | undefined {
  if (typeof value !== "string") return "must be of type 'string'";
  return new RegExp("[\\ud800-\\udfff]", "u").test(value) ? "must be text that UTF-8 can carry" : undefined;
}

function checkedId(name: string, value: string | null | undefined): string | null {
  if (value === null || value === undefined) return null;
  // The contract's limit, in characters; the pipeline quarantines an event with a longer one.
  const long = Array.from(value).length > 1000 ? "must have 1,000 characters at most" : undefined;
  const wrong = unfitText(value) ?? long;
  if (wrong) throw new TypeError(`the id '${name}' ${wrong}`);
  return value;
}

/** A copy without what is null. */
function checkedContext(context: { readonly [name: string]: string | null | undefined }): { [name: string]: string } {
  for (const name of Object.keys(context)) {
    const odd = unfitText(name);
    if (odd) throw new TypeError(`a name in the context ${odd}`);
    const value = context[name];
    const wrong = value === null || value === undefined ? undefined : unfitText(value);
    if (wrong) throw new TypeError(`the context '${name}' ${wrong}`);
  }
  return present(context);
}

// Money: what the warehouse's DECIMAL(18,4) holds. Integers: beyond 2^53 a number is not what was written any more.
const KINDS: { readonly [type in Rule["type"]]: (value: unknown) => boolean } = {
  string: (value) => typeof value === "string",
  boolean: (value) => typeof value === "boolean",
  number: (value) => typeof value === "number",
  integer: (value) => Number.isSafeInteger(value),
  money: (value) => typeof value === "number" && Math.abs(value) <= 99_999_999_999_999.9,
};

function has(thing: object, name: string): boolean {
  return Object.prototype.hasOwnProperty.call(thing, name);
}

function present(values: { readonly [name: string]: string | null | undefined }): { [name: string]: string } {
  const found: { [name: string]: string } = {};
  for (const name of Object.keys(values)) {
    const value = values[name];
    if (value !== null && value !== undefined) found[name] = value;
  }
  return found;
}

function asked(consent: State | (() => State)): () => State {
  if (typeof consent === "function") return consent as () => State;
  const state = { ...consent };
  return () => state;
}

function asLines(events: readonly Envelope[]): string {
  return events.map((one) => JSON.stringify(one) + "\n").join("");
}

async function writeOrTakeBack(file: any, lines: any, before: number): Promise<void> {
  let written = 0;
  try {
    while (written < lines.length) written += (await file.write(lines, written, lines.length - written)).bytesWritten;
  } catch (error) {
    // A full disk takes what fits; the batch comes again whole. Another length: another process has appended meanwhile.
    const takeBack = async (): Promise<void> => {
      if ((await file.stat()).size === before + written) await file.truncate(before);
    };
    await takeBack().catch(() => undefined);
    throw error;
  }
}

function now(): string {
  return new Date().toISOString();
}

/** A random UUID, also where `crypto` is missing (Node 18) or shy of plain http (browsers). */
function uuid(): string {
  const source = world.crypto;
  if (source?.randomUUID) return source.randomUUID();
  const bytes = new Uint8Array(16);
  if (source?.getRandomValues) source.getRandomValues(bytes);
  else bytes.forEach((_, place) => void (bytes[place] = Math.floor(Math.random() * 256)));
  const hex = Array.from(bytes, (byte, place) => (place === 6 ? (byte & 15) | 64 : place === 8 ? (byte & 63) | 128 : byte))
    .map((byte) => (byte + 256).toString(16).slice(1))
    .join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** A module of Node. The name is not a literal, so that bundlers for browsers do not look for it. */
async function nodeModule(name: string): Promise<any> {
  // @ts-ignore: import() is not for every --module, and Node's types may be absent
  return await import(/* webpackIgnore: true */ /* @vite-ignore */ name);
}
