// SPDX-License-Identifier: MIT-0
/* One out-of-line copy of each function of a part of the library, for bench/size.sh: PART names it. */
#define PART_SPLIT_DRIVER 1
#define PART_SPLIT_DEVICE 2
#define PART_DATA_PATH 3 /* both sides, without indirect */
#define PART_ALL 4       /* and everything around it */
#define PART_MMIO 5      /* a virtio-mmio driver, its split data path included */

#if PART == PART_MMIO
#include "virtio.h"
#else
#include "virtio_ring.h"
#endif

#define COPY __attribute__((noinline, used)) static

#if PART != PART_SPLIT_DEVICE
COPY int driver_add(struct virtq_driver *q, const struct virtq_buffer *buffer, void *cookie)
{
    return virtq_driver_add(q, buffer, cookie);
}
COPY void driver_publish(struct virtq_driver *q)
{
    virtq_driver_publish(q);
}
COPY bool driver_kick_due(struct virtq_driver *q)
{
    return virtq_driver_kick_due(q);
}
COPY int driver_take(struct virtq_driver *q, struct virtq_done *done)
{
    return virtq_driver_take(q, done);
}
#endif

#if PART != PART_SPLIT_DRIVER && PART != PART_MMIO
COPY int device_pop(struct virtq_device *q, struct virtq_chain *chain)
{
    return virtq_device_pop(q, chain);
}
COPY void device_push(struct virtq_device *q, uint32_t token, uint32_t written)
{
    virtq_device_push(q, token, written);
}
COPY void device_flush(struct virtq_device *q)
{
    virtq_device_flush(q);
}
COPY bool device_irq_due(struct virtq_device *q)
{
    return virtq_device_irq_due(q);
}
#endif

#if PART == PART_ALL
COPY int driver_init(struct virtq_driver *q, const struct virtq_areas *areas,
                     struct virtq_slot *slots)
{
    return virtq_driver_init(q, areas, slots);
}
COPY int driver_add_indirect(struct virtq_driver *q, const struct virtq_buffer *buffer,
                             const struct virtq_table *table, void *cookie)
{
    return virtq_driver_add_indirect(q, buffer, table, cookie);
}
COPY void driver_irq_off(struct virtq_driver *q)
{
    virtq_driver_irq_off(q);
}
COPY bool driver_irq_on(struct virtq_driver *q)
{
    return virtq_driver_irq_on(q);
}
COPY bool driver_irq_on_after(struct virtq_driver *q)
{
    return virtq_driver_irq_on_after(q);
}
COPY bool driver_detach(struct virtq_driver *q, uint16_t *at, void **cookie)
{
    return virtq_driver_detach(q, at, cookie);
}
COPY int device_init(struct virtq_device *q, const struct virtq_areas *areas, virtq_map_fn map,
                     void *ctx)
{
    return virtq_device_init(q, areas, map, ctx);
}
COPY void device_push_full(struct virtq_device *q, uint32_t token, uint32_t written)
{
    virtq_device_push_full(q, token, written);
}
COPY void device_kick_off(struct virtq_device *q)
{
    virtq_device_kick_off(q);
}
COPY bool device_kick_on(struct virtq_device *q)
{
    return virtq_device_kick_on(q);
}
#endif

#if PART == PART_MMIO
COPY int driver_probe(struct virtio_drv *drv, const struct virtio_window *slot)
{
    return virtio_drv_mmio(drv, slot);
}
COPY int driver_begin(struct virtio_drv *drv)
{
    return virtio_drv_begin(drv);
}
COPY int driver_negotiate(struct virtio_drv *drv, const struct virtio_features *wanted,
                          const struct virtio_features *required)
{
    return virtio_drv_negotiate(drv, wanted, required);
}
COPY int driver_queue_setup(const struct virtio_drv *drv, struct virtio_drv_queue *q,
                            uint16_t index, const struct virtio_queue_setup *setup)
{
    return virtio_drv_queue_setup(drv, q, index, setup);
}
COPY void driver_ready(const struct virtio_drv *drv)
{
    virtio_drv_ready(drv);
}
COPY void driver_notify_send(const struct virtio_notify *notify, uint16_t position)
{
    virtio_notify_send(notify, position);
}
COPY uint32_t driver_irq_status(const struct virtio_drv *drv)
{
    return virtio_drv_irq_status(drv);
}
COPY void driver_irq_ack(const struct virtio_drv *drv, uint32_t causes)
{
    virtio_drv_irq_ack(drv, causes);
}
#endif
