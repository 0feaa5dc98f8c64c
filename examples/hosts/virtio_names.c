// SPDX-License-Identifier: MIT-0
/* The tables of virtio_names.h, from VIRTIO 1.4; 9P and rpmsg, which it does not describe, from
 * their drivers. */
#include "virtio_names.h"

#include <stddef.h>
#include <string.h>

#include "virtio.h"

static const struct virtio_names_bit net[] = {{0, "CSUM"},
                                              {1, "GUEST_CSUM"},
                                              {2, "CTRL_GUEST_OFFLOADS"},
                                              {3, "MTU"},
                                              {5, "MAC"},
                                              {6, "GSO"},
                                              {7, "GUEST_TSO4"},
                                              {8, "GUEST_TSO6"},
                                              {9, "GUEST_ECN"},
                                              {10, "GUEST_UFO"},
                                              {11, "HOST_TSO4"},
                                              {12, "HOST_TSO6"},
                                              {13, "HOST_ECN"},
                                              {14, "HOST_UFO"},
                                              {15, "MRG_RXBUF"},
                                              {16, "STATUS"},
                                              {17, "CTRL_VQ"},
                                              {18, "CTRL_RX"},
                                              {19, "CTRL_VLAN"},
                                              {20, "CTRL_RX_EXTRA"},
                                              {21, "GUEST_ANNOUNCE"},
                                              {22, "MQ"},
                                              {23, "CTRL_MAC_ADDR"},
                                              {50, "DEVICE_STATS"},
                                              {51, "HASH_TUNNEL"},
                                              {52, "VQ_NOTF_COAL"},
                                              {53, "NOTF_COAL"},
                                              {54, "GUEST_USO4"},
                                              {55, "GUEST_USO6"},
                                              {56, "HOST_USO"},
                                              {57, "HASH_REPORT"},
                                              {59, "GUEST_HDRLEN"},
                                              {60, "RSS"},
                                              {61, "RSC_EXT"},
                                              {62, "STANDBY"},
                                              {63, "SPEED_DUPLEX"},
                                              {64, "RSS_CONTEXT"},
                                              {65, "GUEST_UDP_TUNNEL_GSO"},
                                              {66, "GUEST_UDP_TUNNEL_GSO_CSUM"},
                                              {67, "HOST_UDP_TUNNEL_GSO"},
                                              {68, "HOST_UDP_TUNNEL_GSO_CSUM"},
                                              {69, "OUT_NET_HEADER"},
                                              {70, "IPSEC"},
                                              {0, NULL}};
static const struct virtio_names_bit blk[] = {
    {0, "BARRIER"},  {1, "SIZE_MAX"}, {2, "SEG_MAX"},       {4, "GEOMETRY"},  {5, "RO"},
    {6, "BLK_SIZE"}, {7, "SCSI"},     {9, "FLUSH"},         {10, "TOPOLOGY"}, {11, "CONFIG_WCE"},
    {12, "MQ"},      {13, "DISCARD"}, {14, "WRITE_ZEROES"}, {15, "LIFETIME"}, {16, "SECURE_ERASE"},
    {17, "ZONED"},   {0, NULL}};
static const struct virtio_names_bit console[] = {
    {0, "SIZE"}, {1, "MULTIPORT"}, {2, "EMERG_WRITE"}, {0, NULL}};
static const struct virtio_names_bit balloon[] = {{0, "MUST_TELL_HOST"},
                                                  {1, "STATS_VQ"},
                                                  {2, "DEFLATE_ON_OOM"},
                                                  {3, "FREE_PAGE_HINT"},
                                                  {4, "PAGE_POISON"},
                                                  {5, "PAGE_REPORTING"},
                                                  {0, NULL}};
static const struct virtio_names_bit rpmsg[] = {{0, "NS"}, {0, NULL}};
static const struct virtio_names_bit scsi[] = {
    {0, "INOUT"}, {1, "HOTPLUG"}, {2, "CHANGE"}, {3, "T10_PI"}, {0, NULL}};
