// SPDX-License-Identifier: MIT-0
/* What the headers are configured with in test builds: a broken contract stops the test. Include it
 * before the headers, or build with -DVIRTIO_CONFIG_FILE='"tests/support/test_config.h"'. */
#ifndef TEST_CONFIG_H
#define TEST_CONFIG_H

#include <assert.h>

#define VIRTIO_ASSERT(condition) assert(condition)

#endif /* TEST_CONFIG_H */
