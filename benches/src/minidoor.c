/* minidoor FIRST COUNT TO: the floor of W4, what nothing between a client and its server can beat. It listens on COUNT ports of
 * 127.0.0.1 and hands bytes on to as many others, looks at none of them and asks nobody who they are. One thread, one epoll. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct end {
    int fd, listens, gone;
    struct end *other, *next;
} end;

static int epoll, one = 1;

static end *watch(int fd, int listens) {
    end *it = calloc(1, sizeof *it);
    it->fd = fd, it->listens = listens;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = it};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    return it;
}

static struct sockaddr_in address(int port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int give(int fd, const char *from, int left) {
    while (left > 0) {
        int done = send(fd, from, left, MSG_NOSIGNAL);
        if (done <= 0) return -1;
        from += done, left -= done;
    }
    return 0;
}

int main(int count, char **words) {
    if (count < 4) return 2;
    static char bytes[1 << 16];
    epoll = epoll_create1(0);
    for (int i = 0; i < atoi(words[2]); i++) {
        struct sockaddr_in at = address(atoi(words[1]) + i);
        int door = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(door, (void *)&at, sizeof at) || listen(door, 512)) return 1;
        watch(door, atoi(words[3]) + i);
    }
    struct epoll_event events[64];
    for (;;) {
        int ready = epoll_wait(epoll, events, 64, -1);
        end *ended = 0; /* freed when nothing in this round can name them any more */
        for (int i = 0; i < ready; i++) {
            end *it = events[i].data.ptr;
            if (it->gone) continue;
            if (it->listens) {
                struct sockaddr_in to = address(it->listens);
                int client = accept(it->fd, 0, 0), server = socket(AF_INET, SOCK_STREAM, 0);
                if (client < 0 || connect(server, (void *)&to, sizeof to)) { close(client), close(server); continue; }
                end *here = watch(client, 0), *there = watch(server, 0);
                here->other = there, there->other = here;
                continue;
            }
            int got = read(it->fd, bytes, sizeof bytes);
            if (got > 0 && !give(it->other->fd, bytes, got)) continue;
            end *both[] = {it, it->other};
            for (int k = 0; k < 2; k++) close(both[k]->fd), both[k]->gone = 1, both[k]->next = ended, ended = both[k];
        }
        while (ended) { end *next = ended->next; free(ended); ended = next; }
    }
}
