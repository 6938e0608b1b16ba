/* The guest of the anomaly plugin: what happens to the numbers between the server and the model.
 *
 * Before the inference it fills gaps (NaN) with the value before them and centres each series on its median. After it,
 * it turns each point's deviation from its neighbours into a score: how many times the series' usual noise that is.
 *
 * One instance remembers the usual noise of each series. In a fresh instance for each request (the default with a
 * plugin's guest) every request is judged by itself; with "isolation": "pooled" and one worker, by what came before. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wasi_nn.h"

#define EXPORT(name) __attribute__((export_name(name)))
#define CONFIG_VERSION 1
#define F32 1
#define ALIGNMENT 64
#define MAX_SERIES 64    /* whose usual noise is remembered */
#define MEMORY 0.75f     /* share of what is remembered in what counts as usual */
#define SIGMA 1.4826f    /* standard deviation of a normal distribution over its median absolute deviation */
#define RESOLUTION 1e-6f /* of a 32-bit float, with room: less than this part of the largest value is no noise */
#define MAX_SCORE 1e6f

enum code { OK = 0, ALREADY_LOADED = 1, INVALID_PARAMETERS = -1, LOAD_FAILURE = -2, INVALID_TENSOR = -3, FAILURE = -4 };

typedef struct {
    uint32_t num_outputs;
    const nn_tensor *outputs;
} infer_result;

static bool loaded;
static uint32_t context;
static nn_tensor output;
static uint32_t capacity; /* of the output, in bytes */
static uint32_t output_dims[2];
static float usual_noise[MAX_SERIES];

EXPORT("alloc") void *alloc(uint32_t size) {
    if (size == 0 || size > UINT32_MAX - ALIGNMENT) return NULL;
    return aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) & ~(uint32_t)(ALIGNMENT - 1));
}

EXPORT("dealloc") void dealloc(void *data) { free(data); }

EXPORT("load_model_by_name")
int load_model_by_name(const uint32_t *config, const char *name, uint32_t name_size) {
    if (!config || config[0] != CONFIG_VERSION || !name || !name_size) return INVALID_PARAMETERS;
    if (loaded) return ALREADY_LOADED;
    uint32_t graph;
    if (nn_load_by_name(name, name_size, &graph) != NN_SUCCESS) return LOAD_FAILURE;
    if (nn_init_execution_context(graph, &context) != NN_SUCCESS) return LOAD_FAILURE;
    loaded = true;
    return OK;
}

/* ---- numbers --------------------------------------------------------------------------------------------------- */

static int ascending(const void *left, const void *right) {
    float a = *(const float *)left, b = *(const float *)right;
    return (a > b) - (a < b);
}

/* Sorts the values. */
static float median(float *values, uint32_t count) {
    qsort(values, count, sizeof *values, ascending);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* Carry the last value over a gap, and the first one back; false if there is none, or one that is infinite. */
static bool fill_gaps(float *series, uint32_t count) {
    uint32_t first = 0;
    while (first < count && isnan(series[first])) first++;
    if (first == count) return false;
    for (uint32_t i = 0; i < first; i++) series[i] = series[first];
    for (uint32_t i = first; i < count; i++) {
        if (isnan(series[i])) series[i] = series[i - 1];
        if (isinf(series[i])) return false;
    }
    return true;
}

static void centre(float *series, uint32_t count, float *scratch) {
    memcpy(scratch, series, count * sizeof *series);
    float middle = median(scratch, count);
    for (uint32_t i = 0; i < count; i++) series[i] -= middle;
}

static float largest(const float *values, uint32_t count) {
    float found = 0;
    for (uint32_t i = 0; i < count; i++) found = fmaxf(found, fabsf(values[i]));
    return found;
}

/* What is usual for this series, from what it is now and what it was before. */
static float usual(uint32_t series, float noise) {
    if (series >= MAX_SERIES) return noise;
    float *remembered = &usual_noise[series];
    *remembered = *remembered > 0 ? MEMORY * *remembered + (1 - MEMORY) * noise : noise;
    return *remembered;
}

/* Deviations become scores, in place. */
static void score(uint32_t series, float *deviations, const float *values, uint32_t count, float *scratch) {
    for (uint32_t i = 0; i < count; i++) scratch[i] = deviations[i] = fabsf(deviations[i]);
    float noise = usual(series, SIGMA * median(scratch, count));
    float least = fmaxf(RESOLUTION * largest(values, count), 1e-30f);
    for (uint32_t i = 0; i < count; i++) deviations[i] = fminf(deviations[i] / fmaxf(noise, least), MAX_SCORE);
}

/* ---- inference ------------------------------------------------------------------------------------------------- */

/* A whole matrix of 32-bit floats: (series, time). */
static bool is_matrix(const nn_tensor *tensor) {
    if (!tensor->data || !tensor->dims || tensor->type != F32 || tensor->num_dims != 2) return false;
    uint64_t elements = (uint64_t)tensor->dims[0] * tensor->dims[1];
    return elements && elements <= UINT32_MAX / sizeof(float) && tensor->size == elements * sizeof(float);
}

static int compute(const nn_tensor *tensor) {
    if (tensor->size > capacity) {
        free((void *)output.data);
        output.data = alloc(tensor->size);
        capacity = output.data ? tensor->size : 0;
        if (!output.data) return FAILURE;
    }
    if (nn_set_input(context, 0, tensor) != NN_SUCCESS) return INVALID_TENSOR;
    if (nn_compute(context) != NN_SUCCESS) return FAILURE;
    uint32_t written;
    int error = nn_get_output(context, 0, (uint8_t *)output.data, capacity, &written);
    return error == NN_SUCCESS && written == tensor->size ? OK : FAILURE;
}

static int infer_with(const nn_tensor *tensor, float *scratch) {
    uint32_t rows = tensor->dims[0], count = tensor->dims[1];
    float *values = (float *)tensor->data;
    for (uint32_t row = 0; row < rows; row++) {
        if (!fill_gaps(values + row * count, count)) return INVALID_TENSOR;
        centre(values + row * count, count, scratch);
    }
    int code = compute(tensor);
    if (code != OK) return code;
    float *deviations = (float *)output.data;
    for (uint32_t row = 0; row < rows; row++)
        score(row, deviations + row * count, values + row * count, count, scratch);
    return OK;
}

EXPORT("infer") int infer(const nn_tensor *tensors, uint32_t num_tensors, infer_result *result) {
    if (!loaded || !tensors || !result) return INVALID_PARAMETERS;
    if (num_tensors != 1 || !is_matrix(tensors)) return INVALID_TENSOR;
    float *scratch = malloc(tensors->dims[1] * sizeof *scratch);
    if (!scratch) return FAILURE;
    int code = infer_with(tensors, scratch);
    free(scratch);
    if (code != OK) return code;
    memcpy(output_dims, tensors->dims, sizeof output_dims);
    output = (nn_tensor){output_dims, 2, F32, output.data, tensors->size};
    *result = (infer_result){1, &output};
    return OK;
}
