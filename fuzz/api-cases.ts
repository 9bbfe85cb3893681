/**
 * Cases for the fuzzer of the API: a method and what is sent to it, made of the definitions of the protocol. Most are messages that the
 * definitions allow, with values that nobody would send; some are changed afterwards, or have nothing to do with it.
 */
import { type DescField, type DescMessage, type DescMethod, ScalarType } from "@bufbuild/protobuf";
import { api } from "../src/protocol/index.ts";
import type { Random } from "../test/support/random.ts";

export interface ApiCase {
  readonly method: DescMethod | undefined;
  readonly path: string;
  readonly contentType: string;
  readonly body: Buffer;
  /** Of the whole call. */
  readonly timeoutMs: number;
}

const services = [
  api.SandboxService,
  api.ContainerService,
  api.ProcessService,
  api.CheckpointService,
  api.VolumeService,
  api.FileService,
  api.DaemonService,
];
/** What would end the fuzzing. */
const NEVER = new Set(["StopDaemon", "Stop"]);
const methods = services.flatMap((service) => service.methods.filter(({ name }) => !NEVER.has(name)));
const DEPTH_MAX = 5;

const WORDS = [
  ...[
    "",
    "demo",
    "main",
    "-",
    "..",
    "../../etc/passwd",
    "/",
    "a".repeat(64),
    "a".repeat(70_000),
    "\0",
    "💥",
    "\ud800",
    "demo/main",
  ],
  ...[
    "none",
    "user",
    "bridge",
    "auto",
    "kvm",
    "true",
    "null",
    "NaN",
    "1e400",
    "constructor",
    "__proto__",
    "%s%n",
    "'; --",
  ],
];
const NUMBERS = [0, 1, -1, 2, 255, 65_535, 65_536, 2 ** 31, -(2 ** 31), 2 ** 53, 1e308, -1e308, 0.5];

export function makeCase(random: Random): ApiCase {
  const method = methods[random.below(methods.length)];
  if (method === undefined) throw new Error("there are no methods");
  const isStream = method.methodKind !== "unary";
  let body: Buffer = Buffer.from(jsonText(random, messageOf(random, method.input, 0)));
  const path = `/${method.parent.typeName}/${method.name}`;
  const dice = random.below(100);
  const base = { method, path, timeoutMs: 1 + random.below(100) };
  if (dice < 70) return { ...base, contentType: typeOf(isStream, "json"), body: isStream ? enveloped(body, 0) : body };
  if (dice < 85) {
    body = mutated(random, body);
    return {
      ...base,
      contentType: typeOf(isStream, "json"),
      body: isStream ? enveloped(body, random.below(256)) : body,
    };
  }
  // Bytes where a message in binary should be.
  body = Buffer.from(Array.from({ length: random.below(200) }, () => random.below(256)));
  if (dice < 95) {
    const isCut = isStream && random.below(3) > 0;
    return { ...base, contentType: typeOf(isStream, "proto"), body: isCut ? enveloped(body, 0) : body };
  }
  const contentType = [
    "text/plain",
    "application/grpc",
    "",
    "application/json; charset=latin1",
    "application/connect+json",
  ];
  const paths = ["/", "/metrics", `${path}/more`, `/belljar.api.v9.SandboxService/CreateSandbox`, "/%00", "*", "/../"];
  return {
    method: undefined,
    path: paths[random.below(paths.length)] ?? "/",
    contentType: contentType[random.below(contentType.length)] ?? "",
    body,
    timeoutMs: base.timeoutMs,
  };
}

/** One that may hold anything, as JSON has it. */
function messageOf(random: Random, message: DescMessage, depth: number): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (const field of message.fields) {
    if (random.below(3) === 0 || depth > DEPTH_MAX) continue;
    // What there is to be found, often.
    if (field.localName === "sandbox" && field.fieldKind === "scalar" && random.below(4) > 0)
      found[field.jsonName] = "demo";
    else found[field.jsonName] = fieldValue(random, field, depth);
  }
  if (random.below(20) === 0) found[WORDS[random.below(WORDS.length)] ?? ""] = 1;
  return found;
}

function fieldValue(random: Random, field: DescField, depth: number): unknown {
  if (random.below(25) === 0) return anything(random);
  switch (field.fieldKind) {
    case "list":
      return Array.from({ length: random.below(6) }, () =>
        field.listKind === "message"
          ? messageOf(random, field.message, depth + 1)
          : field.listKind === "scalar"
            ? scalarOf(random, field.scalar)
            : random.below(5),
      );
    case "map":
      return Object.fromEntries(
        Array.from({ length: random.below(6) }, () => [
          WORDS[random.below(WORDS.length)] ?? "",
          field.mapKind === "scalar" ? scalarOf(random, field.scalar) : {},
        ]),
      );
    case "message":
      return messageOf(random, field.message, depth + 1);
    case "enum":
      return random.below(10);
    case "scalar":
      return scalarOf(random, field.scalar);
  }
}

function scalarOf(random: Random, type: ScalarType): unknown {
  const number = NUMBERS[random.below(NUMBERS.length)] ?? 0;
  switch (type) {
    case ScalarType.STRING:
      return WORDS[random.below(WORDS.length)];
    case ScalarType.BOOL:
      return random.below(2) === 0;
    case ScalarType.BYTES:
      return Buffer.alloc(random.below(300), random.below(256)).toString("base64");
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return random.below(6) === 0 ? ["NaN", "Infinity", "-Infinity"][random.below(3)] : number;
    default:
      // Whole, most of the time.
      return random.below(6) === 0 ? number : Math.abs(Math.trunc(number)) % 2 ** 32;
  }
}

function anything(random: Random): unknown {
  const all = [null, [], {}, [[[[]]]], "text", 1, -1, true, { a: { b: { c: [] } } }, ["", null, {}]];
  return all[random.below(all.length)];
}

/** Text that is JSON, but for what JSON cannot say. */
function jsonText(random: Random, value: unknown): string {
  const text = JSON.stringify(value);
  return random.below(50) === 0 ? "[".repeat(random.below(50_000)) + text : text;
}

function mutated(random: Random, body: Buffer): Buffer {
  const copy = Buffer.from(body);
  for (let times = 1 + random.below(4); times > 0 && copy.length > 0; times -= 1) {
    copy[random.below(copy.length)] = random.below(256);
  }
  return random.below(3) === 0 ? copy.subarray(0, random.below(copy.length + 1)) : copy;
}

function typeOf(isStream: boolean, codec: "json" | "proto"): string {
  return isStream ? `application/connect+${codec}` : `application/${codec}`;
}

/** As streams carry messages: flags, length, content. */
function enveloped(body: Buffer, flags: number): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}
