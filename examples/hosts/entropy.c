// SPDX-License-Identifier: MIT-0
/* A pipe of known bytes; see entropy.h. */
#define _POSIX_C_SOURCE 200809L
#include "entropy.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* Any byte of the stream from its place in it: no two stretches are alike. */
static uint8_t byte_at(uint64_t at)
{
    uint64_t mixed = (at + 1) * 0x9e3779b97f4a7c15u;

    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
    return (uint8_t)(mixed >> 56);
}

int entropy_open(struct entropy *entropy)
{
    int end[2];

    if (pipe(end) != 0)
        return -1;
    entropy->out = end[0];
    entropy->in = end[1];
    entropy->fed = entropy->received = 0;
    return fcntl(end[1], F_SETFD, FD_CLOEXEC);
}

/* Both ends in one: so that the FIFO is open, and what is left in it can be asked for. */
int entropy_open_fifo(struct entropy *entropy, const char *path)
{
    entropy->in = entropy->out = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    entropy->fed = entropy->received = 0;
    return entropy->in < 0 ? -1 : 0;
}

bool entropy_feed(struct entropy *entropy, uint32_t length)
{
    uint8_t bytes[ENTROPY_FEED_MAX];

    if (length > ENTROPY_FEED_MAX)
        return false;
    for (uint32_t i = 0; i < length; i++)
        bytes[i] = byte_at(entropy->fed + i);
    entropy->fed += length;
    return write(entropy->in, bytes, length) == (ssize_t)length;
}

bool entropy_taken(const struct entropy *entropy)
{
    static const struct timespec pause = {0, 1000000};
    int left = 1;

    for (unsigned i = 0; i < 1000; i++) {
        if (ioctl(entropy->out, FIONREAD, &left) != 0 || left == 0)
            break;
        nanosleep(&pause, NULL);
    }
    return left == 0;
}

bool entropy_receive(struct entropy *entropy, const uint8_t *data, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++) {
        if (data[i] != byte_at(entropy->received + i))
            return false;
    }
    entropy->received += length;
    return true;
}
