/* The inferencer: the guest between the server and WASI-NN.
 *
 * It keeps models, checks every tensor against the model's specs before it goes to the host, runs the inference and
 * collects the outputs. It knows nothing of pictures, text or OpenVINO. docs/guests.md describes the structs below;
 * a plugin's own guest exports the same functions.
 *
 * One model is current: the one that was loaded last, or named again in a load. infer works on that one. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wasi_nn.h"

#define EXPORT(name) __attribute__((export_name(name)))
#define MAX_MODELS 16
#define MAX_TENSORS 64
#define MAX_RANK 16
#define ALIGNMENT 64 /* a cache line: what OpenVINO's kernels like best */
#define CONFIG_VERSION 1

enum code {
    OK = 0,
    ALREADY_LOADED = 1,
    END_OF_SEQUENCE = 100,
    CONTEXT_FULL = 101,
    PROMPT_TOO_LONG = 102,
    INVALID_PARAMETERS = -1,
    LOAD_FAILURE = -2,
    INVALID_TENSOR = -3,
    INFERENCE_FAILURE = -4,
    UNSUPPORTED_MODEL_TYPE = -5,
};

enum model_type {
    ONE_SHOT = 0,  /* one inference, one set of outputs */
    STREAMING = 1, /* output after output, until the end of the sequence */
};

typedef struct {
    const char *name;
    uint32_t name_size;
    const int32_t *dims; /* -1 is dynamic */
    uint32_t num_dims;
    uint32_t type;
    uint32_t layout;
} tensor_spec;

typedef struct {
    uint32_t version;
    uint32_t model_id;
    uint32_t model_type;
    uint32_t encoding; /* for load_model; WASI-NN's numbers */
    uint32_t target;
    const tensor_spec *inputs;
    uint32_t num_inputs;
    const tensor_spec *outputs;
    uint32_t num_outputs;
} model_config;

typedef struct {
    uint32_t num_outputs;
    const nn_tensor *outputs; /* num_dims 0: the shape that the graph computed */
} infer_result;

typedef struct {
    uint32_t capacity;
    uint8_t *data;
} buffer;

typedef struct {
    bool used;
    model_config config;
    uint32_t graph;
    uint32_t context;
    bool unfinished; /* a stream has begun and not come to its end */
    buffer buffers[MAX_TENSORS];
    nn_tensor outputs[MAX_TENSORS];
} model;

static model models[MAX_MODELS];
static model *current;

/* ---- memory ---------------------------------------------------------------------------------------------------- */

EXPORT("alloc") void *alloc(uint32_t size) {
    if (size == 0 || size > UINT32_MAX - ALIGNMENT) return NULL;
    return aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) & ~(uint32_t)(ALIGNMENT - 1));
}

EXPORT("dealloc") void dealloc(void *data) { free(data); }

static bool reserve(buffer *buffer, uint32_t size) {
    if (size <= buffer->capacity) return true;
    free(buffer->data);
    buffer->data = alloc(size);
    buffer->capacity = buffer->data ? size : 0;
    return buffer->data != NULL;
}

static void *copy(const void *from, uint32_t size) {
    void *to = malloc(size ? size : 1);
    return to ? memcpy(to, from, size) : NULL;
}

/* ---- specs ----------------------------------------------------------------------------------------------------- */

static const uint32_t element_size[] = {2, 4, 8, 1, 4, 8};

static bool known_type(uint32_t type) { return type < sizeof element_size / sizeof *element_size; }

static bool valid_specs(const tensor_spec *specs, uint32_t count) {
    if (count > MAX_TENSORS || (count && !specs)) return false;
    for (uint32_t i = 0; i < count; i++)
        if (!known_type(specs[i].type) || specs[i].num_dims > MAX_RANK || (specs[i].num_dims && !specs[i].dims))
            return false;
    return true;
}

static bool valid_config(const model_config *config) {
    return config && config->version == CONFIG_VERSION && valid_specs(config->inputs, config->num_inputs) &&
           valid_specs(config->outputs, config->num_outputs);
}

static void free_specs(const tensor_spec *specs, uint32_t count) {
    for (uint32_t i = 0; specs && i < count; i++) {
        free((void *)specs[i].name);
        free((void *)specs[i].dims);
    }
    free((void *)specs);
}

