/** Which seccomp profile a container gets: the default, the caller's own, or none. */
import { BelljarError, type Field, parseJson } from "../base/index.ts";
import type { ContainerConfig } from "./config.ts";
import {
  defaultSeccompProfile,
  type SeccompArgument,
  type SeccompProfile,
  type SeccompRule,
} from "./seccomp-default.ts";

/** @throws BelljarError `INVALID_ARGUMENT` for an unknown security option or a profile that is none. */
export function resolveSeccomp(config: ContainerConfig, capabilities: readonly string[]): SeccompProfile | undefined {
  const options = config.securityOptions ?? [];
  for (const option of options) checkSecurityOption(option);
  if (options.some((option) => /^seccomp[=:]unconfined$/.test(option))) return undefined;
  if (config.seccompProfile === undefined) return defaultSeccompProfile(capabilities);
  return decodeProfile(parseJson(config.seccompProfile, "seccomp profile", "INVALID_ARGUMENT"), capabilities);
}

function checkSecurityOption(option: string): void {
  if (/^no-new-privileges([:=](true|false))?$/.test(option) || /^seccomp[=:]unconfined$/.test(option)) return;
  throw new BelljarError("INVALID_ARGUMENT", `the security option ${JSON.stringify(option)} is not known`, {
    remedy: "Use seccomp=FILE, seccomp=unconfined or no-new-privileges.",
  });
}

/** Docker's form adds, to the specification's, rules that hold only with or without some capabilities. */
function decodeProfile(field: Field, capabilities: readonly string[]): SeccompProfile {
  const rules = field.field("syscalls").optional((list) => list.array((rule) => decodeRule(rule, capabilities))) ?? [];
  return {
    defaultAction: decodeAction(field.field("defaultAction")),
    architectures: ["SCMP_ARCH_X86_64"],
    syscalls: rules.flat(),
  };
}

function decodeRule(field: Field, capabilities: readonly string[]): SeccompRule[] {
  const names = field.field("names").optional((list) => list.array((name) => name.string({ maxLength: 64 })));
  const only = field.field("includes").optional(decodeCapabilities) ?? [];
  const unless = field.field("excludes").optional(decodeCapabilities) ?? [];
  if (!only.every((name) => capabilities.includes(name))) return [];
  if (unless.some((name) => capabilities.includes(name))) return [];
  const args = field.field("args").optional((list) => list.array(decodeArgument, { maxItems: 6 }));
  const errnoRet = field.field("errnoRet").optional((value) => value.integer({ min: 0, max: 4095 }));
  return [
    {
      names: names ?? [field.field("name").string({ maxLength: 64 })],
      action: decodeAction(field.field("action")),
      ...(errnoRet === undefined ? {} : { errnoRet }),
      ...(args === undefined || args.length === 0 ? {} : { args }),
    },
  ];
}

function decodeCapabilities(field: Field): string[] {
  return field.field("caps").optional((list) => list.array((name) => name.string({ maxLength: 64 }))) ?? [];
}

function decodeAction(field: Field): string {
  return field.string({ pattern: /^SCMP_ACT_[A-Z_]{1,32}$/ });
}

function decodeArgument(field: Field): SeccompArgument {
  const valueTwo = field.field("valueTwo").optional((value) => value.integer({ min: 0 }));
  return {
    index: field.field("index").integer({ min: 0, max: 5 }),
    value: field.field("value").integer({ min: 0 }),
    ...(valueTwo === undefined ? {} : { valueTwo }),
    op: field.field("op").string({ pattern: /^SCMP_CMP_[A-Z_]{1,16}$/ }),
  };
}
