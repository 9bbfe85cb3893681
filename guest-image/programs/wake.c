/*
 * Does for a guest what Node has no system calls for (random numbers, the time), and brings a copy of it back: who it is, where it is in
 * which network, without the connections of its source, and its containers going on. All as one message on standard input says; each is
 * answered on standard output.
 *
 * One of it waits for the agent, and one for the host, on a port of its own. The agent could bring a copy back too, and does so where it
 * must; but in a VM that was just put into another process, under emulation, every piece of code is translated when it first runs, and the
 * agent's way through Node is hundreds of thousands of them. This program's is a few system calls.
 *
 * The layout of a message is that of src/protocol/wake.ts.
 */
#include "system.h"

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

/* Numbers of Linux's interface on x86-64, from its headers. */
enum { READ, WRITE, OPEN, CLOSE };
enum {
  LSEEK = 8,
  RT_SIGPROCMASK = 14,
  IOCTL = 16,
  GETPID = 39,
  SOCKET = 41,
  EXIT = 60,
  KILL = 62,
  FCNTL = 72,
  FTRUNCATE = 77,
  RT_SIGTIMEDWAIT = 128,
  SCHED_SETSCHEDULER = 144,
  CLOCK_SETTIME = 227,
  CLOCK_GETTIME = 228,
};
enum { O_WRONLY = 1, O_RDWR = 2, O_ASYNC = 020000, F_SETFL = 4, F_SETOWN = 8, SIGKILL = 9, SIGIO = 29, SCHED_FIFO = 1 };
enum { SEEK_END = 2 };
/* The socket never waits: the kernel has answered a request when it has been written. */
enum { AF_NETLINK = 16, SOCK_RAW = 3, SOCK_CLOEXEC = 02000000, SOCK_NONBLOCK = 04000 };
enum { NETLINK_ROUTE = 0, NETLINK_SOCK_DIAG = 4, NLMSG_ERROR = 2, NLMSG_DONE = 3 };
enum { NLM_F_REQUEST = 1, NLM_F_ACK = 4, NLM_F_DUMP = 0x300, SOCK_DIAG_BY_FAMILY = 20, SOCK_DESTROY = 21 };
enum { AF_INET = 2, AF_INET6 = 10, IPPROTO_TCP = 6, TCP_LISTEN = 10 };
#define RNDADDENTROPY 0x40085203
#define RNDRESEEDCRNG 0x5207
#define SECOND 1000000000L

/* What the kernel says when something is wrong. */
enum { ENOENT = 2, ESRCH = 3, EIO = 5, EINVAL = 22, EADDRNOTAVAIL = 99 };

enum { MESSAGE_MAX = 64 * 1024, PATH_MAX = 112, DISCONNECT_ROUNDS = 16 };

struct time {
  long s, ns;
};

struct message {
  u32 bytes;
  /* Sets the clock forward by the time below, or to it. */
  u32 advance;
  struct time time;
  /* struct rand_pool_info */
  int entropy_bits, entropy_bytes;
  u8 entropy[64];
};

enum { OP_WRITE = 1, OP_KILL = 2, OP_NETLINK = 3, OP_DISCONNECT = 4 };

/* What is removed may be gone: that is as it should be. Connections of the guest with itself stay. */
enum { MAY_BE_GONE = 1, KEEP_INSIDE = 1 };

struct op {
  u32 kind;
  /* Of the whole, header included. */
  u32 bytes;
  /* Of what is written or asked, of an address, or the process that is ended. */
  u32 length;
  u32 flags;
  char path[PATH_MAX];
  u8 data[];
};

/* struct nlmsghdr, and of an answer to one also what struct nlmsgerr begins with. */
struct request {
  u32 bytes;
  unsigned short type, flags;
  u32 sequence, port;
};

struct reply {
  struct request header;
  int error;
  /* The request, as far as there is room. */
  u8 request[1024];
};

/* Up to its error, or what stands for that in an answer of another kind. */
#define REPLY_BYTES_MIN (long)(sizeof(struct request) + sizeof(int))

struct answer {
  /* 0 when all was done; otherwise what the kernel refused with. */
  u32 error;
  /* How many operations were done. */
  u32 done;
};

static u8 buffer[MESSAGE_MAX];
/* What the kernel lists of connections. */
static u8 list[16 * 1024];
/* Sockets of this program: to configure interfaces, to have connections listed, and to end them. Or why there is none. */
static int configurer, lister, ender;

static long call1(long number, long a) { return call(number, a, 0, 0, 0); }
static long call3(long number, long a, long b, long c) { return call(number, a, b, c, 0); }

