// `lutra doctor`: one page about the machine and a model, with what to do about it.
#include <cstdio>
#include <ctime>
#include <optional>

#include <nlohmann/json.hpp>

#include "cli/bench/roofline.h"
#include "cli/bench_options.h"
#include "cli/command.h"
#include "cli/doctor/findings.h"
#include "kernels/base/cpu.h"
#include "kernels/base/error.h"
#include "kernels/base/utf8.h"
#include "kernels/dispatch.h"

namespace lutra::cli {
namespace {

using doctor::Finding;
using doctor::Verdict;

void PrintText(const std::vector<Finding>& findings, const std::vector<doctor::PlanRow>& table) {
  for (const Finding& f : findings) {
    std::printf("%-8s %-11s %s\n", doctor::VerdictName(f.verdict), f.topic.c_str(), f.text.c_str());
    if (!f.fix.empty()) std::printf("%-8s %-11s -> %s\n", "", "", f.fix.c_str());
  }
  if (table.empty()) return;
  const auto mib = [](uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  std::printf("\n| context | KV type | weights |      KV | scratch |     all | fits |\n");
  std::printf("| ------: | ------- | ------: | ------: | ------: | ------: | ---- |\n");
  for (const doctor::PlanRow& r : table) {
    std::printf("| %7u | %-7s | %7.1f | %7.1f | %7.1f | %7.1f | %-4s |\n", r.n_ctx,
                r.kv_type.c_str(), mib(r.weights), mib(r.kv), mib(r.scratch),
                mib(r.weights + r.kv + r.scratch), r.fits ? "yes" : "no");
  }
  std::printf("(MiB)\n");
}

void PrintJson(const std::vector<Finding>& findings, const std::vector<doctor::PlanRow>& table) {
  nlohmann::ordered_json json = {{"findings", nlohmann::json::array()},
                                 {"memory", nlohmann::json::array()}};
  for (const Finding& f : findings) {
    json["findings"].push_back(
        {{"verdict", doctor::VerdictName(f.verdict)},
         {"topic", f.topic},
         {"text", Utf8Sanitize(f.text)},
         {"fix", f.fix.empty() ? nlohmann::json(nullptr) : nlohmann::json(f.fix)}});
  }
  for (const doctor::PlanRow& r : table) {
    json["memory"].push_back({{"n_ctx", r.n_ctx},
                              {"kv_type", r.kv_type},
                              {"weights_bytes", r.weights},
                              {"kv_bytes", r.kv},
                              {"scratch_bytes", r.scratch},
                              {"fits", r.fits}});
  }
  std::printf("%s\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

}  // namespace

int RunDoctor(int argc, char** argv) {
  CLI::App app(
      "Looks at the machine, and at a model if one is named: what is well, what costs speed, what "
      "does not work, each with the "
      "command that mends it.");
  std::string model, simd = "auto";
  bool json = false, no_roofline = false, progress = false;
  app.add_option("-m,--model", model, "GGUF file to look at")->type_name("FILE");
  app.add_flag("--no-roofline", no_roofline, "do not measure or look up the machine's limits");
  app.add_flag("--json", json, "print JSON");
  app.add_flag("--progress", progress,
               "say on standard error what is being done, also where that is no terminal");
  app.add_option("--simd", simd, "the cap that would be used")
      ->envname("LUTRA_SIMD")
      ->type_name("SET");
  if (const auto status = ParseBenchArgs(app, argc, argv)) return *status;
  SetSimd(simd);
  std::vector<Finding> findings = doctor::MachineFindings("", "", doctor::ThisCpu());
  const auto add = [&](const std::vector<Finding>& more) {
    findings.insert(findings.end(), more.begin(), more.end());
  };
  if (!no_roofline) {
    BenchProgress line(progress);
    add(doctor::RooflineFindings(
        bench::FindRoofline(AdviseThreads().threads, false,
                            [&](const std::string& what) { line.Say(what); }),
        std::time(nullptr)));
  }
  std::vector<doctor::PlanRow> table;
  int status = kExitOk;
  if (!model.empty()) {
    try {
      const GgufFile file = GgufFile::Open(model);
      const uint64_t available = AdviseMemory().available_bytes;
      const std::vector<Finding> of_model = doctor::ModelFindings(file, available);
      add(of_model);
      if (of_model[0].verdict != Verdict::kProblem) table = doctor::MemoryTable(file, available);
      for (const Finding& f : of_model) {
        if (f.verdict == Verdict::kProblem) status = kExitBadInput;
      }
    } catch (const Error& e) {
      findings.push_back({Verdict::kProblem, "model", e.what(), ""});
      status = ExitStatusOf(e.code());
    }
  }
  if (json) {
    PrintJson(findings, table);
  } else {
    PrintText(findings, table);
  }
  return status;
}

}  // namespace lutra::cli
