// A plugin of QEMU that counts the instructions which the emulated program executes, and writes their number to stderr.
// Declares the part of QEMU's interface that it uses, whose header few distributions install.
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

struct qemu_plugin_tb;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*)(uint64_t id, struct qemu_plugin_tb*));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb*, void (*)(unsigned cpu, void* data), int flags,
                                          void* data);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*)(uint64_t id, void* data), void* data);

int qemu_plugin_version = INTERFACE;

static uint64_t executed;

static void execute(unsigned cpu, void* instructions) {
  (void)cpu;
  executed += (uintptr_t)instructions;
}
static void translate(uint64_t id, struct qemu_plugin_tb* block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_cb(block, execute, 0, (void*)qemu_plugin_tb_n_insns(block));
}
static void report(uint64_t id, void* data) {
  (void)id, (void)data;
  fprintf(stderr, "%" PRIu64 "\n", executed);
}

int qemu_plugin_install(uint64_t id, const void* info, int argc, char** argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  qemu_plugin_register_atexit_cb(id, report, NULL);
  return 0;
}
