/**
 * The form of a journal file: one record per line, each `<crc32, 8 hex digits> <JSON>`; the first names the format.
 *
 *   5d41a0c2 {"journal":1}
 *   0e7f93aa {"begin":1,"facts":{"container":"web"},"operation":"create-container"}
 *   91b02c5d {"facts":{"node":"disk1"},"note":1,"step":"disk attached"}
 *   c3a1407e {"end":1}
 *
 * Invariant: each record is on disk before the next is written, and damage by a crash is confined to the last line. So a
 * last line that is incomplete or fails its check never happened; a bad line before it is corruption.
 */
import { crc32 } from "node:zlib";
import { BelljarError, type Field, parseJson } from "../base/index.ts";
import { canonicalJson } from "./canonical-json.ts";
import { corrupt, newerVersion } from "./envelope.ts";

const FORMAT = 1;

/** Small printable values under names; enough to find again what an operation made. */
export type JournalFacts = Readonly<Record<string, string | number | boolean>>;

export interface JournalStep {
  readonly step: string;
  readonly facts: JournalFacts;
}

export interface JournalEntry {
  readonly id: number;
  readonly operation: string;
  readonly facts: JournalFacts;
  /** What was noted as done, in order. */
  readonly steps: readonly JournalStep[];
}

export type JournalRecord =
  | { readonly begin: number; readonly operation: string; readonly facts: JournalFacts }
  | { readonly note: number; readonly step: string; readonly facts: JournalFacts }
  | { readonly end: number };

export interface JournalContent {
  /** Begun and not ended, oldest first. */
  readonly unfinished: readonly JournalEntry[];
  readonly lastId: number;
  /** Whether a torn last line was dropped; it must be cut off before anything is written behind it. */
  readonly torn: boolean;
}

export function encodeRecord(record: JournalRecord): Uint8Array {
  return encodeLine(record);
}

/** A whole file that holds exactly these entries. */
export function encodeJournal(entries: readonly JournalEntry[]): Uint8Array {
  const lines = [encodeLine({ journal: FORMAT })];
  for (const { id, operation, facts, steps } of entries) {
    lines.push(encodeRecord({ begin: id, operation, facts }));
    for (const { step, facts } of steps) lines.push(encodeRecord({ note: id, step, facts }));
  }
  return Buffer.concat(lines);
}

/** @throws BelljarError `STATE_CORRUPT`, or `STATE_VERSION` for an intact newer format */
export function decodeJournal(bytes: Uint8Array, name: string): JournalContent {
  // latin1 keeps every byte apart; the JSON is decoded as UTF-8 only after its check.
  const lines = Buffer.from(bytes).toString("latin1").split("\n");
  const tail = lines.pop();
  const texts = lines.map((line) => checkedText(line));
  let torn = tail !== "";
  // With an incomplete line behind it, the last complete one was synced and has no excuse.
  if (!torn && texts.length > 1 && texts.at(-1) === undefined) {
    if (hidesRecord(lines.at(-1) ?? "")) throw corrupt(name, `line ${texts.length} has lost its end`);
    texts.pop();
    torn = true;
  }

  const open = new Map<number, JournalEntry>();
  let lastId = 0;
  for (const [index, text] of texts.entries()) {
    if (text === undefined) throw corrupt(name, `line ${index + 1} fails its check`);
    try {
      const field = parseJson(text, `line ${index + 1}`, "STATE_CORRUPT");
      if (index === 0) checkFormat(field, name);
      else lastId = Math.max(lastId, apply(field, open));
    } catch (error) {
      if (error instanceof BelljarError && error.reason === "STATE_CORRUPT")
        throw corrupt(name, `line ${index + 1} is not a valid record`, error);
      throw error;
    }
  }
  if (texts.length === 0) throw corrupt(name, "it has no first line");
  return { unfinished: [...open.values()], lastId, torn };
}

function encodeLine(value: unknown): Uint8Array {
  const text = Buffer.from(canonicalJson(value, "journal", 0), "utf8");
  return Buffer.concat([Buffer.from(`${check(text)} `, "latin1"), text, Buffer.from("\n")]);
}

/** The record's JSON, or undefined when the line is not whole. */
function checkedText(line: string): string | undefined {
  const text = Buffer.from(line.slice(9), "latin1");
  return line.slice(0, 9) === `${check(text)} ` ? text.toString("utf8") : undefined;
}

/** Whether a whole record stands behind something else: two lines whose separator was damaged, not one torn record. */
function hidesRecord(line: string): boolean {
  return [...line.matchAll(/[0-9a-f]{8} \{/g)].some(
    ({ index }) => index > 0 && checkedText(line.slice(index)) !== undefined,
  );
}

function check(text: Uint8Array): string {
  return crc32(text).toString(16).padStart(8, "0");
}

function checkFormat(field: Field, name: string): void {
  const format = field.field("journal").integer({ min: 1 });
  if (format > FORMAT) throw newerVersion(name, "file format", format, FORMAT);
}

/** Applies one record to the open operations; returns the id it speaks of. */
function apply(field: Field, open: Map<number, JournalEntry>): number {
  const begin = field.field("begin").optional(decodeId);
  if (begin !== undefined) {
    field.onlyFields(["begin", "operation", "facts"]);
    if (open.has(begin)) throw field.field("begin").expected("an id that is not in use");
    const operation = field.field("operation").string();
    open.set(begin, { id: begin, operation, facts: decodeFacts(field.field("facts")), steps: [] });
    return begin;
  }
  const note = field.field("note").optional(decodeId);
  if (note !== undefined) {
    field.onlyFields(["note", "step", "facts"]);
    const entry = open.get(note);
    if (entry === undefined) throw field.field("note").expected("the id of an open operation");
    const step = { step: field.field("step").string(), facts: decodeFacts(field.field("facts")) };
    open.set(note, { ...entry, steps: [...entry.steps, step] });
    return note;
  }
  field.onlyFields(["end"]);
  const end = decodeId(field.field("end"));
  if (!open.delete(end)) throw field.field("end").expected("the id of an open operation");
  return end;
}

function decodeId(field: Field): number {
  return field.integer({ min: 1 });
}

function decodeFacts(field: Field): JournalFacts {
  return field.map((fact) => {
    const value = fact.raw;
    if (typeof value === "boolean") return value;
    return typeof value === "number" ? fact.number() : fact.string();
  });
}