/* The caller may reuse its memory after a load: keep specs of our own. */
static tensor_spec *copy_specs(const tensor_spec *specs, uint32_t count) {
    tensor_spec *own = copy(specs, count * sizeof *specs);
    bool complete = own != NULL;
    for (uint32_t i = 0; own && i < count; i++) {
        own[i].name = copy(specs[i].name, specs[i].name_size);
        own[i].dims = copy(specs[i].dims, specs[i].num_dims * sizeof *specs[i].dims);
        complete = complete && own[i].name && own[i].dims;
    }
    if (complete) return own;
    free_specs(own, count);
    return NULL;
}

/* Whether the tensor has the spec's element type, rank, fixed dimensions, and as many bytes as its shape says. */
static bool fits(const nn_tensor *tensor, const tensor_spec *spec) {
    if (tensor->type != spec->type || tensor->num_dims != spec->num_dims) return false;
    if (tensor->num_dims && !tensor->dims) return false;
    uint64_t size = element_size[tensor->type];
    for (uint32_t i = 0; i < tensor->num_dims; i++) {
        if (spec->dims[i] >= 0 && (uint32_t)spec->dims[i] != tensor->dims[i]) return false;
        size *= tensor->dims[i];
        if (size > UINT32_MAX) return false; /* so that the product cannot wrap */
    }
    return size == tensor->size && (tensor->data || !size); /* an empty tensor needs no memory */
}

/* The spec's size in bytes; 0 if a dimension is dynamic. */
static uint32_t fixed_size(const tensor_spec *spec) {
    uint64_t size = element_size[spec->type];
    for (uint32_t i = 0; i < spec->num_dims; i++) {
        if (spec->dims[i] < 0) return 0;
        size *= (uint32_t)spec->dims[i];
        if (size > UINT32_MAX) return 0;
    }
    return (uint32_t)size;
}

/* ---- models ---------------------------------------------------------------------------------------------------- */

static model *find(uint32_t model_id) {
    for (uint32_t i = 0; i < MAX_MODELS; i++)
        if (models[i].used && models[i].config.model_id == model_id) return &models[i];
    return NULL;
}

static model *free_slot(void) {
    for (uint32_t i = 0; i < MAX_MODELS; i++)
        if (!models[i].used) return &models[i];
    return NULL;
}

static void release(model *model) {
    for (uint32_t i = 0; i < model->config.num_outputs; i++) free(model->buffers[i].data);
    free_specs(model->config.inputs, model->config.num_inputs);
    free_specs(model->config.outputs, model->config.num_outputs);
    if (current == model) current = NULL;
    memset(model, 0, sizeof *model);
}

static bool keep(model *model, const model_config *config) {
    model->config = *config;
    model->config.inputs = copy_specs(config->inputs, config->num_inputs);
    model->config.outputs = copy_specs(config->outputs, config->num_outputs);
    return model->config.inputs && model->config.outputs;
}

/* What stands before a load: 0 and a slot, or the code to answer. */
static int admit(const model_config *config, model **slot) {
    if (!valid_config(config)) return INVALID_PARAMETERS;
    if (config->model_type > STREAMING) return UNSUPPORTED_MODEL_TYPE;
    model *known = find(config->model_id);
    if (known) {
        current = known;
        return ALREADY_LOADED;
    }
    *slot = free_slot();
    return *slot ? OK : LOAD_FAILURE;
}

/* What follows a load of the graph: an execution context, and the model becomes the current one. */
static int enter(model *slot, const model_config *config, uint32_t graph) {
    uint32_t context;
    if (nn_init_execution_context(graph, &context) != NN_SUCCESS) {
        nn_unload(graph);
        return LOAD_FAILURE;
    }
    if (!keep(slot, config)) {
        nn_finalize_execution_context(context);
        nn_unload(graph);
        release(slot);
        return LOAD_FAILURE;
    }
    slot->used = true;
    slot->graph = graph;
    slot->context = context;
    current = slot;
    return OK;
}

EXPORT("load_model")
int load_model(const model_config *config, const uint8_t *xml, uint32_t xml_size, const uint8_t *weights,
               uint32_t weights_size) {
    model *slot;
    int code = admit(config, &slot);
    if (code != OK) return code;
    if (!xml || !xml_size || (weights_size && !weights)) return INVALID_PARAMETERS;
    nn_builder builders[] = {{xml, xml_size}, {weights, weights_size}};
    uint32_t graph;
    /* Only OpenVINO's IR has a second file. */
    int error = nn_load(builders, config->encoding == 0 ? 2 : 1, config->encoding, config->target, &graph);
    if (error == NN_INVALID_ENCODING) return UNSUPPORTED_MODEL_TYPE;
    return error == NN_SUCCESS ? enter(slot, config, graph) : LOAD_FAILURE;
}

