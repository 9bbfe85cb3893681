import assert from "node:assert/strict";
import { test } from "node:test";
import { findBuffer } from "./translation-room.ts";

test("the buffer for translated code is found by what it is, and nothing else is taken for it", () => {
  const maps = [
    "560a00000000-560a08000000 r-xp 00000000 fe:00 1234                       /usr/bin/qemu-system-x86_64",
    "7f1100000000-7f1107fff000 rw-p 00000000 00:00 0 ",
    "7f2200000000-7f2207fff000 rwxp 00000000 fe:00 99                         /some/file",
    "7f3300000000-7f3300001000 rwxp 00000000 00:00 0 ",
    "7f4400000000-7f4407fff000 rwxp 00000000 00:00 0 ",
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]",
  ];
  assert.equal(findBuffer(maps.join("\n")), 0x7f4400000000);
  assert.equal(findBuffer(maps.toSpliced(4, 1).join("\n")), undefined);
});
