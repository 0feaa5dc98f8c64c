// SPDX-License-Identifier: MIT-0
/**
 * @file entropy.h
 * @brief A source of random bytes that are known: a pipe to the device, and what went in.
 *
 * The device gets the bytes when and as many as the host says, and whatever a device hands out can be
 * compared with what it was given.
 */
#ifndef EXAMPLES_HOSTS_ENTROPY_H
#define EXAMPLES_HOSTS_ENTROPY_H

#include <stdbool.h>
#include <stdint.h>

/** The stream: bytes 0 to `fed` went into the pipe, 0 to `received` came back. */
struct entropy {
    int out;
    int in;
    uint64_t fed;
    uint64_t received;
};

enum { ENTROPY_FEED_MAX = 32 << 10 /**< bytes at a time; fits into an empty pipe */ };

/** Opens a pipe whose other end `out` is for QEMU to inherit: 0, or -1 and errno. It closes when the
 *  process ends. */
int entropy_open(struct entropy *entropy);

/** Opens a FIFO from which a device in another process reads. 0, or -1 and errno. */
int entropy_open_fifo(struct entropy *entropy, const char *path);

/** Feeds the device with the next `length` bytes: false if the pipe is full or broken. */
bool entropy_feed(struct entropy *entropy, uint32_t length);

/** Has the device taken everything out of the pipe, after at most a second? */
bool entropy_taken(const struct entropy *entropy);

/** Are these the next bytes of the stream? If so they count as received. */
bool entropy_receive(struct entropy *entropy, const uint8_t *data, uint32_t length);

/** Bytes that went into the pipe and did not come back yet. */
static inline uint64_t entropy_owed(const struct entropy *entropy)
{
    return entropy->fed - entropy->received;
}

#endif
