# A large generated file of C: the object must be the same, and the program must run.
set -e
if [ "$1" = quick ]; then functions=400; else functions=1500; fi
awk -v functions=$functions 'BEGIN {
    print "#include <stdio.h>\n#include <string.h>\n#include <stdlib.h>"
    for (i = 0; i < functions; i++) {
        printf "struct s%d { int a; double b[%d]; char *c; };\n", i, i % 17 + 1
        printf "static int f%d(int x, const char *text) {\n", i
        printf "    struct s%d s = { x, { %d.5 }, NULL };\n", i, i
        printf "    for (int i = 0; i < %d; i++) { s.a = s.a * %d + (i ^ x); s.b[i %% %d] += s.a / 3.0; }\n", i % 9 + 3, i * 31 % 101 + 1, i % 17 + 1
        printf "    switch (x %% 7) { case 0: s.a += strlen(text); break; case 1: s.a ^= %d; break; case 2: return s.a; default: s.a -= x; }\n", i
        if (i > 0) printf "    if (x > 1000000) s.a += f%d(x / 2, text + 1);\n", i - 1
        print "    return s.a + (int)s.b[0];\n}"
    }
    print "int main(void) {\n    unsigned sum = 0;"
    for (i = 0; i < functions; i++) printf "    sum = sum * 33 + f%d(%d, \"text %d\");\n", i, i * 7, i
    print "    printf(\"%u\\n\", sum);\n    return 0;\n}"
}' > large.c
sha256sum large.c
gcc -O2 -fwrapv -c large.c -o large.o
sha256sum large.o
gcc large.o -o large
./large
if [ "$1" = full ]; then
    gcc -O3 -g -fwrapv -flto large.c -o large-lto
    ./large-lto
    gcc -E large.c | sha256sum
fi
gcc -c -fsyntax-only -x c - <<< 'int f(void) { return undeclared; }' 2>&1 | head -n 3
exit 0
