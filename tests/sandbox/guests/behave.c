/* A command that does one thing of those that a command can do: behave ACTION [ARGUMENT...] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

static int show(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 1;
    }
    for (int c; (c = fgetc(file)) != EOF;) putchar(c);
    return 0;
}

int main(int argc, char **argv) {
    const char *action = argc > 1 ? argv[1] : "arguments";
    if (!strcmp(action, "arguments"))
        for (int i = 0; i < argc; i++) puts(argv[i]);
    if (!strcmp(action, "environment"))
        for (char **each = environ; *each; each++) puts(*each);
    if (!strcmp(action, "exit")) exit(atoi(argv[2]));
    if (!strcmp(action, "read")) return show(argv[2]);
    if (!strcmp(action, "write")) return fopen(argv[2], "wb") ? 0 : 1;
    if (!strcmp(action, "echo"))
        for (int c; (c = getchar()) != EOF;) putchar(c);
    if (!strcmp(action, "complain")) fputs("to stderr\n", stderr);
    if (!strcmp(action, "trap")) __builtin_trap();
    if (!strcmp(action, "spin"))
        for (volatile int i = 0;; i++) {}
    return 0;
}