static const struct virtio_names_bit p9[] = {{0, "MOUNT_TAG"}, {0, NULL}};
static const struct virtio_names_bit gpu[] = {{0, "VIRGL"},
                                              {1, "EDID"},
                                              {2, "RESOURCE_UUID"},
                                              {3, "RESOURCE_BLOB"},
                                              {4, "CONTEXT_INIT"},
                                              {5, "BLOB_ALIGNMENT"},
                                              {0, NULL}};
static const struct virtio_names_bit rtc[] = {{0, "ALARM"}, {0, NULL}};
static const struct virtio_names_bit vsock[] = {
    {0, "STREAM"}, {1, "SEQPACKET"}, {2, "NO_IMPLIED_STREAM"}, {0, NULL}};
static const struct virtio_names_bit crypto[] = {{0, "REVISION_1"},
                                                 {1, "CIPHER_STATELESS_MODE"},
                                                 {2, "HASH_STATELESS_MODE"},
                                                 {3, "MAC_STATELESS_MODE"},
                                                 {4, "AEAD_STATELESS_MODE"},
                                                 {5, "AKCIPHER_STATELESS_MODE"},
                                                 {0, NULL}};
static const struct virtio_names_bit iommu[] = {
    {0, "INPUT_RANGE"}, {1, "DOMAIN_RANGE"}, {2, "MAP_UNMAP"},     {3, "BYPASS"},
    {4, "PROBE"},       {5, "MMIO"},         {6, "BYPASS_CONFIG"}, {0, NULL}};
static const struct virtio_names_bit mem[] = {
    {0, "ACPI_PXM"}, {1, "UNPLUGGED_INACCESSIBLE"}, {2, "PERSISTENT_SUSPEND"}, {0, NULL}};
static const struct virtio_names_bit sound[] = {{0, "CTLS"}, {0, NULL}};
static const struct virtio_names_bit fs[] = {{0, "NOTIFICATION"}, {0, NULL}};
static const struct virtio_names_bit pmem[] = {{0, "SHMEM_REGION"}, {0, NULL}};
static const struct virtio_names_bit scmi[] = {
    {0, "P2A_CHANNELS"}, {1, "SHARED_MEMORY"}, {0, NULL}};
static const struct virtio_names_bit i2c[] = {{0, "ZERO_LENGTH_REQUEST"}, {0, NULL}};
static const struct virtio_names_bit can[] = {
    {0, "CAN_CLASSIC"}, {1, "CAN_FD"}, {2, "RTR_FRAMES"}, {3, "LATE_TX_ACK"}, {0, NULL}};
static const struct virtio_names_bit gpio[] = {{0, "IRQ"}, {0, NULL}};

/* Of every device. */
static const struct virtio_names_bit common[] = {
    {VIRTIO_FEATURE_NOTIFY_ON_EMPTY, "NOTIFY_ON_EMPTY"},
    {VIRTIO_FEATURE_ANY_LAYOUT, "ANY_LAYOUT"},
    {VIRTIO_FEATURE_INDIRECT_DESC, "INDIRECT_DESC"},
    {VIRTIO_FEATURE_EVENT_IDX, "EVENT_IDX"},
    {VIRTIO_FEATURE_VERSION_1, "VERSION_1"},
    {VIRTIO_FEATURE_ACCESS_PLATFORM, "ACCESS_PLATFORM"},
    {VIRTIO_FEATURE_RING_PACKED, "RING_PACKED"},
    {VIRTIO_FEATURE_IN_ORDER, "IN_ORDER"},
    {VIRTIO_FEATURE_ORDER_PLATFORM, "ORDER_PLATFORM"},
    {VIRTIO_FEATURE_SR_IOV, "SR_IOV"},
    {VIRTIO_FEATURE_NOTIFICATION_DATA, "NOTIFICATION_DATA"},
    {VIRTIO_FEATURE_NOTIF_CONFIG_DATA, "NOTIF_CONFIG_DATA"},
    {VIRTIO_FEATURE_RING_RESET, "RING_RESET"},
    {VIRTIO_FEATURE_ADMIN_VQ, "ADMIN_VQ"},
    {VIRTIO_FEATURE_SUSPEND, "SUSPEND"},
    {0, NULL}};

