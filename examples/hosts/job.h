// SPDX-License-Identifier: MIT-0
/**
 * @file job.h
 * @brief What a host program does with a block device once its driver runs, and what it prints.
 */
#ifndef EXAMPLES_HOSTS_JOB_H
#define EXAMPLES_HOSTS_JOB_H

#include "../driver/blk.h"

enum {
    JOB_PIECE = 64 << 10,             /**< bytes of one request */
    JOB_DATA = BLK_DEPTH * JOB_PIECE, /**< bytes of data memory */
    JOB_ERR_DATA = -200               /**< data differs from what it must be */
};

/** A disk to work on. */
struct job {
    struct blk *blk;
    uint8_t *data;          /**< JOB_DATA bytes of memory the device reaches */
    uint64_t data_device;   /**< its device address */
    const uint8_t *medium;  /**< the disk's content as seen from outside, kept up to date */
};

/** Maps an image as anybody else sees it: what is written to the file shows. Says on stderr what is wrong.
 *  @param writable  the file must be one that can be written, which others will
 *  @param size      bytes, of whole sectors
 *  @return NULL: not usable */
const uint8_t *job_open_image(const char *path, bool writable, uint64_t *size);

/** Prints features, queue and disk; asks the device for its id. 0 or an error. */
int job_print_device(struct blk *blk);

/** Reads the whole disk, in requests of many sizes, and compares it with the medium. 0,
 *  JOB_ERR_DATA, or an error. */
int job_read_all(struct job *job);

/** Overwrites the start of the disk with a pattern, flushes, finds it on the medium, and reads it
 *  back. 0, JOB_ERR_DATA, or an error. */
int job_write(struct job *job);

/** Text of any error above. */
const char *job_err_name(int err);

#endif
