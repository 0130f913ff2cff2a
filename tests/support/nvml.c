/* A double of NVIDIA's management library for machines without a GPU: its C interface, answered from recorded answers.
 *
 * The answers stand in the file that NVML_DOUBLE names, else in /etc/nvml-double, one call a line:
 *
 *     FUNCTION DEVICE STATUS VALUES...
 *
 * DEVICE is `-` for the library itself, `0` for the first GPU, `0/1` for its second MIG slice. A call that is not
 * recorded returns NOT_SUPPORTED, or SUCCESS where it gives nothing back (nvmlInitWithFlags, nvmlShutdown).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, MOST = 64 };

typedef unsigned int uint;
typedef unsigned long long ull;
typedef struct { char name[8]; } *Device;
typedef struct { ull total, free, used; } Memory;
typedef struct { uint version; ull total, reserved, free, used; } Memory2;
typedef struct { char legacy[16]; uint domain, bus, device, id, subsystem; char address[32]; } Pci;
typedef struct { uint pid; ull memory; uint gpu_instance, compute_instance; } Process;
typedef struct {
    uint code, state;
    char info[128], product[128];
    uint enabled, year;
    unsigned short month, day, hour, minute, second;
    unsigned char status;
} Feature;
typedef struct { int supported; uint count; Feature features[3]; } Licences;

static char lines[65536];

static int look(const char *function, const char *device, const char **values) {
    char key[96];
    int status, length;
    snprintf(key, sizeof key, "\n%s %s ", function, device);
    const char *line = strstr(lines, key);
    *values = "";
    if (!line || sscanf(line + strlen(key), "%d%n", &status, &length) != 1) return NOT_SUPPORTED;
    *values = line + strlen(key) + length;
    if (**values == ' ') ++*values;
    return status;
}

static int text(const char *function, const char *device, char *target, uint length) {
    const char *values;
    int status = look(function, device, &values);
    size_t size = strcspn(values, "\n");
    if (status) return status;
    if (size + 1 > length) return INSUFFICIENT_SIZE;
    memcpy(target, values, size);
    target[size] = 0;
    return SUCCESS;
}

/* Up to five whole numbers. */
static int numbers(const char *function, const char *device, ull found[5]) {
    const char *values;
    int status = look(function, device, &values);
    char *end;
    for (int number = 0; number < 5; number++) found[number] = 0;
    for (int number = 0; number < 5 && *values && *values != '\n'; number++) {
        found[number] = strtoull(values, &end, 10);
        values = end;
    }
    return status;
}

static int handle(const char *function, const char *parent, uint index, Device *device) {
    static char known[MOST][8];
    char name[8];
    const char *values;
    snprintf(name, sizeof name, *parent == '-' ? "%s%u" : "%s/%u", *parent == '-' ? "" : parent, index);
    int status = look(function, name, &values);
    if (status) return status == NOT_SUPPORTED ? NOT_FOUND : status;
    for (int slot = 0; slot < MOST; slot++) {
        if (!*known[slot]) strcpy(known[slot], name);
        if (strcmp(known[slot], name) == 0) return *device = (Device)known[slot], SUCCESS;
    }
    return INVALID_ARGUMENT;
}

int nvmlInitWithFlags(uint flags) {
    const char *path = getenv("NVML_DOUBLE"), *values;
    FILE *file = fopen(path ? path : "/etc/nvml-double", "r");
    (void)flags;
    if (!file) return NOT_FOUND;
    lines[0] = '\n';
    lines[1 + fread(lines + 1, 1, sizeof lines - 2, file)] = 0;
    fclose(file);
    int status = look("nvmlInitWithFlags", "-", &values);
    return status == NOT_SUPPORTED ? SUCCESS : status;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int status) { return status ? "Unknown Error" : "Success"; }

int nvmlSystemGetDriverVersion(char *to, uint length) { return text("nvmlSystemGetDriverVersion", "-", to, length); }
int nvmlSystemGetNVMLVersion(char *to, uint length) { return text("nvmlSystemGetDriverVersion", "-", to, length); }
int nvmlSystemGetProcessName(uint pid, char *to, uint length) {
    char number[16];
    snprintf(number, sizeof number, "%u", pid);
    return text("nvmlSystemGetProcessName", number, to, length);
}
int nvmlDeviceGetHandleByIndex_v2(uint index, Device *device) {
    return handle("nvmlDeviceGetHandleByIndex_v2", "-", index, device);
}
int nvmlDeviceGetMigDeviceHandleByIndex(Device parent, uint index, Device *device) {
    return handle("nvmlDeviceGetMigDeviceHandleByIndex", parent->name, index, device);
}
int nvmlDeviceGetName(Device device, char *to, uint length) { return text(__func__, device->name, to, length); }
int nvmlDeviceGetUUID(Device device, char *to, uint length) { return text(__func__, device->name, to, length); }
int nvmlDeviceGetPciInfo_v3(Device device, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    return text(__func__, device->name, pci->address, sizeof pci->address);
}

