/**
 * Programs that compute while they are checkpointed, and what must be true of each at any instant: what it has done is what it would have
 * done undisturbed, and what it has told somebody is done.
 */
import { createHash } from "node:crypto";
import type { ContainerHandle } from "../../src/sdk/index.ts";

export interface Workload {
  readonly name: string;
  /** `programs` is made of Debian's packages, see `debianImage`. */
  readonly image: "busybox" | "node" | "programs";
  readonly command: readonly string[];
  /** How much it has done, never less than it has promised; throws when that is not what it should be. */
  readonly look: (container: ContainerHandle) => Promise<number>;
  /** What it has on disk outlives a VM that is ended: it is looked at after a boot, too. */
  readonly outlivesVm?: boolean;
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

export async function read(container: ContainerHandle, ...command: string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await container.exec(command);
  if (exitCode !== 0) throw new Error(`${container.name}: ${command[0]} ended with ${exitCode}: ${stderr}${stdout}`);
  return stdout.trim();
}

function assertLines(who: string, lines: readonly string[], expected: (index: number) => string): number {
  for (const [index, line] of lines.entries()) {
    if (line !== expected(index)) throw new Error(`${who}: line ${index + 1} is ${line}, not ${expected(index)}`);
  }
  return lines.length;
}

/** Digests of digests: the wrong value anywhere makes every later one wrong. Grows as it is asked for. */
function chain(first: string, next: (last: string, n: number) => string): (index: number) => string {
  const known = [first];
  return (index) => {
    while (known.length <= index + 1) known.push(next(known.at(-1) ?? "", known.length));
    return known[index + 1] ?? "";
  };
}

/** Three processes, two pipes: the sums are of all numbers, in their order. */
const PIPELINE = `i=0; while :; do i=$((i+1)); echo $i; usleep 200000; done | awk '{ print; fflush() }' |
while read n; do s=$((s+n)); echo "$n $s" >> /sums; done`;

const pipeline: Workload = {
  name: "pipeline",
  image: "busybox",
  command: ["sh", "-c", PIPELINE],
  look: async (container) => {
    const lines = (await read(container, "cat", "/sums")).split("\n");
    return assertLines("pipeline", lines, (index) => `${index + 1} ${((index + 1) * (index + 2)) / 2}`);
  },
};

/** In the memory of one process: a chain, and a table of a thousand strings of which each step reads one and writes another. */
const NODE = `
const { createHash } = require("node:crypto"); const { appendFileSync } = require("node:fs");
const table = Array.from({ length: 1000 }, (_, i) => "" + i); let n = 0, last = "";
setInterval(() => {
  n += 1;
  last = createHash("sha256").update(last + n + table[n * 7 % 1000]).digest("hex");
  table[n * 13 % 1000] = last;
  appendFileSync("/chain", last + "\\n");
}, 200);`;

const table = Array.from({ length: 1000 }, (_, index) => String(index));
const nodeLine = chain("", (last, n) => {
  const digest = sha256(`${last}${n}${table[(n * 7) % 1000]}`);
  table[(n * 13) % 1000] = digest;
  return digest;
});

const node: Workload = {
  name: "node",
  image: "node",
  command: ["node", "-e", NODE],
  look: async (container) => {
    const text = await read(container, "node", "-p", "require('fs').readFileSync('/chain','utf8')");
    return assertLines("node", text.split("\n"), nodeLine);
  },
};

/** Digits of pi by Gibbons' spigot: a few integers that grow longer and longer are all of its state. */
const PYTHON = `
import time
q, r, t, k, n, l = 1, 0, 1, 1, 3, 3
with open("/digits", "w") as out:
    while True:
        if 4 * q + r - t < n * t:
            out.write(str(n)); out.flush(); time.sleep(0.1)
            q, r, n = 10 * q, 10 * (r - n * t), (10 * (3 * q + r)) // t - 10 * n
        else:
            q, r, t, k, n, l = q * k, (2 * q + r) * l, t * l, k + 1, (q * (7 * k + 2) + r * l) // (t * l), l + 2`;

const python: Workload = {
  name: "python",
  image: "programs",
  command: ["python3", "-c", PYTHON],
  look: async (container) => {
    const digits = await read(container, "cat", "/digits");
    if (!piDigits(digits.length).startsWith(digits)) throw new Error(`python: ${digits} is not pi`);
    return digits.length;
  },
};

let pi = "";

/** By another formula (Machin's), so that a mistake would have to be made twice. */
function piDigits(count: number): string {
  if (pi.length < count) pi = computePi(2 * count);
  return pi;
}

function computePi(count: number): string {
  const unity = 10n ** BigInt(count + 10);
  const arcCotangent = (x: bigint): bigint => {
    let sum = 0n;
    let power = unity / x;
    for (let n = 1n; power !== 0n; n += 2n) {
      sum += n % 4n === 1n ? power / n : -(power / n);
      power /= x * x;
    }
    return sum;
  };
  return String(4n * (4n * arcCotangent(5n) - arcCotangent(239n))).slice(0, count);
}

/**
 * One file in the memory that containers share; each takes its turn at it, and keeps a record on its own disk. Whose turn it is, is one
 * word, written at once: `struct` would write it byte by byte.
 */
const ring = (index: number): string => `
import hashlib, mmap, os, time
fd = os.open("/dev/shm/ring", os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 4096)
memory = mmap.mmap(fd, 4096); word = memoryview(memory)[:8].cast("Q")
with open("/turns", "w") as out:
    while True:
        turn = word[0]
        if turn % 3 != ${index}: time.sleep(0.05); continue
        digest = hashlib.sha256(memory[8:40] + str(turn).encode()).digest()
        memory[8:40] = digest
        out.write(f"{turn} {digest.hex()}\\n"); out.flush()
        word[0] = turn + 1
        time.sleep(0.05)`;

const ringLine = chain("00".repeat(32), (last, n) =>
  createHash("sha256")
    .update(Buffer.from(last, "hex"))
    .update(String(n - 1))
    .digest("hex"),
);

const rings = [0, 1, 2].map(
  (index): Workload => ({
    name: `ring${index}`,
    image: "programs",
    command: ["python3", "-c", ring(index)],
    look: async (container) => {
      const lines = (await read(container, "cat", "/turns")).split("\n");
      return assertLines(container.name, lines, (at) => `${3 * at + index} ${ringLine(3 * at + index)}`);
    },
  }),
);

const BIN = "/usr/lib/postgresql/15/bin";
const AS_POSTGRES = "setpriv --reuid postgres --regid postgres --clear-groups";
const PSQL = "psql -XqAt -h /db -U postgres";
/** Rows whose commit is acknowledged, one after the other, beside the bank of pgbench. */
const POSTGRES = `[ -d /db/main ] || {
  install -d -o postgres -m 700 /db
  ${AS_POSTGRES} ${BIN}/initdb -D /db/main --no-instructions > /dev/null
}
${AS_POSTGRES} ${BIN}/postgres -D /db/main -k /db -c listen_addresses= -c shared_buffers=16MB -c log_min_messages=panic &
until ${PSQL} -c 'CREATE TABLE IF NOT EXISTS rows (n int PRIMARY KEY)'; do sleep 1; done 2> /dev/null
[ -e /bank ] || { ${BIN}/pgbench -h /db -U postgres -i -I dtGvp -s 1 -q postgres && touch /bank; } > /dev/null 2>&1
while :; do ${BIN}/pgbench -h /db -U postgres -n -c 2 -R 4 -T 1000000 postgres; sleep 1; done > /pgbench.log 2>&1 &
n=$(${PSQL} -c 'SELECT coalesce(max(n), 0) FROM rows')
while :; do n=$((n+1)); ${PSQL} -c "INSERT INTO rows VALUES ($n) ON CONFLICT DO NOTHING" && echo $n > /acknowledged.new && mv /acknowledged.new /acknowledged; sleep 0.3; done`;
const BANK = `SELECT (SELECT count(*) FROM rows), (SELECT max(n) FROM rows), (SELECT count(*) FROM pgbench_history),
  (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
  (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
  (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)`;

const postgres: Workload = {
  name: "postgres",
  image: "programs",
  command: ["sh", "-c", POSTGRES],
  outlivesVm: true,
  look: async (container) => {
    const text = await read(container, "sh", "-c", `cat /acknowledged; ${PSQL} -c "${BANK}"`);
    const [acknowledged = "", answer = ""] = text.split("\n").slice(-2);
    const [count, max, history, ...balances] = answer.split("|");
    const isBalanced = balances.length === 3 && balances.every((each) => each === "t");
    if (!isBalanced || count !== max || Number(count) < Number(acknowledged) || Number(history) === 0)
      throw new Error(`postgres: ${text}`);
    return Number(count);
  },
};

/** A client of Redis that knows every answer beforehand, over one connection, and keeps on disk what it was last told of. */
const CLIENT = `
import hashlib, os, socket, sys, time
who = sys.argv[1]
connection = socket.create_connection(("127.0.0.1", 6379)); stream = connection.makefile("rb")
def ask(*words):
    connection.sendall(b"*%d\\r\\n" % len(words) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(w), w) for w in (w.encode() for w in words)))
    line = stream.readline().rstrip()
    if line[:1] == b"$": return stream.read(int(line[1:]) + 2)[:-2].decode()
    return line.decode()
def check(got, wanted):
    if got != wanted:
        open("/wrong", "a").write(f"{who}: {got!r}, not {wanted!r}\\n"); sys.exit(1)
value = lambda n: hashlib.sha256(f"{who} {n}".encode()).hexdigest()
n = 0
while True:
    n += 1
    check(ask("INCR", f"count:{who}"), f":{n}")
    check(ask("SET", f"{who}:{n}", value(n)), "+OK")
    old = n * 7919 % n + 1 if n > 1 else 1
    check(ask("GET", f"{who}:{old}"), value(old))
    with open(f"/{who}.new", "w") as out: out.write(str(n))
    os.replace(f"/{who}.new", f"/acknowledged.{who}")
    time.sleep(0.2)`;
const REDIS = `mkdir -p /data; redis-server --dir /data --save '' --appendonly yes --appendfsync always --daemonize yes > /dev/null
until redis-cli ping > /dev/null 2>&1; do sleep 0.2; done
for who in one two; do python3 -c "$CLIENT" $who || echo "$who has ended" >> /wrong & done; wait`;

const redis: Workload = {
  name: "redis",
  image: "programs",
  command: ["env", `CLIENT=${CLIENT}`, "sh", "-c", REDIS],
  look: async (container) => {
    const script =
      "cat /wrong 2> /dev/null; cat /acknowledged.one; echo; cat /acknowledged.two; echo; redis-cli mget count:one count:two";
    const counts = (await read(container, "sh", "-c", script)).split("\n").map(Number);
    const [one = 0, two = 0, countOne = 0, countTwo = 0] = counts;
    const isRight = counts.length === 4 && countOne >= one && countTwo >= two && countOne > 0 && countTwo > 0;
    if (!isRight)
      throw new Error(`redis: ${counts.join(" ")}: ${await read(container, "sh", "-c", "cat /wrong 2>&1; true")}`);
    return Math.min(countOne, countTwo);
  },
};

/** Builds the same program again and again: each must be the one that was built first, which is looked at before any checkpoint. */
const COMPILE = `mkdir /build; cd /build
for i in 1 2 3; do echo "int part$i(int n) { int s = $i; for (int i = 0; i < n; i++) s = s * 31 + i % $((i + 2)); return s; }" > part$i.c; done
echo 'int printf(const char *, ...); int part1(int), part2(int), part3(int);
int main(void) { printf("%d %d %d", part1(1000), part2(2000), part3(3000)); return 0; }' > main.c
printf 'prog: main.o part1.o part2.o part3.o\\n\\tgcc -o prog $^\\n%%.o: %%.c\\n\\tgcc -O2 -c -o $@ $<\\n' > Makefile
while :; do
  rm -f prog *.o; make -s prog > log 2>&1 || cat log >> /built
  echo $(sha256sum < prog) $(./prog) >> /built; sleep 1
done`;
const BUILT = / - -?\d+ -?\d+ -?\d+$/;

const compile: Workload = {
  name: "compile",
  image: "programs",
  command: ["sh", "-c", COMPILE],
  look: async (container) => {
    const lines = (await read(container, "cat", "/built")).split("\n");
    const [first = ""] = lines;
    if (!BUILT.test(first)) throw new Error(`compile: ${first}`);
    return assertLines("compile", lines, () => first);
  },
};

export const workloads: readonly Workload[] = [pipeline, node, python, ...rings, postgres, redis, compile];
