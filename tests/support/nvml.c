/* A double of NVIDIA's management library, for machines without a GPU: as much of its interface as is asked for.
 *
 * The facts stand in /etc/nvml-double, one `key value` on each line: driver, cuda (13000 for 13.0), error (an NVML
 * status that every start fails with), and for each GPU `gpu MEMORY_MIB MAJOR MINOR NAME`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 16
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_FOUND = 6 };

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } Memory2;
struct gpu { unsigned long long mib; int major, minor; char name[64]; };

static struct gpu gpus[MOST];
static unsigned int count;
static int cuda = 13000, error;
static char driver[80] = "580.95.05";

int nvmlInitWithFlags(unsigned int flags) {
    char line[256];
    FILE *file = fopen("/etc/nvml-double", "r");
    (void)flags;
    count = 0;
    error = 0;
    if (!file) return NOT_FOUND;
    while (fgets(line, sizeof line, file)) {
        struct gpu *gpu = &gpus[count];
        if (count < MOST && sscanf(line, "gpu %llu %d %d %63[^\n]", &gpu->mib, &gpu->major, &gpu->minor, gpu->name) == 4)
            count++;
        else if (sscanf(line, "cuda %d", &cuda) == 1 || sscanf(line, "error %d", &error) == 1)
            continue;
        else
            sscanf(line, "driver %79s", driver);
    }
    fclose(file);
    return error;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int status) {
    switch (status) {
    case SUCCESS: return "Success";
    case 9: return "Driver Not Loaded";
    case 12: return "NVML Shared Library Not Found";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}
static int copy(char *target, unsigned int length, const char *text) {
    if (strlen(text) + 1 > length) return INVALID_ARGUMENT;
    strcpy(target, text);
    return SUCCESS;
}
int nvmlSystemGetDriverVersion(char *version, unsigned int length) { return copy(version, length, driver); }
int nvmlSystemGetNVMLVersion(char *version, unsigned int length) { return copy(version, length, driver); }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = cuda; return SUCCESS; }
int nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }
int nvmlDeviceGetCount_v2(unsigned int *number) { *number = count; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct gpu **gpu) {
    if (index >= count) return INVALID_ARGUMENT;
    *gpu = &gpus[index];
    return SUCCESS;
}
int nvmlDeviceGetName(struct gpu *gpu, char *name, unsigned int length) { return copy(name, length, gpu->name); }
int nvmlDeviceGetCudaComputeCapability(struct gpu *gpu, int *major, int *minor) {
    *major = gpu->major;
    *minor = gpu->minor;
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(struct gpu *gpu, Memory *memory) {
    memory->total = memory->free = gpu->mib << 20;
    memory->used = 0;
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo_v2(struct gpu *gpu, Memory2 *memory) {
    memory->total = memory->free = gpu->mib << 20;
    memory->used = memory->reserved = 0;
    return SUCCESS;
}
