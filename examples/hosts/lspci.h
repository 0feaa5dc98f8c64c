// SPDX-License-Identifier: MIT-0
/**
 * @file lspci.h
 * @brief The parts of virtio-lspci: a PCI function as it was found, and who fills it in.
 *
 * lspci_dump.c reads functions out of dumps, lspci_sysfs.c out of a running Linux; each function
 * found is handed to a callback. lspci_registers.c looks behind a live one's BARs, lspci_show.c
 * prints. Nothing here touches a register unless lspci_registers_read() is called.
 */
#ifndef EXAMPLES_HOSTS_LSPCI_H
#define EXAMPLES_HOSTS_LSPCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "virtio.h"
#include "virtio_names.h"

enum {
    LSPCI_CONFIG_MIN = 64, /**< bytes of configuration space that make a function */
    LSPCI_CONFIG_MAX = 4096,
    LSPCI_PATH_MAX = 4096,
    LSPCI_NAME_MAX = 64,
    LSPCI_CAP_MAX = 64, /**< more than a list can have */
    LSPCI_QUEUE_MAX = 65536
};

/** What the program ends with; of several the greatest. */
enum lspci_status {
    LSPCI_OK = 0,
    LSPCI_NONE = 1,  /**< no virtio function */
    LSPCI_USAGE = 2, /**< wrong arguments */
    LSPCI_INPUT = 3, /**< something cannot be read, or is malformed */
    LSPCI_UNUSABLE = 4 /**< a layout is unusable, or registers asked for cannot be read */
};

/** One BAR; pci.length is assumed if the function's sizes are not known. */
struct lspci_bar {
    struct virtio_pci_bar pci;
    bool prefetchable;
};

/** What sysfs tells of a function besides its configuration space; empty names: there is none. */
struct lspci_live {
    char directory[LSPCI_PATH_MAX];
    char driver[LSPCI_NAME_MAX];        /**< bound to the PCI function */
    char device[LSPCI_NAME_MAX];        /**< the virtio device made by it: "virtio0" */
    char device_driver[LSPCI_NAME_MAX]; /**< bound to that one */
    bool negotiated_known;
    bool status_known;
    struct virtio_features negotiated;
    uint8_t status;
};

/** A PCI function as it was found. */
struct lspci_function {
    char address[LSPCI_NAME_MAX]; /**< "00:03.0"; empty if not known */
    const char *source;           /**< name of the dump; NULL if live */
    uint8_t config[LSPCI_CONFIG_MAX];
    size_t config_size;
    int config_file; /**< live: the rest of configuration space, read as it is asked for; else -1 */
    bool sizes_known;
    struct lspci_bar bars[6];
    struct lspci_live live;
};

/** Takes a function that was found; false: stop. */
typedef bool (*lspci_found_fn)(void *ctx, struct lspci_function *function);

/** One queue, as registers tell. */
struct lspci_queue {
    uint16_t size;
    uint16_t notify_off; /**< VIRTIO 1.x only */
};

/** What the registers of a function that nobody drives told. */
struct lspci_registers {
    char why_not[256]; /**< empty if they were read */
    struct virtio_features offered;
    uint8_t status;
    uint8_t found; /**< enum virtio_pci_generation: whose registers they are */
    uint32_t queue_count;
    struct lspci_queue queues[LSPCI_QUEUE_MAX];
};

/** What a function's configuration space means. */
struct lspci_report {
    const struct lspci_function *function;
    const struct virtio_names_type *type; /**< NULL if not known */
    unsigned virtio_id;                   /**< 0 if not known */
    bool cut;          /**< configuration space goes on where it could not be read */
    int list_error;    /**< of the walk over the capabilities */
    int layout_error;  /**< of virtio_pci_scan(); layout is not valid unless 0 */
    struct virtio_pci_layout layout;
    uint8_t msix; /**< configuration offset of the MSI-X capability, or 0 */
    bool msix_on;
    uint16_t msix_vectors;
    unsigned cap_count;
    struct virtio_pci_capability caps[LSPCI_CAP_MAX];
    bool given_known;
    struct virtio_features given; /**< of --features */
    const struct lspci_registers *registers; /**< NULL if they were not asked for */
};

/** Prints one line "virtio-lspci: ..." on standard error. Returns LSPCI_INPUT. */
__attribute__((format(printf, 1, 2))) int lspci_error(const char *format, ...);

/** One little-endian field of the configuration space that is at hand from the start (64 bytes). */
uint32_t lspci_field(const struct lspci_function *function, unsigned offset, unsigned width);

/** Is it one of virtio's by vendor and device id? */
bool lspci_is_virtio(const struct lspci_function *function);

/** Finds out what `function` is. Returns LSPCI_OK or LSPCI_UNUSABLE. */
int lspci_examine(struct lspci_report *report, const struct lspci_function *function);

/** How virtio-lspci calls a structure or capability type. NULL: not known. */
const char *lspci_struct_name(unsigned type);

/** "2011 RFC" and the like, of enum virtio_pci_generation. */
const char *lspci_generation_name(unsigned generation);

/** Why a capability is not what the chosen layout stands on; NULL if it is. */
const char *lspci_unused(const struct lspci_report *report, const struct virtio_pci_capability *cap);

/** What keeps the function's layout from being used; NULL: nothing. */
const char *lspci_unusable(const struct lspci_report *report);

/** Functions of a dump; `path` "-" is standard input. Returns LSPCI_OK or LSPCI_INPUT. */
int lspci_dump(const char *path, lspci_found_fn found, void *ctx);

/** Functions of the machine, or only the one at `address` unless NULL; `sysfs` is where sysfs is
 *  mounted. Returns LSPCI_OK or LSPCI_INPUT. */
int lspci_sysfs(const char *sysfs, const char *address, lspci_found_fn found, void *ctx);

/** Is this the address of a function: [domain:]bus:slot.function? `end`: what is behind it. */
bool lspci_is_address(const char *text, const char **end);

/** Reads the registers of a live function that no driver is bound to; else says why not. Returns
 *  LSPCI_OK or LSPCI_UNUSABLE. */
int lspci_registers_read(struct lspci_registers *registers, const struct lspci_report *report);

void lspci_show_text(FILE *out, const struct lspci_report *report);

/** One object, without what separates it from the next. */
void lspci_show_json(FILE *out, const struct lspci_report *report);

/** Features of a type without a function. */
void lspci_show_features_text(FILE *out, const struct virtio_names_type *type,
                              const struct virtio_features *set);
void lspci_show_features_json(FILE *out, const struct virtio_names_type *type,
                              const struct virtio_features *set);

#endif
