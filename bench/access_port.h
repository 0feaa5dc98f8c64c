// SPDX-License-Identifier: MIT-0
/*
 * VIRTIO_CONFIG_FILE of bench/access.c: for each in or out of virtio.h a move between the registers
 * that the instruction is bound to, so that it can be executed by anyone and everything around it
 * stays the same.
 */
#ifndef BENCH_ACCESS_PORT_H
#define BENCH_ACCESS_PORT_H

#define VIRTIO_HAVE_PORT 1

#define ACCESS_READ(bits, suffix, size)                                                            \
    static inline uint##bits##_t access_read##bits(uint16_t port)                                  \
    {                                                                                              \
        uint##bits##_t value;                                                                      \
                                                                                                   \
        __asm__ volatile("mov" suffix " %" size "1, %" size "0"                                    \
                         : "=a"(value) : "Nd"(port) : "memory");                                   \
        return value;                                                                              \
    }
#define ACCESS_WRITE(bits, suffix, size)                                                           \
    static inline void access_write##bits(uint16_t port, uint##bits##_t value)                     \
    {                                                                                              \
        __asm__ volatile("test" suffix " %" size "0, %" size "0" : : "a"(value), "Nd"(port)        \
                         : "memory", "cc");                                                        \
    }
ACCESS_READ(8, "b", "b")
ACCESS_READ(16, "w", "w")
ACCESS_READ(32, "l", "k")
ACCESS_WRITE(8, "b", "b")
ACCESS_WRITE(16, "w", "w")
ACCESS_WRITE(32, "l", "k")

#define VIRTIO_PORT_READ8(port) access_read8(port)
#define VIRTIO_PORT_READ16(port) access_read16(port)
#define VIRTIO_PORT_READ32(port) access_read32(port)
#define VIRTIO_PORT_WRITE8(port, value) access_write8((port), (value))
#define VIRTIO_PORT_WRITE16(port, value) access_write16((port), (value))
#define VIRTIO_PORT_WRITE32(port, value) access_write32((port), (value))

#endif
