/** What `templates/<digest>/manifest.json` holds: written last, so that a template that has one is whole. */
import { createHash } from "node:crypto";
import type { Field } from "../base/index.ts";
import type { StateSchema } from "../store/index.ts";

export interface TemplateState {
  readonly digest: string;
  /** All that went into it; the digest is made of these. */
  readonly key: TemplateKey;
  /** Milliseconds since the epoch. */
  readonly createdAtMs: number;
  /** For people. */
  readonly hypervisor: string;
  readonly acceleration: "kvm" | "tcg";
  readonly memoryMib: number;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly devicesBytes: number;
}

export interface TemplateKey {
  readonly guestImage: string;
  /** What the hypervisor says device state depends on. */
  readonly compatibility: string;
  readonly domain: string;
}

export const templateSchema: StateSchema<TemplateState> = {
  kind: "template",
  migrations: [],
  decode: (field) => ({
    digest: field.field("digest").string({ pattern: TEMPLATE_DIGEST }),
    key: decodeKey(field.field("key")),
    createdAtMs: field.field("createdAtMs").integer({ min: 0 }),
    hypervisor: field.field("hypervisor").string({ maxLength: 128 }),
    acceleration: field.field("acceleration").oneOf(["kvm", "tcg"]),
    memoryMib: field.field("memoryMib").integer({ min: 1 }),
    cpus: field.field("cpus").integer({ min: 1 }),
    memoryBytes: field.field("memoryBytes").integer({ min: 1 }),
    devicesBytes: field.field("devicesBytes").integer({ min: 1 }),
  }),
};

export const TEMPLATE_DIGEST = /^[0-9a-f]{64}$/;

/** Another one when something else is done in a guest before it is frozen. */
const REHEARSAL = "3: a container of its own root, and a copy that comes to itself";

export function templateDigest({ guestImage, compatibility, domain }: TemplateKey): string {
  return createHash("sha256")
    .update(JSON.stringify([guestImage, compatibility, domain, REHEARSAL]))
    .digest("hex");
}

function decodeKey(field: Field): TemplateKey {
  return {
    guestImage: field.field("guestImage").string({ maxLength: 128 }),
    compatibility: field.field("compatibility").string({ maxLength: 128 }),
    domain: field.field("domain").string({ maxLength: 63 }),
  };
}
