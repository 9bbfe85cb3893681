/** docs/reference/errors.md, made from the table of reasons so that no reason lacks its entry. */
import { type ErrorReason, errorReasons } from "../src/base/error-reasons.ts";
import { whatToDo } from "./errors-advice.ts";

export const errorsPagePath = "docs/reference/errors.md";

export function renderErrorsPage(): string {
  const reasons = Object.keys(errorReasons).filter((key) => isReason(key));
  const entries = reasons.sort().map((reason) => [reason, errorReasons[reason]] as const);
  const rows = entries.map(
    ([reason, { code, meaning }]) => `| [\`${reason}\`](#${reason.toLowerCase()}) | \`${code}\` | ${meaning} |`,
  );
  const sections = entries.map(([reason, { code, meaning }]) =>
    [`## ${reason}`, "", meaning, "", `What to do: ${whatToDo(reason)}`, "", `Code: \`${code}\`.`].join("\n"),
  );
  return `${[
    "# Errors",
    "",
    "<!-- Made from src/base/error-reasons.ts by `npm run generate`; edit that file. -->",
    "",
    "Every failure is a `BelljarError` with a `reason` from this page, the `code` of its kind (Connect's sixteen), the facts as",
    "fields and the chain of causes. Programs branch on `reason` or `code`; the text is for people and may change.",
    "The command line prints the message and its causes on one line, what to do on the next, and ends with status 125 unless",
    "the command itself ended.",
    "",
    "| reason | code | meaning |",
    "|---|---|---|",
    ...rows,
    "",
    sections.join("\n\n"),
  ].join("\n")}\n`;
}

function isReason(key: string): key is ErrorReason {
  return Object.hasOwn(errorReasons, key);
}
