// What `lutra doctor` looks at. Pure functions over /proc and /sys under a root (tests give a fake tree) and over a model file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/bench/roofline.h"
#include "models/gguf.h"

namespace lutra::doctor {

enum class Verdict {
  kOk,
  kNote,
  kWarning,
  kProblem
};                                   // as wanted; worth knowing; costs speed; does not work
const char* VerdictName(Verdict v);  // "ok", "note", "warning", "problem"

struct Finding {
  Verdict verdict;
  std::string topic;  // "SIMD", "threads", ...
  std::string text;   // one line
  std::string fix;    // a command or what to do; "" if nothing is to be done
};

// Of the processor, not read from files so that tests can say them.
struct CpuFacts {
  std::vector<std::string> simd;  // AvailableSimd(): weakest first
  std::string simd_in_use;
  bool amx_int8 = false;     // CPUID
  bool amx_allowed = false;  // the kernel's permission
};
CpuFacts ThisCpu();

// SIMD, threads, NUMA, huge pages, governor and turbo, memory, load. `affinity` as in AdviseThreads.
std::vector<Finding> MachineFindings(const std::string& root, const std::string& affinity,
                                     const CpuFacts& cpu);

// Limits, measured or kept.
std::vector<Finding> RooflineFindings(const bench::Roofline& r, int64_t now);

// A context and what it takes with a model.
struct PlanRow {
  uint32_t n_ctx;
  std::string kv_type;
  uint64_t weights, kv, scratch;
  bool fits;
};
// Contexts from 4096 to what the model was trained with, for each KV type.
std::vector<PlanRow> MemoryTable(const GgufFile& file, uint64_t available_bytes);

// The file's health: architecture, tensors and their types, tokenizer, template, memory. Never throws for what a file holds: that
// becomes findings.
std::vector<Finding> ModelFindings(const GgufFile& file, uint64_t available_bytes);

}  // namespace lutra::doctor