/* A function whose answer is whole numbers, given back by that many pointers. */
#define SYSTEM(function, type) \
    int function(type *a) { \
        ull n[5]; int status = numbers(#function, "-", n); *a = (type)n[0]; return status; \
    }
#define ONE(function, type) \
    int function(Device device, type *a) { \
        ull n[5]; int status = numbers(#function, device->name, n); *a = (type)n[0]; return status; \
    }
#define TWO(function, type) \
    int function(Device device, type *a, type *b) { \
        ull n[5]; int status = numbers(#function, device->name, n); \
        *a = (type)n[0]; *b = (type)n[1]; return status; \
    }
SYSTEM(nvmlSystemGetCudaDriverVersion_v2, int)
SYSTEM(nvmlSystemGetCudaDriverVersion, int)
SYSTEM(nvmlDeviceGetCount_v2, uint)
ONE(nvmlDeviceGetMinorNumber, uint)
ONE(nvmlDeviceGetMaxMigDeviceCount, uint)
ONE(nvmlDeviceGetRetiredPagesPendingStatus, uint)
ONE(nvmlDeviceGetPersistenceMode, uint)
ONE(nvmlDeviceGetCurrentClocksEventReasons, ull)
ONE(nvmlDeviceGetVirtualizationMode, uint)
ONE(nvmlDeviceGetEnforcedPowerLimit, uint)
ONE(nvmlDeviceGetPowerManagementDefaultLimit, uint)
TWO(nvmlDeviceGetCudaComputeCapability, int)
TWO(nvmlDeviceGetMigMode, uint)

int nvmlDeviceGetRemappedRows(Device device, uint *corrected, uint *uncorrected, uint *pending, uint *failed) {
    ull n[5];
    int status = numbers(__func__, device->name, n);
    *corrected = (uint)n[0], *uncorrected = (uint)n[1], *pending = (uint)n[2], *failed = (uint)n[3];
    return status;
}
/* Recorded for uncorrected errors since the driver's start. */
int nvmlDeviceGetTotalEccErrors(Device device, uint kind, uint counter, ull *count) {
    ull n[5];
    int status = numbers(__func__, device->name, n);
    *count = kind == 1 && counter == 0 ? n[0] : 0;
    return status;
}
int nvmlDeviceGetMemoryInfo(Device device, Memory *memory) {
    ull n[5];
    int status = numbers(__func__, device->name, n);
    memory->total = n[0], memory->free = n[1], memory->used = n[2];
    return status;
}
int nvmlDeviceGetMemoryInfo_v2(Device device, Memory2 *memory) {
    ull n[5];
    if (memory->version != (sizeof(Memory2) | 2 << 24)) return 25; /* ARGUMENT_VERSION_MISMATCH */
    int status = numbers(__func__, device->name, n);
    memory->total = n[0], memory->reserved = n[1], memory->free = n[2], memory->used = n[3];
    return status;
}
/* Recorded as PID BYTES, for two processes at most. */
int nvmlDeviceGetComputeRunningProcesses_v3(Device device, uint *count, Process *processes) {
    ull n[5];
    int status = numbers(__func__, device->name, n);
    uint there = status ? 0 : n[2] ? 2 : n[0] ? 1 : 0, room = *count;
    *count = there;
    if (status || !there) return status;
    if (room < there) return INSUFFICIENT_SIZE;
    for (uint number = 0; number < there; number++)
        processes[number] = (Process){(uint)n[2 * number], n[2 * number + 1], ~0u, ~0u};
    return SUCCESS;
}
/* Recorded as SUPPORTED STATE: a state other than 0 is licensed. */
int nvmlDeviceGetGridLicensableFeatures_v4(Device device, Licences *licences) {
    ull n[5];
    int status = numbers(__func__, device->name, n);
    memset(licences, 0, sizeof *licences);
    licences->supported = (int)n[0];
    licences->count = n[0] ? 1 : 0;
    licences->features[0].code = 1;
    licences->features[0].state = (uint)n[1];
    return status;
}