static const struct virtio_names_type types[] = {
    {1, "net", "network device", net},
    {2, "blk", "block device", blk},
    {3, "console", "console", console},
    {4, "rng", "entropy source", NULL},
    {5, "balloon", "memory balloon (traditional)", balloon},
    {6, "iomem", "I/O memory", NULL},
    {7, "rpmsg", "rpmsg", rpmsg},
    {8, "scsi", "SCSI host", scsi},
    {9, "9p", "9P transport", p9},
    {10, "wlan", "mac80211 wlan", NULL},
    {11, "rproc-serial", "rproc serial", NULL},
    {12, "caif", "CAIF", NULL},
    {13, "new-balloon", "memory balloon", NULL},
    {16, "gpu", "GPU device", gpu},
    {17, "rtc", "real time clock", rtc},
    {18, "input", "input device", NULL},
    {19, "vsock", "socket device", vsock},
    {20, "crypto", "crypto device", crypto},
    {21, "sdm", "signal distribution module", NULL},
    {22, "pstore", "pstore device", NULL},
    {23, "iommu", "IOMMU device", iommu},
    {24, "mem", "memory device", mem},
    {25, "sound", "sound device", sound},
    {26, "fs", "file system device", fs},
    {27, "pmem", "PMEM device", pmem},
    {28, "rpmb", "RPMB device", NULL},
    {29, "hwsim", "mac80211 hwsim", NULL},
    {30, "video-encoder", "video encoder", NULL},
    {31, "video-decoder", "video decoder", NULL},
    {32, "scmi", "SCMI device", scmi},
    {33, "nitro", "NitroSecureModule", NULL},
    {34, "i2c", "I2C adapter", i2c},
    {35, "watchdog", "watchdog", NULL},
    {36, "can", "CAN device", can},
    {38, "parameter-server", "parameter server", NULL},
    {39, "audio-policy", "audio policy device", NULL},
    {40, "bt", "Bluetooth device", NULL},
    {41, "gpio", "GPIO device", gpio},
    {42, "rdma", "RDMA device", NULL},
    {43, "camera", "camera", NULL},
    {44, "ism", "ISM device", NULL},
    {45, "spi", "SPI controller", NULL},
    {46, "tee", "TEE device", NULL},
    {47, "cpu-balloon", "CPU balloon", NULL},
    {48, "media", "media device", NULL},
    {49, "usb", "USB controller", NULL},
};

enum { TYPE_COUNT = sizeof(types) / sizeof(types[0]) };

const struct virtio_names_type *virtio_names_type(unsigned id)
{
    for (unsigned i = 0; i < TYPE_COUNT; i++) {
        if (types[i].id == id)
            return &types[i];
    }
    return NULL;
}

const struct virtio_names_type *virtio_names_find(const char *key)
{
    for (unsigned i = 0; i < TYPE_COUNT; i++) {
        if (strcmp(types[i].key, key) == 0)
            return &types[i];
    }
    return NULL;
}

static const char *name_in(const struct virtio_names_bit *bits, unsigned bit)
{
    for (; bits != NULL && bits->name != NULL; bits++) {
        if (bits->bit == bit)
            return bits->name;
    }
    return NULL;
}

const char *virtio_names_feature(const struct virtio_names_type *type, unsigned bit)
{
    const char *name = type != NULL ? name_in(type->bits, bit) : NULL;

    return name != NULL ? name : name_in(common, bit);
}

const char *virtio_names_status(unsigned bit)
{
    static const char *const names[8] = {"ACKNOWLEDGE", "DRIVER", "DRIVER_OK",   "FEATURES_OK",
                                         "SUSPEND",     NULL,     "NEEDS_RESET", "FAILED"};

    return bit < 8 ? names[bit] : NULL;
}
