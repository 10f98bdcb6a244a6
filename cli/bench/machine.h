// The machine around a measurement: who else ran, what it cost, how much memory. Reads /proc and /sys under a root that tests
// replace.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lutra::bench {

// At one moment. Counters only grow.
struct MachineState {
  double seconds = 0;        // of a steady clock
  double busy_cpu_s = 0;     // all CPUs and processes: user, nice, system, interrupts
  double steal_cpu_s = 0;    // taken by the hypervisor
  double own_cpu_s = 0;      // of this process
  uint64_t involuntary = 0;  // times a thread of this process was put aside
  double clock_ghz = 0;      // of the core it runs on, measured; 0: not
};

// From the text of /proc/stat. `ticks` is sysconf(_SC_CLK_TCK).
void ParseProcStat(const std::string& text, double ticks, MachineState* state);
MachineState ReadMachineState();

// What disturbed a measurement between two states, "" if nothing did: "steal 3.1 % of a CPU, other processes 0.9 CPUs".
// Limits: steal or others above 3 % of the threads measured, 20 involuntary switches a second a thread, the clock 5 % apart.
std::string NoiseText(const MachineState& before, const MachineState& after, int threads);

// Energy of the processor packages (RAPL), where it can be read: usually by root only, and rarely in virtual machines.
class EnergyMeter {
 public:
  explicit EnergyMeter(const std::string& root = "");
  bool readable() const { return !domains_.empty(); }
  // Starts over. Stop gives the joules since, over at most one wrap of each counter; nullopt if it cannot be read.
  void Start();
  std::optional<double> Stop() const;

 private:
  struct Domain {
    std::string path;
    uint64_t range_uj;
    uint64_t start_uj = 0;
  };
  std::vector<Domain> domains_;
};

// The greatest resident size of this process since it began or ResetRssPeak, in MiB; 0 if unknown.
double RssPeakMib(const std::string& root = "");
void ResetRssPeak();

}  // namespace lutra::bench
