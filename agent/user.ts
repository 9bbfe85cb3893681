/**
 * Who a container's process runs as: the image's or the caller's words, looked up in the container's own /etc/passwd and
 * /etc/group, as docker does it. Pure: the texts are given, hostile as they may be.
 */
import { BelljarError } from "../src/base/errors.ts";

export interface ResolvedUser {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups. */
  readonly additionalGids: readonly number[];
  /** Home directory for the environment. */
  readonly home: string;
}

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

/** The largest id: the one above means "no id" to the kernel. */
const ID_MAX = 0xffff_fffe;
/** The kernel takes no more. */
const GROUPS_MAX = 65_536;

/**
 * @param user "", "name", "uid", either with ":group" or ":gid"; "" is root. A number need not have an entry, a name must.
 * @throws BelljarError `USER_NOT_FOUND`
 */
export function resolveUser(user: string, passwd: string, group: string): ResolvedUser {
  const separator = user.indexOf(":");
  const userPart = separator === -1 ? user : user.slice(0, separator);
  const groupPart = separator === -1 ? "" : user.slice(separator + 1);
  const users = parsePasswd(passwd);
  const groups = parseGroup(group);
  const entry = findUser(userPart === "" ? "0" : userPart, users);
  const home = entry.home === "" ? "/" : entry.home;
  // A group that is named replaces those of the user, the supplementary ones too.
  if (groupPart !== "") return { uid: entry.uid, gid: findGroup(groupPart, groups), additionalGids: [], home };
  const additionalGids = groups.filter((one) => entry.name !== "" && one.members.includes(entry.name));
  return {
    uid: entry.uid,
    gid: entry.gid,
    additionalGids: [...new Set(additionalGids.map((one) => one.gid))].slice(0, GROUPS_MAX),
    home,
  };
}

function findUser(word: string, users: readonly PasswdEntry[]): PasswdEntry {
  // By name first: a user may have a name of digits.
  const byName = users.find((entry) => entry.name === word);
  if (byName !== undefined) return byName;
  const uid = parseId(word);
  if (uid === undefined) {
    throw new BelljarError("USER_NOT_FOUND", `the container's /etc/passwd has no user ${JSON.stringify(word)}`);
  }
  return users.find((entry) => entry.uid === uid) ?? { name: "", uid, gid: 0, home: "/" };
}

function findGroup(word: string, groups: readonly GroupEntry[]): number {
  const gid = groups.find((entry) => entry.name === word)?.gid ?? parseId(word);
  if (gid !== undefined) return gid;
  throw new BelljarError("USER_NOT_FOUND", `the container's /etc/group has no group ${JSON.stringify(word)}`);
}

function parseId(word: string): number | undefined {
  if (!/^[0-9]{1,10}$/.test(word)) return undefined;
  const id = Number(word);
  return id <= ID_MAX ? id : undefined;
}

/** Lines that make no sense are passed over, as the C library does. */
function parsePasswd(text: string): PasswdEntry[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", , uidWord = "", gidWord = "", , home = ""] = line.split(":");
    const uid = parseId(uidWord);
    const gid = parseId(gidWord);
    return name === "" || uid === undefined || gid === undefined ? [] : [{ name, uid, gid, home }];
  });
}

function parseGroup(text: string): GroupEntry[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", , gidWord = "", members = ""] = line.split(":");
    const gid = parseId(gidWord);
    return name === "" || gid === undefined ? [] : [{ name, gid, members: members.trim().split(",") }];
  });
}
