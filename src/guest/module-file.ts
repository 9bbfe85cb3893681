/**
 * A kernel module as the guest loads it: without its signature, and without its type data. Both only cost time there, about a
 * third of what loading the modules takes under emulation: the files lie in an initramfs whose digest the host has checked, and
 * the first module with type data would make the kernel parse the types of all of itself, for tracers that nobody runs.
 */
import { BelljarError } from "../base/index.ts";
import { sectionHeaders } from "./elf.ts";

/** Linux, include/linux/module_signature.h: the signature, this description of it, this mark. */
const MARK = Buffer.from("~Module signature appended~\n");
const DESCRIPTION_BYTES = 12;
/** Names of BPF's type data; see kernel/bpf/btf.c, which takes a section of no length for none. */
const TYPE_SECTIONS = [".BTF", ".BTF.base"];
/** In a 64-bit section header. */
const SIZE_FIELD = 32;

/** @throws BelljarError `GUEST_BUILD_FAILED` when the file says about itself what cannot be */
export function loadableModule(data: Buffer, name: string): Buffer {
  const module = Buffer.from(withoutSignature(data, name));
  for (const section of sectionHeaders(module, name)) {
    if (TYPE_SECTIONS.includes(section.name)) module.writeBigUInt64LE(0n, section.headerOffset + SIZE_FIELD);
  }
  return module;
}

function withoutSignature(data: Buffer, name: string): Buffer {
  if (!data.subarray(-MARK.length).equals(MARK)) return data;
  const description = data.length - MARK.length - DESCRIPTION_BYTES;
  // Big-endian, the last field of the description.
  const end = description < 0 ? -1 : description - data.readUInt32BE(description + DESCRIPTION_BYTES - 4);
  if (end <= 0) {
    throw new BelljarError("GUEST_BUILD_FAILED", `${name} cannot be used: its signature is longer than the file`, {
      facts: { file: name },
    });
  }
  return data.subarray(0, end);
}