/* Until a whole message is in the buffer; one that a host began and did not end is forgotten when that host has gone. */
static struct message *receive(u64 signals) {
  struct message *message = (struct message *)buffer;
  u32 got = 0;
  for (;;) {
    long more = call3(READ, 0, (long)(buffer + got), sizeof buffer - got);
    if (more <= 0) {
      /* No host is there: the port tells when one is. */
      got = 0;
      call(RT_SIGTIMEDWAIT, (long)&signals, 0, 0, sizeof signals);
      continue;
    }
    got += more;
    if (got < sizeof *message) continue;
    if (message->bytes < sizeof *message || message->bytes > sizeof buffer) call1(EXIT, 2);
    if (got >= message->bytes) return message;
  }
}

static long renew(int random, struct message *message) {
  struct time *time = &message->time;
  long error = call3(IOCTL, random, RNDADDENTROPY, (long)&message->entropy_bits);
  if (error == 0) error = call3(IOCTL, random, RNDRESEEDCRNG, 0);
  if (error != 0 || (time->s == 0 && time->ns == 0)) return error;
  if (message->advance) {
    struct time now;
    error = call3(CLOCK_GETTIME, 0, (long)&now, 0);
    if (error != 0) return error;
    time->s += now.s;
    time->ns += now.ns;
    if (time->ns >= SECOND) {
      time->s += 1;
      time->ns -= SECOND;
    }
  }
  return call3(CLOCK_SETTIME, 0, (long)time, 0);
}

/* In place: a file that is mounted by itself stays the one that it is. Never shorter than both texts meanwhile. */
static long write_file(struct op *op) {
  long file = call3(OPEN, (long)op->path, O_WRONLY, 0);
  if (file < 0) return file;
  long written = call3(WRITE, file, (long)op->data, op->length);
  /* Cutting off nothing is work too, for a file system. Files of the kernel have no length, and say so. */
  if (call3(LSEEK, file, 0, SEEK_END) > op->length) call3(FTRUNCATE, file, op->length, 0);
  call1(CLOSE, file);
  if (written < 0) return written;
  return written == op->length ? 0 : -EIO;
}

static int is_gone(long error) { return error == -ENOENT || error == -ESRCH || error == -EADDRNOTAVAIL; }

/* Each request asks for an answer, which is its error, or 0. */
static long ask(int netlink, struct request *request) {
  struct reply reply;
  long written = call3(WRITE, netlink, (long)request, request->bytes);
  if (written < 0) return written;
  long got = call3(READ, netlink, (long)&reply, sizeof reply);
  if (got < REPLY_BYTES_MIN || reply.header.type != NLMSG_ERROR) return -EIO;
  return reply.error;
}

static long configure(struct op *op) {
  u8 *next = op->data;
  u8 *end = next + op->length;
  if (configurer < 0) return configurer;
  while (next < end) {
    struct request *request = (struct request *)next;
    if (end - next < sizeof *request || request->bytes < sizeof *request || request->bytes > end - next) return -EINVAL;
    long error = ask(configurer, request);
    if (error != 0 && !((op->flags & MAY_BE_GONE) && is_gone(error))) return error;
    next += (request->bytes + 3) & ~3;
  }
  return 0;
}

/* struct inet_diag_sockid: which connection it is. Ports and addresses are as on the wire. */
struct connection {
  unsigned short from_port, to_port;
  u32 from[4], to[4], interface, cookie[2];
};

/* struct inet_diag_req_v2 */
struct question {
  struct request header;
  u8 family, protocol, extensions, pad;
  u32 states;
  struct connection which;
};

/* struct inet_diag_msg */
struct found {
  struct request header;
  u8 family, state, timer, retransmits;
  struct connection which;
};

/* Whether one end of a connection is what the operation says. A socket of IPv6 may have an address of IPv4, written as one of its own. */
static int is_at(u8 family, u32 *end, struct op *op) {
  u32 *at = (u32 *)op->data;
  if (op->length == 16)
    return family == AF_INET6 && end[0] == at[0] && end[1] == at[1] && end[2] == at[2] && end[3] == at[3];
  if (family == AF_INET) return end[0] == at[0];
  return end[0] == 0 && end[1] == 0 && end[2] == 0xffff0000 && end[3] == at[0];
}

static int is_meant(struct found *found, struct op *op) {
  if (!is_at(found->family, found->which.from, op)) return 0;
  return !((op->flags & KEEP_INSIDE) && is_at(found->family, found->which.to, op));
}

