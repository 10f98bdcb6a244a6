// A subcommand of `lutra`: one file cli/<name>.cc and one row in cli/main.cc.
#pragma once

#include "kernels/base/error.h"

namespace lutra::cli {

// Exit statuses, documented in README.md.
enum ExitStatus : int {
  kExitOk = 0,
  kExitFailure = 1,   // internal error
  kExitUsage = 2,     // bad option or argument
  kExitNotFound = 3,  // file does not exist
  kExitBadInput = 4,  // corrupt or unsupported file
  kExitIo = 5,
  kExitResources = 6,  // a limit, memory, context
  kExitInterrupted = 130,
};
ExitStatus ExitStatusOf(ErrorCode code);

struct Command {
  const char* name;
  const char* summary;                // one line for `lutra --help`
  int (*run)(int argc, char** argv);  // argv[0] is "lutra NAME"; may throw Error
};

int RunInspect(int argc, char** argv);
int RunTokenize(int argc, char** argv);
int RunLogits(int argc, char** argv);
int RunPerplexity(int argc, char** argv);
int RunImatrix(int argc, char** argv);
int RunChat(int argc, char** argv);
int RunRun(int argc, char** argv);
int RunBench(int argc, char** argv);
int RunDoctor(int argc, char** argv);
int RunServe(int argc, char** argv);
int RunQuantize(int argc, char** argv);

}  // namespace lutra::cli
