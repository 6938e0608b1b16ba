/* The imports of wasi_ephemeral_nn (WebAssembly/wasi-nn, wasi-nn.witx) and the extensions that this host defines.
 * Every function answers an nn_errno. Pointers are offsets into this module's memory. */
#ifndef WASI_NN_H
#define WASI_NN_H

#include <stdint.h>

#define NN_IMPORT(name) __attribute__((import_module("wasi_ephemeral_nn"), import_name(name))) extern

enum nn_errno {
    NN_SUCCESS = 0,
    NN_INVALID_ARGUMENT = 1,
    NN_INVALID_ENCODING = 2,
    NN_MISSING_MEMORY = 3,
    NN_BUSY = 4,
    NN_RUNTIME_ERROR = 5,
    NN_UNSUPPORTED_OPERATION = 6,
    NN_TOO_LARGE = 7,
    NN_NOT_FOUND = 8,
    NN_END_OF_SEQUENCE = 100,
    NN_CONTEXT_FULL = 101,
    NN_PROMPT_TOO_LONG = 102,
    NN_MODEL_NOT_FOUND = 103,
};

typedef struct {
    const uint8_t *data;
    uint32_t size;
} nn_builder;

/* 20 bytes; hosts read one byte of the type, the three after it are padding. */
typedef struct {
    const uint32_t *dims;
    uint32_t num_dims;
    uint8_t type; /* f16 0, f32 1, f64 2, u8 3, i32 4, i64 5 */
    const uint8_t *data;
    uint32_t size; /* bytes */
} nn_tensor;

NN_IMPORT("load") int nn_load(const nn_builder *builders, uint32_t count, uint32_t encoding, uint32_t target,
                              uint32_t *graph);
NN_IMPORT("load_by_name") int nn_load_by_name(const char *name, uint32_t size, uint32_t *graph);
NN_IMPORT("init_execution_context") int nn_init_execution_context(uint32_t graph, uint32_t *context);
NN_IMPORT("set_input") int nn_set_input(uint32_t context, uint32_t index, const nn_tensor *tensor);
NN_IMPORT("compute") int nn_compute(uint32_t context);
NN_IMPORT("get_output") int nn_get_output(uint32_t context, uint32_t index, uint8_t *data, uint32_t capacity,
                                          uint32_t *written);
/* Extensions. */
NN_IMPORT("compute_single") int nn_compute_single(uint32_t context);
NN_IMPORT("get_output_single") int nn_get_output_single(uint32_t context, uint32_t index, uint8_t *data,
                                                        uint32_t capacity, uint32_t *written);
NN_IMPORT("fini_single") int nn_fini_single(uint32_t context);
NN_IMPORT("finalize_execution_context") int nn_finalize_execution_context(uint32_t context);
NN_IMPORT("unload") int nn_unload(uint32_t graph);

#endif
