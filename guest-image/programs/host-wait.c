/*
 * Waits for the agent until a host is connected to its port. Whoever reads a virtio-serial port that no host is connected to is answered at
 * once, and Node has no other way to wait than to ask again and again: a hundred emulated guests whose host is away would do nothing else.
 *
 * Descriptors: 0, where each byte asks; 1, where each is answered when a host is there; 3, the port. It ends with the agent.
 */
#include "system.h"

typedef unsigned int u32;
typedef unsigned long u64;

/* Numbers of Linux's interface on x86-64, from its headers. */
enum { READ = 0, WRITE = 1, POLL = 7, EXIT = 60, EPOLL_WAIT = 232, EPOLL_CTL = 233, EPOLL_CREATE1 = 291 };
enum { POLLIN = 1, POLLOUT = 4, POLLHUP = 16, EPOLL_CTL_ADD = 1, EINTR = 4, PORT = 3 };
#define EPOLLET 0x80000000u

struct pollfd {
  int fd;
  short events, revents;
};

struct epoll_event {
  u32 events;
  u32 data[2];
};

static int host_is_there(void) {
  struct pollfd port = {PORT, POLLIN, 0};
  long found = call(POLL, (long)&port, 1, 0, 0);
  if (found < 0 && found != -EINTR) call(EXIT, 1, 0, 0, 0);
  return !(port.revents & POLLHUP);
}

void _start(void) {
  /* Told of changes only: that no host is there would be told all the time. One that comes can be written to, before it has said anything. */
  struct epoll_event changes = {POLLIN | POLLOUT | EPOLLET, {0, 0}};
  long epoll = call(EPOLL_CREATE1, 0, 0, 0, 0);
  if (epoll < 0 || call(EPOLL_CTL, epoll, EPOLL_CTL_ADD, PORT, (long)&changes) != 0) call(EXIT, 1, 0, 0, 0);
  for (;;) {
    char question;
    long asked = call(READ, 0, (long)&question, 1, 0);
    if (asked == -EINTR) continue;
    if (asked != 1) call(EXIT, 0, 0, 0, 0);
    while (!host_is_there()) call(EPOLL_WAIT, epoll, (long)&changes, 1, -1);
    call(WRITE, 1, (long)&question, 1, 0);
  }
}
