// What the machine really offers: cores this process may use, memory it may take.
#pragma once

#include <cstdint>
#include <string>

namespace lutra {

struct ThreadAdvice {
  int threads;         // >= 1
  std::string reason;  // one line: "2 threads: 2 physical cores"
};

// Physical cores among the CPUs this process may run on (sched_getaffinity), performance cores only on hybrid machines, cut to
// the cgroup CPU quota (v2 and v1). `root` is put before /proc and /sys (tests give a fake tree); `affinity` is a CPU list like
// "0-3,8", "" for the caller's own. Never throws; falls back to the number of CPUs.
ThreadAdvice AdviseThreads(const std::string& root = "", const std::string& affinity = "");

struct MemoryAdvice {
  uint64_t available_bytes;  // the least of MemAvailable and what the cgroup leaves
  uint64_t total_bytes;
};
MemoryAdvice AdviseMemory(const std::string& root = "");

// vpdpbusd on 256-bit registers in VEX form (Alder Lake and later) / on 512-bit registers (Cascade Lake and later).
bool CpuHasAvxVnni();
bool CpuHasAvx512Vnni();
// sdot and udot (Armv8.2 dotprod).
bool CpuHasArmDot();

// AMX: what CPUID says the CPU has, and whether this process may use it. The kernel keeps the tile registers from a process
// until it asks; RequestAmx asks (once, any thread, for all threads) and says whether they may be used from now on.
struct AmxSupport {
  bool int8, bf16;
};
AmxSupport CpuAmx();
bool RequestAmx();
// AMX tiles with int8 products, and this process may use them (asks).
bool CpuHasAmxInt8();

}  // namespace lutra
