/* minibridge PORT -- CMD ARGS: the floor of W3, what no bridge can beat. One thread, one epoll: the body of each POST becomes a
 * line for one child, each line of the child the answer to the oldest POST that waits. No session, no ids, no checks, no limits:
 * it serves loadgen --stateless in front of a server that answers in order, and nobody else. 127.0.0.1 only. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
typedef struct { int fd, n; char b[1 << 16]; } conn;
static int in, out, ep, head, tail; static conn *queue[1 << 16]; static char line[1 << 20]; static int ln;
static void drop(conn *c) { for (int i = head; i != tail; i = (i + 1) & 65535) if (queue[i] == c) queue[i] = 0; close(c->fd); free(c); }
static void put(int fd, const char *s, int n) { while (n > 0) { int w = write(fd, s, n); if (w <= 0) return; s += w; n -= w; } }
static void client(conn *c) {
    int k = read(c->fd, c->b + c->n, sizeof c->b - 1 - c->n); if (k <= 0) { drop(c); return; }
    c->n += k; c->b[c->n] = 0;
    char *e = strstr(c->b, "\r\n\r\n"), *l; if (!e) return;
    l = strcasestr(c->b, "\r\ncontent-length:"); int len = l && l < e ? atoi(l + 17) : 0, hl = e + 4 - c->b;
    if (c->n < hl + len) return;
    c->b[hl + len] = '\n'; queue[tail] = c; tail = (tail + 1) & 65535; put(in, c->b + hl, len + 1); c->n = 0;
}
static void child(void) {
    int k = read(out, line + ln, sizeof line - ln); if (k <= 0) exit(0);
    ln += k; char *s = line, *nl;
    while ((nl = memchr(s, '\n', line + ln - s))) {
        static char r[1 << 20]; conn *c = queue[head]; head = (head + 1) & 65535;
        int o = sprintf(r, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", (int)(nl - s));
        memcpy(r + o, s, nl - s); if (c) put(c->fd, r, o + (nl - s)); s = nl + 1;
    }
    ln -= s - line; memmove(line, s, ln);
}
int main(int argc, char **argv) {
    int a[2], b[2], one = 1; if (argc < 4 || pipe(a) || pipe(b)) return 2;
    signal(SIGPIPE, SIG_IGN);
    if (!fork()) { prctl(PR_SET_PDEATHSIG, SIGKILL); dup2(a[0], 0); dup2(b[1], 1); close(a[0]); close(a[1]); close(b[0]); close(b[1]); execv(argv[3], argv + 3); _exit(127); }
    close(a[0]); close(b[1]); in = a[1]; out = b[0];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int s = socket(AF_INET, SOCK_STREAM, 0); setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s, (void *)&at, sizeof at) || listen(s, 512)) return 1;
    ep = epoll_create1(0); struct epoll_event e = {.events = EPOLLIN}, ev[64];
    e.data.ptr = &s; epoll_ctl(ep, EPOLL_CTL_ADD, s, &e); e.data.ptr = &out; epoll_ctl(ep, EPOLL_CTL_ADD, out, &e);
    for (;;) {
        int n = epoll_wait(ep, ev, 64, -1);
        for (int i = 0; i < n; i++) {
            if (ev[i].data.ptr == &out) child();
            else if (ev[i].data.ptr == &s) { conn *c = calloc(1, sizeof *c); c->fd = accept(s, 0, 0); setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); e.data.ptr = c; epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e); }
            else client(ev[i].data.ptr);
        }
    }
}
