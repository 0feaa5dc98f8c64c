// SPDX-License-Identifier: MIT-0
/* The least of an IPv4 host; see stack.h. RFC 826, 791, 792, 768, 862. */
#include "stack.h"

#include <string.h>

/* Where things are, from the start of their header. */
enum {
    ETHERNET_SOURCE = 6,
    ETHERNET_TYPE = 12,
    ETHERNET_SIZE = 14,
    ARP_OPERATION = 6,
    ARP_SENDER = 8, /* MAC and address; those of the target follow */
    ARP_SENDER_ADDRESS = 14,
    ARP_TARGET = 18,
    ARP_TARGET_ADDRESS = 24,
    ARP_SIZE = 28,
    IP_LENGTH = 2,
    IP_FRAGMENT = 6,
    IP_TTL = 8,
    IP_PROTOCOL = 9,
    IP_CHECKSUM = 10,
    IP_SOURCE = 12,
    IP_TARGET = 16,
    IP_SIZE = 20, /* without options */
    ICMP_CHECKSUM = 2,
    ICMP_SIZE = 8,
    UDP_TARGET = 2,
    UDP_LENGTH = 4,
    UDP_CHECKSUM = 6,
    UDP_SIZE = 8
};

enum {
    TYPE_IP = 0x0800,
    TYPE_ARP = 0x0806,
    ARP_REQUEST = 1,
    ARP_REPLY = 2,
    IP_WHOLE = 0x4000, /* do not fragment */
    IP_PIECE = 0x3fff, /* more fragments, or one that is not the first */
    PROTOCOL_ICMP = 1,
    PROTOCOL_UDP = 17,
    ICMP_ECHO = 8,
    PORT_ECHO = 7,
    TTL = 64
};

static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
/* Ethernet and IPv4, with addresses of 6 and 4 bytes. */
static const uint8_t arp_kind[6] = {0, 1, 8, 0, 6, 4};

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* Adds big-endian words to a ones' complement sum; of at most 64 KiB in all. */
static uint32_t add_words(uint32_t sum, const uint8_t *bytes, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        sum += i % 2 == 0 ? (uint32_t)bytes[i] << 8 : bytes[i];
    return sum;
}

