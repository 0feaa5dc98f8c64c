// SPDX-License-Identifier: MIT-0
/**
 * @file stack.h
 * @brief The least of an IPv4 host: answers ARP, ICMP echo and UDP port 7, asks for its gateway.
 *
 * Frame in, frame out: it knows no driver, allocates nothing and keeps next to nothing. Whoever
 * sent the frame is not trusted; what is malformed is dropped and counted, what is for others or of
 * no known kind is ignored. No fragments, no options, no routing: an answer goes where the frame
 * came from.
 */
#ifndef EXAMPLES_BOARDS_PROGRAMS_NET_STACK_H
#define EXAMPLES_BOARDS_PROGRAMS_NET_STACK_H

#include <stdbool.h>
#include <stdint.h>

enum { NET_STACK_FRAME = 1514 /**< bytes of a frame at most */ };

/** A host with one address on one Ethernet. Set the first three, zero the rest. */
struct net_stack {
    uint8_t mac[6];
    uint8_t address[4];
    uint8_t gateway[4];

    uint8_t gateway_mac[6]; /**< once gateway_known */
    bool gateway_known;
    bool quit;        /**< a datagram "quit" came to port 7 */
    uint32_t dropped; /**< frames that were malformed */
};

/** Makes the ARP request for the gateway. @return its length */
uint32_t net_stack_ask(const struct net_stack *stack, uint8_t request[NET_STACK_FRAME]);

/** Takes a frame of at most NET_STACK_FRAME bytes.
 *  @param answer  gets the frame to send in return; not the memory of `frame`
 *  @return its length, 0: there is none */
uint32_t net_stack_take(struct net_stack *stack, const uint8_t *frame, uint32_t length,
                        uint8_t answer[NET_STACK_FRAME]);

#endif
