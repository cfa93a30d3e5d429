/* tinyhttp PORT [BYTES]: one user's HTTP server for W4, with nothing in it that could be slow. One thread, one epoll,
 * 127.0.0.1 only. A POST is answered with a JSON-RPC result of BYTES (1024) that names the request's id and this port, so that
 * a wrong way would show. A GET is an event stream: "t", the moment of sending by CLOCK_MONOTONIC, twenty times a second. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 1 << 16, STREAMS = 1024 };
typedef struct {
    int fd, filled, streams;
    char text[HEAD + 1];
} client;

static int port, bytes = 1024, epoll, timer, streaming;
static client *streams[STREAMS];
static char answer[HEAD];

static int give(int fd, const char *from, int left) {
    while (left > 0) {
        int done = send(fd, from, left, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return -1;
        from += done, left -= done;
    }
    return 0;
}

static void leave(client *who) {
    for (int i = 0; who->streams && i < streaming; i++)
        if (streams[i] == who) streams[i--] = streams[--streaming];
    close(who->fd);
    free(who);
}

/* Twenty a second while somebody listens, and never otherwise: an idle server shall be idle. */
static void tick(int on) {
    long every = on ? 50000000 : 0;
    struct itimerspec when = {{0, every}, {0, every}};
    timerfd_settime(timer, 0, &when, 0);
}

static int begin_stream(client *who) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    if (streaming == STREAMS || give(who->fd, head, sizeof head - 1)) return -1;
    who->streams = 1;
    streams[streaming++] = who;
    if (streaming == 1) tick(1);
    return 0;
}

static int reply(client *who, const char *body) {
    const char *id = strstr(body, "\"id\":");
    char start[160];
    int known = sprintf(start, "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"port\":%d,\"text\":\"", id ? atol(id + 5) : 0, port);
    int filler = bytes > known + 3 ? bytes - known - 3 : 0;
    int at = sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", known + filler + 3, start);
    memset(answer + at, 'y', filler);
    memcpy(answer + at + filler, "\"}}", 3);
    return give(who->fd, answer, at + filler + 3);
}

/* Every whole request that has come; what is left of the next stays. */
static int serve(client *who) {
    char *end;
    while ((end = memmem(who->text, who->filled, "\r\n\r\n", 4))) {
        char *length = strcasestr(who->text, "\r\ncontent-length:"), *body = end + 4;
        int whole = body - who->text + (length && length < end ? atoi(length + 17) : 0);
        /* A proxy may choose to send a body in chunks; ours are small and come as one. */
        char *chunked = strcasestr(who->text, "\r\ntransfer-encoding: chunked");
        if (chunked && chunked < end) {
            char *last = strstr(body, "\r\n0\r\n\r\n");
            if (!last) return 0;
            whole = last + 7 - who->text;
        }
        if (whole > HEAD || who->filled < whole) return whole > HEAD ? -1 : 0;
        char after = who->text[whole];
        who->text[whole] = 0;
        if (!strncmp(who->text, "GET ", 4) ? begin_stream(who) : reply(who, body)) return -1;
        who->text[whole] = after;
        who->filled -= whole;
        memmove(who->text, who->text + whole, who->filled + 1);
    }
    return who->filled == HEAD ? -1 : 0;
}

static void hear(client *who) {
    int got = read(who->fd, who->text + who->filled, HEAD - who->filled);
    if (got <= 0) { leave(who); return; }
    who->filled += got;
    who->text[who->filled] = 0;
    if (serve(who)) leave(who);
}

static void tell(void) {
    unsigned long long times;
    struct timespec now;
    char event[128], chunk[160];
    if (read(timer, &times, sizeof times) < 0) return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int size = sprintf(event, "data: {\"t\":%lld,\"port\":%d}\n\n", now.tv_sec * 1000000000LL + now.tv_nsec, port);
    size = sprintf(chunk, "%x\r\n%s\r\n", size, event);
    for (int i = streaming; i--;)
        if (give(streams[i]->fd, chunk, size)) leave(streams[i]);
    if (!streaming) tick(0);
}

int main(int count, char **words) {
    if (count < 2) return 2;
    port = atoi(words[1]);
    if (count > 2) bytes = atoi(words[2]);
    int one = 1, door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(door, (void *)&at, sizeof at) || listen(door, 512)) return 1;
    epoll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct epoll_event event = {.events = EPOLLIN}, events[64];
    event.data.ptr = &door, epoll_ctl(epoll, EPOLL_CTL_ADD, door, &event);
    event.data.ptr = &timer, epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == &timer) { tell(); break; } /* it may end clients that stand further on in the list */
            if (events[i].data.ptr != &door) { hear(events[i].data.ptr); continue; }
            client *who = calloc(1, sizeof *who);
            who->fd = accept(door, 0, 0);
            if (who->fd < 0) { free(who); continue; }
            setsockopt(who->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            event.data.ptr = who, epoll_ctl(epoll, EPOLL_CTL_ADD, who->fd, &event);
        }
    }
}
