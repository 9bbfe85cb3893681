/** How the kernel's control group files are read and written: one value, or lines of a name and a number. */
import { writeFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";

/** Writes to a file that the kernel has made, and never makes one. */
export async function setFile(path: string, value: string): Promise<void> {
  await writeFile(path, value, { flag: "r+" });
}

/** As above, at once: where everything stands still meanwhile, handing it to another thread takes longer than doing it. */
export function setFileNow(path: string, value: string): void {
  writeFileSync(path, value, { flag: "r+" });
}

/** The text of the file; "" when the group or the controller is not there. */
export async function readOrNothing(path: string): Promise<string> {
  return await readFile(path, "utf8").catch(() => "");
}

/** A number, or undefined for "max" and for what is not there. */
export function parseLimit(text: string): bigint | undefined {
  const word = text.trim();
  return /^\d{1,20}$/.test(word) ? BigInt(word) : undefined;
}

/** Lines of `name value`; others are passed over. */
export function parseCounts(text: string): Map<string, bigint> {
  return new Map([...text.matchAll(/^(\S+) (\d{1,20})$/gm)].map(([, name = "", value = "0"]) => [name, BigInt(value)]));
}
