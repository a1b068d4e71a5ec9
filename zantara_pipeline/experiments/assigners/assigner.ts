/**
 * Assigns units of experiments as experiments.json says; no dependencies, for browsers and Node.
 *
 *     const assigner = new Assigner(text);
 *     const assignment = assigner.assign("checkout_redesign", userId);
 *     if (assignment.variant === "treatment") ...
 *     if (assignment.expose) client.track("experiment_exposed", ...);
 *
 * Whatever is wrong ends with control: an experiment that is unknown, not running or stopped is never shown.
 */

/** What to show, and whether that is an exposure to log. */
export interface Assignment {
  readonly variant: string;
  readonly expose: boolean;
  readonly reason: "running" | "unknown" | "before_start" | "after_end" | "stopped";
}

interface Served {
  readonly experiment: string;
  readonly salt: string;
  readonly control: string;
  readonly variants: readonly { readonly name: string; readonly below: number }[];
  readonly start: string;
  readonly end: string;
  readonly stopped: boolean;
}

/** experiments.json is not what was written: keep the one you have. */
export class BrokenFile extends Error {}

/** Reads experiments.json once; throws BrokenFile where it is torn, was changed, or is of a later format. */
export class Assigner {
  private readonly experiments: Served[];

  constructor(text: string) {
    let whole: { sha256?: unknown; format?: unknown; experiments?: unknown };
    try {
      whole = JSON.parse(text);
    } catch {
      throw new BrokenFile("experiments.json is no JSON of that kind");
    }
    if (typeof whole !== "object" || whole === null || !Array.isArray(whole.experiments)) {
      throw new BrokenFile("experiments.json is no JSON of that kind");
    }
    const { sha256: wanted, ...rest } = whole;
    if (hex(sha256(utf8(canonical(rest)))) !== wanted) {
      throw new BrokenFile("experiments.json was changed after it was written");
    }
    if (whole.format !== 1) throw new BrokenFile("experiments.json is of a later format");
    this.experiments = whole.experiments as Served[];
  }

  /** The variant of a unit at a time (now, if none is given); the same whenever it is asked. */
  assign(experiment: string, unit: string, now: Date = new Date()): Assignment {
    const found = this.experiments.filter((one) => one.experiment === experiment)[0];
    if (found === undefined) return { variant: "control", expose: false, reason: "unknown" };
    const reason = whyNot(found, now.getTime());
    if (reason !== null) return { variant: found.control, expose: false, reason };
    const where = place(found.salt, unit);
    for (const one of found.variants) {
      if (where < one.below) return { variant: one.name, expose: true, reason: "running" };
    }
    return { variant: found.control, expose: false, reason: "unknown" };
  }
}

/** The first 52 bits of SHA-256 of "salt:unit". */
export function place(salt: string, unit: string): number {
  return parseInt(hex(sha256(utf8(salt + ":" + unit))).slice(0, 13), 16);
}

function whyNot(experiment: Served, now: number): "before_start" | "after_end" | "stopped" | null {
  if (experiment.stopped) return "stopped";
  if (now < Date.parse(experiment.start)) return "before_start";
  return now >= Date.parse(experiment.end) ? "after_end" : null;
}

/** JSON with sorted keys and no blanks, as it was hashed: it holds texts, whole numbers, truths, lists and objects. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return "[" + value.map(canonical).join(",") + "]";
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const known = value as { readonly [key: string]: unknown };
  const pairs = Object.keys(known).sort().map((key) => JSON.stringify(key) + ":" + canonical(known[key]));
  return "{" + pairs.join(",") + "}";
}

/** UTF-8 of a text; a half of a surrogate pair counts as U+FFFD. */
function utf8(text: string): number[] {
  const bytes: number[] = [];
  for (let i = 0; i < text.length; i++) {
    let code = text.charCodeAt(i);
    if (code >= 0xd800 && code <= 0xdfff) {
      const next = text.charCodeAt(i + 1);
      const pair = code <= 0xdbff && next >= 0xdc00 && next <= 0xdfff;
      code = pair ? (code - 0xd800) * 0x400 + (next - 0xdc00) + 0x10000 : 0xfffd;
      if (pair) i++;
    }
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
  }
  return bytes;
}

/** The first 32 bits of the fractional part of a root of a prime: the constants of SHA-256 (FIPS 180-4) as they are defined. */
function constants(count: number, exponent: number): number[] {
  const found: number[] = [];
  for (let candidate = 2; found.length < count; candidate++) {
    let prime = true;
    for (let divisor = 2; divisor * divisor <= candidate; divisor++) prime = prime && candidate % divisor > 0;
    const root = Math.pow(candidate, exponent);
    if (prime) found.push(Math.floor((root - Math.floor(root)) * 0x100000000) | 0);
  }
  return found;
}

const START = constants(8, 1 / 2);
const ROUND = constants(64, 1 / 3);

/** SHA-256 (FIPS 180-4) as eight words. The one of browsers can only be waited for, and not everywhere be had. */
function sha256(message: number[]): number[] {
  const bytes = message.concat(0x80);
  while (bytes.length % 64 !== 56) bytes.push(0);
  const high = Math.floor(message.length / 0x20000000);
  const low = (message.length << 3) >>> 0;
  for (const word of [high, low]) bytes.push((word >>> 24) & 255, (word >>> 16) & 255, (word >>> 8) & 255, word & 255);
  const state = START.slice();
  for (let offset = 0; offset < bytes.length; offset += 64) block(state, bytes, offset);
  return state;
}

function block(state: number[], bytes: number[], offset: number): void {
  const words: number[] = [];
  const word = (from: readonly number[], index: number): number => from[index] as number;
  for (let i = 0; i < 64; i++) {
    if (i < 16) {
      const at = offset + 4 * i;
      words.push((word(bytes, at) << 24) | (word(bytes, at + 1) << 16) | (word(bytes, at + 2) << 8) | word(bytes, at + 3));
    } else {
      const a = word(words, i - 15);
      const b = word(words, i - 2);
      const s0 = turned(a, 7) ^ turned(a, 18) ^ (a >>> 3);
      const s1 = turned(b, 17) ^ turned(b, 19) ^ (b >>> 10);
      words.push((word(words, i - 16) + s0 + word(words, i - 7) + s1) | 0);
    }
  }
  const now = state.slice();
  for (let i = 0; i < 64; i++) {
    const a = word(now, 0);
    const e = word(now, 4);
    const s1 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25);
    const chosen = (e & word(now, 5)) ^ (~e & word(now, 6));
    const first = (word(now, 7) + s1 + chosen + word(ROUND, i) + word(words, i)) | 0;
    const s0 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22);
    const majority = (a & word(now, 1)) ^ (a & word(now, 2)) ^ (word(now, 1) & word(now, 2));
    now.pop();
    now.unshift((first + s0 + majority) | 0);
    now[4] = (word(now, 4) + first) | 0;
  }
  for (let i = 0; i < 8; i++) state[i] = (word(state, i) + word(now, i)) | 0;
}

function turned(value: number, by: number): number {
  return (value >>> by) | (value << (32 - by));
}

function hex(words: number[]): string {
  return words.map((word) => ("0000000" + (word >>> 0).toString(16)).slice(-8)).join("");
}