/* The checksum of what was added; 0 if that had its checksum among it. */
static uint16_t checksum(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static uint32_t drop(struct net_stack *stack)
{
    stack->dropped++;
    return 0;
}

static void put_ethernet(const struct net_stack *stack, uint8_t *frame, const uint8_t to[6],
                         uint16_t type)
{
    memcpy(frame, to, 6);
    memcpy(frame + ETHERNET_SOURCE, stack->mac, 6);
    put16(frame + ETHERNET_TYPE, type);
}

/* ----- ARP ----- */

static uint32_t put_arp(const struct net_stack *stack, uint8_t *frame, uint16_t operation,
                        const uint8_t to[6], const uint8_t target[6 + 4])
{
    uint8_t *arp = frame + ETHERNET_SIZE;

    put_ethernet(stack, frame, to, TYPE_ARP);
    memcpy(arp, arp_kind, sizeof(arp_kind));
    put16(arp + ARP_OPERATION, operation);
    memcpy(arp + ARP_SENDER, stack->mac, 6);
    memcpy(arp + ARP_SENDER_ADDRESS, stack->address, 4);
    memcpy(arp + ARP_TARGET, target, 6 + 4);
    return ETHERNET_SIZE + ARP_SIZE;
}

uint32_t net_stack_ask(const struct net_stack *stack, uint8_t request[NET_STACK_FRAME])
{
    uint8_t target[6 + 4] = {0};

    memcpy(target + 6, stack->gateway, 4);
    return put_arp(stack, request, ARP_REQUEST, broadcast, target);
}

static uint32_t take_arp(struct net_stack *stack, const uint8_t *frame, uint32_t length,
                         uint8_t *answer)
{
    const uint8_t *arp = frame + ETHERNET_SIZE;
    const uint8_t *sender = arp + ARP_SENDER;

    if (length < ETHERNET_SIZE + ARP_SIZE || memcmp(arp, arp_kind, sizeof(arp_kind)) != 0)
        return drop(stack);
    if (memcmp(arp + ARP_TARGET_ADDRESS, stack->address, 4) != 0)
        return 0;
    if (get16(arp + ARP_OPERATION) == ARP_REQUEST)
        return put_arp(stack, answer, ARP_REPLY, sender, sender);
    if (get16(arp + ARP_OPERATION) == ARP_REPLY &&
        memcmp(arp + ARP_SENDER_ADDRESS, stack->gateway, 4) == 0) {
        memcpy(stack->gateway_mac, sender, 6);
        stack->gateway_known = true;
    }
    return 0;
}

/* ----- IPv4 ----- */

/* Everything before the payload of an answer to `ip`, which is that of `frame`. */
static uint32_t put_ip(const struct net_stack *stack, uint8_t *answer, const uint8_t *frame,
                       uint32_t payload)
{
    uint8_t *ip = answer + ETHERNET_SIZE;
    const uint8_t *from = frame + ETHERNET_SIZE;

    put_ethernet(stack, answer, frame + ETHERNET_SOURCE, TYPE_IP);
    memset(ip, 0, IP_SIZE);
    ip[0] = 0x40 | IP_SIZE / 4;
    put16(ip + IP_LENGTH, IP_SIZE + payload);
    put16(ip + IP_FRAGMENT, IP_WHOLE);
    ip[IP_TTL] = TTL;
    ip[IP_PROTOCOL] = from[IP_PROTOCOL];
    memcpy(ip + IP_SOURCE, stack->address, 4);
    memcpy(ip + IP_TARGET, from + IP_SOURCE, 4);
    put16(ip + IP_CHECKSUM, checksum(add_words(0, ip, IP_SIZE)));
    return ETHERNET_SIZE + IP_SIZE + payload;
}

static uint32_t take_icmp(struct net_stack *stack, const uint8_t *frame, const uint8_t *icmp,
                          uint32_t length, uint8_t *answer)
{
    uint8_t *to = answer + ETHERNET_SIZE + IP_SIZE;

    if (length < ICMP_SIZE || checksum(add_words(0, icmp, length)) != 0)
        return drop(stack);
    if (icmp[0] != ICMP_ECHO || icmp[1] != 0)
        return 0;
    memcpy(to, icmp, length);
    to[0] = 0; /* echo reply */
    put16(to + ICMP_CHECKSUM, 0);
    put16(to + ICMP_CHECKSUM, checksum(add_words(0, to, length)));
    return put_ip(stack, answer, frame, length);
}

/* Over the datagram and what the IP header says of it; 0 if it has its right checksum. */
static uint16_t udp_checksum(const uint8_t *ip, const uint8_t *udp, uint32_t length)
{
    uint32_t sum = add_words(PROTOCOL_UDP + length, ip + IP_SOURCE, 4 + 4);

    return checksum(add_words(sum, udp, length));
}

static uint32_t take_udp(struct net_stack *stack, const uint8_t *frame, const uint8_t *udp,
                         uint32_t length, uint8_t *answer)
{
    uint8_t *to = answer + ETHERNET_SIZE + IP_SIZE;
    uint32_t size = length < UDP_SIZE ? 0 : get16(udp + UDP_LENGTH), total;
    uint16_t sum;

    if (size < UDP_SIZE || size > length)
        return drop(stack);
    if (get16(udp + UDP_CHECKSUM) != 0 && udp_checksum(frame + ETHERNET_SIZE, udp, size) != 0)
        return drop(stack);
    if (get16(udp + UDP_TARGET) != PORT_ECHO || get16(udp) == 0)
        return 0;
    stack->quit = size == UDP_SIZE + 4 && memcmp(udp + UDP_SIZE, "quit", 4) == 0;
    total = put_ip(stack, answer, frame, size);
    memcpy(to, udp + UDP_TARGET, 2);
    memcpy(to + UDP_TARGET, udp, 2);
    put16(to + UDP_LENGTH, size);
    put16(to + UDP_CHECKSUM, 0);
    memcpy(to + UDP_SIZE, udp + UDP_SIZE, size - UDP_SIZE);
    sum = udp_checksum(answer + ETHERNET_SIZE, to, size);
    put16(to + UDP_CHECKSUM, sum != 0 ? sum : 0xffff); /* 0 would say: none */
    return total;
}

static uint32_t take_ip(struct net_stack *stack, const uint8_t *frame, uint32_t length,
                        uint8_t *answer)
{
    const uint8_t *ip = frame + ETHERNET_SIZE;
    uint32_t there = length - ETHERNET_SIZE, total, header;

    if (there < IP_SIZE || ip[0] >> 4 != 4)
        return drop(stack);
    header = (ip[0] & 15u) * 4;
    total = get16(ip + IP_LENGTH);
    if (header < IP_SIZE || total < header || total > there ||
        checksum(add_words(0, ip, header)) != 0)
        return drop(stack);
    if (memcmp(ip + IP_TARGET, stack->address, 4) != 0 || (get16(ip + IP_FRAGMENT) & IP_PIECE) != 0)
        return 0;
    if (ip[IP_PROTOCOL] == PROTOCOL_ICMP)
        return take_icmp(stack, frame, ip + header, total - header, answer);
    if (ip[IP_PROTOCOL] == PROTOCOL_UDP)
        return take_udp(stack, frame, ip + header, total - header, answer);
    return 0;
}

uint32_t net_stack_take(struct net_stack *stack, const uint8_t *frame, uint32_t length,
                        uint8_t answer[NET_STACK_FRAME])
{
    bool mine;

    if (length < ETHERNET_SIZE || length > NET_STACK_FRAME ||
        (frame[ETHERNET_SOURCE] & 1) != 0) /* from a group: of nobody */
        return drop(stack);
    mine = memcmp(frame, stack->mac, 6) == 0;
    if (get16(frame + ETHERNET_TYPE) == TYPE_ARP && (mine || memcmp(frame, broadcast, 6) == 0))
        return take_arp(stack, frame, length, answer);
    if (get16(frame + ETHERNET_TYPE) == TYPE_IP && mine)
        return take_ip(stack, frame, length, answer);
    return 0;
}
