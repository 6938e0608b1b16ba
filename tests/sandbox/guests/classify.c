/* In the manner of the classification examples that WASI-NN runtimes publish:
 *
 *     classify MODEL WEIGHTS TENSOR [TYPE DIM...]
 *
 * reads its files through preopened directories, runs one inference and prints the five best classes. WEIGHTS "-" is
 * for formats of one file. A MODEL "name:..." is loaded by name. TYPE is a number; without it, f32 1x3x224x224. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wasi_nn.h"

#define MAX_RANK 8
#define MAX_CLASSES 2048

static void check(int error, const char *what) {
    if (!error) return;
    fprintf(stderr, "%s: error %d\n", what, error);
    exit(10 + error);
}

static nn_builder read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    fseek(file, 0, SEEK_END);
    nn_builder content = {0, (uint32_t)ftell(file)};
    uint8_t *data = malloc(content.size + 1);
    rewind(file);
    if (fread(data, 1, content.size, file) != content.size) exit(2);
    fclose(file);
    content.data = data;
    return content;
}

static uint32_t load(const char *model, const char *weights) {
    uint32_t graph;
    if (!strncmp(model, "name:", 5)) {
        check(nn_load_by_name(model + 5, (uint32_t)strlen(model + 5), &graph), "load_by_name");
        return graph;
    }
    nn_builder builders[2] = {read_file(model)};
    uint32_t count = 1, encoding = 5;
    if (strcmp(weights, "-")) {
        builders[1] = read_file(weights);
        count = 2;
        encoding = 0;
    } else if (strstr(model, ".tflite")) {
        encoding = 4;
    }
    check(nn_load(builders, count, encoding, 0, &graph), "load");
    return graph;
}

static float output_f32[MAX_CLASSES];
static uint8_t output[sizeof output_f32];

int main(int argc, char **argv) {
    if (argc < 4) return 64;
    uint32_t dims[MAX_RANK] = {1, 3, 224, 224}, rank = 4, type = 1;
    if (argc > 5) {
        type = (uint32_t)atoi(argv[4]);
        for (rank = 0; rank < MAX_RANK && (int)rank < argc - 5; rank++) dims[rank] = (uint32_t)atoi(argv[5 + rank]);
    }
    uint32_t graph = load(argv[1], argv[2]), context, written;
    check(nn_init_execution_context(graph, &context), "init_execution_context");
    nn_builder data = read_file(argv[3]);
    nn_tensor tensor = {dims, rank, (uint8_t)type, data.data, data.size};
    check(nn_set_input(context, 0, &tensor), "set_input");
    check(nn_compute(context), "compute");
    check(nn_get_output(context, 0, output, sizeof output, &written), "get_output");

    /* Quantized models give u8 for u8. */
    uint32_t classes = type == 3 ? written : written / 4;
    memcpy(output_f32, output, written <= sizeof output_f32 ? written : sizeof output_f32);
    if (type == 3)
        for (uint32_t i = 0; i < classes; i++) output_f32[i] = output[i];
    for (uint32_t best = 0; best < 5 && best < classes; best++) {
        uint32_t top = 0;
        for (uint32_t i = 1; i < classes; i++)
            if (output_f32[i] > output_f32[top]) top = i;
        printf("%u %.4f\n", top, output_f32[top]);
        output_f32[top] = -1e30f;
    }
    return 0;
}