EXPORT("load_model_by_name")
int load_model_by_name(const model_config *config, const char *name, uint32_t name_size) {
    model *slot;
    int code = admit(config, &slot);
    if (code != OK) return code;
    if (!name || !name_size) return INVALID_PARAMETERS;
    uint32_t graph;
    if (nn_load_by_name(name, name_size, &graph) != NN_SUCCESS) return LOAD_FAILURE;
    return enter(slot, config, graph);
}

EXPORT("unload_model") int unload_model(uint32_t model_id) {
    model *model = find(model_id);
    if (!model) return INVALID_PARAMETERS;
    nn_finalize_execution_context(model->context);
    nn_unload(model->graph);
    release(model);
    return OK;
}

EXPORT("get_model_info") int get_model_info(uint32_t model_id, model_config *info) {
    model *model = find(model_id);
    if (!model || !info) return INVALID_PARAMETERS;
    *info = model->config;
    return OK;
}

/* ---- inference ------------------------------------------------------------------------------------------------- */

typedef int (*get_output)(uint32_t, uint32_t, uint8_t *, uint32_t, uint32_t *);

/* Fetch one output into the model's buffer, which grows when the host says that it is too small. */
static int fetch(model *model, uint32_t index, get_output get) {
    buffer *buffer = &model->buffers[index];
    uint32_t written = fixed_size(&model->config.outputs[index]);
    if (!reserve(buffer, written ? written : 1)) return INFERENCE_FAILURE;
    int error = get(model->context, index, buffer->data, buffer->capacity, &written);
    if (error == NN_TOO_LARGE) {
        if (!reserve(buffer, written)) return INFERENCE_FAILURE;
        error = get(model->context, index, buffer->data, buffer->capacity, &written);
    }
    if (error != NN_SUCCESS) return INFERENCE_FAILURE;
    model->outputs[index] = (nn_tensor){NULL, 0, (uint8_t)model->config.outputs[index].type, buffer->data, written};
    return OK;
}

static int collect(model *model, get_output get, infer_result *result) {
    for (uint32_t i = 0; i < model->config.num_outputs; i++) {
        int code = fetch(model, i, get);
        if (code != OK) return code;
    }
    *result = (infer_result){model->config.num_outputs, model->outputs};
    return OK;
}

/* End a stream that the caller has not read to its end. */
static void finish(model *model) {
    if (model->unfinished) nn_fini_single(model->context);
    model->unfinished = false;
}

static int next(model *model, infer_result *result) {
    model->unfinished = true;
    int error = nn_compute_single(model->context);
    if (error == NN_SUCCESS) return collect(model, nn_get_output_single, result);
    if (error < NN_END_OF_SEQUENCE || error > NN_PROMPT_TOO_LONG) return INFERENCE_FAILURE;
    finish(model);
    return error; /* the codes of the FFI are those of WASI-NN here */
}

static int compute(model *model, infer_result *result) {
    if (nn_compute(model->context) != NN_SUCCESS) return INFERENCE_FAILURE;
    return collect(model, nn_get_output, result);
}

EXPORT("infer") int infer(const nn_tensor *tensors, uint32_t num_tensors, infer_result *result) {
    if (!current || !result || (num_tensors && !tensors)) return INVALID_PARAMETERS;
    const model_config *config = &current->config;
    if (num_tensors != config->num_inputs) return INVALID_TENSOR;
    for (uint32_t i = 0; i < num_tensors; i++)
        if (!fits(&tensors[i], &config->inputs[i])) return INVALID_TENSOR;
    finish(current);
    for (uint32_t i = 0; i < num_tensors; i++)
        if (nn_set_input(current->context, i, &tensors[i]) != NN_SUCCESS) return INVALID_TENSOR;
    return config->model_type == STREAMING ? next(current, result) : compute(current, result);
}

EXPORT("infer_next") int infer_next(infer_result *result) {
    if (!current || !result || current->config.model_type != STREAMING) return INVALID_PARAMETERS;
    return next(current, result);
}