static int open_netlink(int protocol) {
  return call3(SOCKET, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
}

static void open_diagnosis(void) {
  lister = open_netlink(NETLINK_SOCK_DIAG);
  ender = open_netlink(NETLINK_SOCK_DIAG);
}

static void ask_about(struct question *question, int type, int flags, u8 family) {
  question->header.bytes = sizeof *question;
  question->header.type = type;
  question->header.flags = NLM_F_REQUEST | flags;
  question->family = family;
  question->protocol = IPPROTO_TCP;
}

/* Has the kernel list all connections of a family, and end those of the address. Answers how many, or what went wrong. */
static long disconnect_family(u8 family, struct op *op) {
  /* What is not said of them stays zero. */
  static struct question listing, ending;
  long ended = 0;
  ask_about(&listing, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family);
  listing.states = ~(1u << TCP_LISTEN);
  long got = call3(WRITE, lister, (long)&listing, sizeof listing);
  while (got >= 0) {
    got = call3(READ, lister, (long)list, sizeof list);
    for (long at = 0; at + REPLY_BYTES_MIN <= got;) {
      struct reply *reply = (struct reply *)(list + at);
      struct found *found = (struct found *)(list + at);
      if (reply->header.type == NLMSG_DONE) return ended;
      if (reply->header.type == NLMSG_ERROR) return reply->error;
      if (reply->header.bytes < sizeof *found || reply->header.bytes > got - at) return -EIO;
      if (is_meant(found, op)) {
        u8 *from = (u8 *)&found->which, *to = (u8 *)&ending.which;
        for (long i = 0; i < sizeof ending.which; i += 1) to[i] = from[i];
        ask_about(&ending, SOCK_DESTROY, NLM_F_ACK, found->family);
        long error = ask(ender, &ending.header);
        if (error == 0) ended += 1;
        else if (!is_gone(error)) return error;
      }
      at += (reply->header.bytes + 3) & ~3;
    }
  }
  return got;
}

/* Until none is left: while some are ended, the kernel's list may pass others over. */
static long disconnect(struct op *op) {
  if (op->length != 4 && op->length != 16) return -EINVAL;
  long ended = lister < 0 ? lister : ender;
  for (int round = 0; ended >= 0 && round < DISCONNECT_ROUNDS; round += 1) {
    ended = op->length == 16 ? 0 : disconnect_family(AF_INET, op);
    if (ended >= 0) {
      long more = disconnect_family(AF_INET6, op);
      ended = more < 0 ? more : ended + more;
    }
    if (ended == 0) break;
  }
  if (ended >= 0) return 0;
  /* There may be answers left that nobody has read. */
  if (lister >= 0) call1(CLOSE, lister);
  if (ender >= 0) call1(CLOSE, ender);
  open_diagnosis();
  return ended;
}

static int is_whole(struct op *op, u32 room) {
  if (room < sizeof *op || op->bytes < sizeof *op || op->bytes > room) return 0;
  if (op->kind == OP_KILL) return 1;
  if (op->length > op->bytes - sizeof *op) return 0;
  return op->kind == OP_NETLINK || op->kind == OP_DISCONNECT || (op->kind == OP_WRITE && op->path[PATH_MAX - 1] == 0);
}

static void carry_out(int random, struct message *message, struct answer *answer) {
  u8 *next = (u8 *)(message + 1);
  u8 *end = (u8 *)message + message->bytes;
  long error = renew(random, message);
  answer->done = 0;
  while (error == 0 && next < end) {
    struct op *op = (struct op *)next;
    if (!is_whole(op, end - next)) {
      error = -EINVAL;
      break;
    }
    /* One that has ended meanwhile is as it should be. */
    if (op->kind == OP_KILL) call3(KILL, op->length, SIGKILL, 0);
    else if (op->kind == OP_NETLINK) error = configure(op);
    else error = op->kind == OP_DISCONNECT ? disconnect(op) : write_file(op);
    if (error == 0) answer->done += 1;
    next += op->bytes;
  }
  answer->error = -error;
}

/* Has the kernel give what it gives when it is first written to: in a copy that would be more code to run. */
static void have_memory(void) {
  volatile u8 stack[8 * 1024];
  for (long at = 0; at < sizeof stack; at += 1024) stack[at] = 0;
  for (long at = 0; at < sizeof buffer; at += 1024) ((volatile u8 *)buffer)[at] = 0;
  for (long at = 0; at < sizeof list; at += 1024) ((volatile u8 *)list)[at] = 0;
}

void _start(void) {
  u64 signals = 1ul << (SIGIO - 1);
  /* Before everything else that a copy wakes up to, which is mostly the agent. */
  int priority = 1;
  call3(SCHED_SETSCHEDULER, 0, SCHED_FIFO, (long)&priority);
  call(RT_SIGPROCMASK, 0, (long)&signals, 0, sizeof signals);
  call3(FCNTL, 0, F_SETOWN, call1(GETPID, 0));
  call3(FCNTL, 0, F_SETFL, O_RDWR | O_ASYNC);
  int random = call3(OPEN, (long)"/dev/urandom", O_WRONLY, 0);
  if (random < 0) call1(EXIT, 1);
  configurer = open_netlink(NETLINK_ROUTE);
  open_diagnosis();
  have_memory();
  for (;;) {
    struct answer answer;
    carry_out(random, receive(signals), &answer);
    call3(WRITE, 1, (long)&answer, sizeof answer);
  }
}
