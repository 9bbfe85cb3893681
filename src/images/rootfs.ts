/** A root file system as the source of an image: a directory, or a tar archive in any compression. One layer, whose digest
 * is known only when it has been read. */
import { createReadStream } from "node:fs";
import { READ_BYTES } from "./image-files.ts";
import { toolOutput } from "./tool-output.ts";

export function readRootfsDirectory(path: string): AsyncIterable<Buffer> {
  // Sorted and without times of access, so that the same tree gives the same layer. Other file systems below it, such as a
  // live /proc, are not part of it.
  const args = [
    "--create",
    "--file=-",
    `--directory=${path}`,
    "--sort=name",
    "--format=pax",
    "--numeric-owner",
    "--sparse",
  ];
  args.push("--one-file-system", "--xattrs", "--xattrs-include=*", "--no-acls", "--no-selinux");
  args.push("--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "--warning=no-file-ignored", ".");
  return toolOutput("tar", args);
}

export function readRootfsArchive(path: string): AsyncIterable<Buffer> {
  return createReadStream(path, { highWaterMark: READ_BYTES });
}
