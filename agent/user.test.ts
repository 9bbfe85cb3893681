import assert from "node:assert/strict";
import { test } from "node:test";
import { resolveUser } from "./user.ts";

const passwd = [
  "root:x:0:0:root:/root:/bin/sh",
  "ann:x:1000:100:Ann:/home/ann:/bin/sh",
  "77:x:1077:1077::/:/bin/sh",
  "bad line",
  "x:x:-1:0::/:",
  "huge:x:4294967295:0::/:",
].join("\n");
const group = ["root:x:0:", "users:x:100:", "wheel:x:10:ann,bob", "audio:x:20:ann", "staff:x:50:bob"].join("\n");
const resolve = (user: string) => resolveUser(user, passwd, group);

test("names, numbers and groups are looked up as docker does it", () => {
  assert.deepEqual(resolve(""), { uid: 0, gid: 0, additionalGids: [], home: "/root" });
  assert.deepEqual(resolve("ann"), { uid: 1000, gid: 100, additionalGids: [10, 20], home: "/home/ann" });
  assert.deepEqual(resolve("1000"), resolve("ann"));
  assert.deepEqual(resolve("ann:staff"), { uid: 1000, gid: 50, additionalGids: [], home: "/home/ann" });
  assert.deepEqual(resolve("ann:7"), { uid: 1000, gid: 7, additionalGids: [], home: "/home/ann" });
  assert.deepEqual(resolve("4242"), { uid: 4242, gid: 0, additionalGids: [], home: "/" });
  assert.deepEqual(resolve("4242:4343"), { uid: 4242, gid: 4343, additionalGids: [], home: "/" });
  assert.deepEqual(resolve("77"), { uid: 1077, gid: 1077, additionalGids: [], home: "/" });
  assert.deepEqual(resolve(":users"), { uid: 0, gid: 100, additionalGids: [], home: "/root" });
});

test("without the files, numbers and root still work", () => {
  assert.deepEqual(resolveUser("", "", ""), { uid: 0, gid: 0, additionalGids: [], home: "/" });
  assert.deepEqual(resolveUser("5:6", "", ""), { uid: 5, gid: 6, additionalGids: [], home: "/" });
});

test("who does not exist is named", () => {
  for (const user of ["bob", "ann:nobody", "-1", "4294967295", "1e3", "0x10", "huge:nobody"]) {
    assert.throws(() => resolve(user), { reason: "USER_NOT_FOUND" }, user);
  }
  assert.throws(() => resolve("huge"), /no user "huge"/);
});
