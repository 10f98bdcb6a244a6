#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "cli/args.h"
#include "cli/command.h"
#include "kernels/base/error.h"

namespace lutra::cli {
namespace {

// A row a command.
constexpr Command kCommands[] = {
    {"chat", "talk with a model", RunChat},
    {"run", "complete a text or answer one message", RunRun},
    {"serve", "answer HTTP requests as OpenAI's API does, with a chat page", RunServe},
    {"inspect", "show what a GGUF file holds: metadata, tensors, sizes", RunInspect},
    {"tokenize", "text to token ids and back", RunTokenize},
    {"bench", "measure speed, of a file or of random weights in any shape", RunBench},
    {"doctor", "look for what is wrong or slow on this machine, or with a model", RunDoctor},
    {"perplexity", "measure the perplexity of a text, or compare two models on it", RunPerplexity},
    {"imatrix", "collect the importance of weights from a text, for quantizing", RunImatrix},
    {"quantize", "make a model smaller: other tensor types, by name, rule or target size",
     RunQuantize},
    {"logits", "write the logits of a token sequence to a file", RunLogits},
};

void PrintHelp(std::FILE* out) {
  std::fprintf(out,
               "Lutra %s: runs GGUF language models on the CPU.\n\nUsage: lutra COMMAND "
               "[OPTIONS]\n\nCommands:\n",
               LUTRA_VERSION);
  for (const Command& c : kCommands) std::fprintf(out, "  %-12s %s\n", c.name, c.summary);
  std::fprintf(out, "\n`lutra COMMAND --help` explains a command.\n");
}

int Main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  if (name.empty() || name == "--help" || name == "-h" || name == "help") {
    PrintHelp(name.empty() ? stderr : stdout);
    return name.empty() ? kExitUsage : kExitOk;
  }
  if (name == "--version") {
    std::printf("lutra %s\n", LUTRA_VERSION);
    return kExitOk;
  }
  for (const Command& c : kCommands) {
    if (name != c.name) continue;
    std::string program = "lutra " + name;
    argv[1] = program.data();
    try {
      return FinishOutput(c.run(argc - 1, argv + 1));
    } catch (const Error& e) {
      std::fprintf(stderr, "lutra: %s\n", e.what());
      return ExitStatusOf(e.code());
    } catch (const std::bad_alloc&) {
      std::fprintf(stderr, "lutra: out of memory\n");
      return kExitResources;
    } catch (const std::exception& e) {
      std::fprintf(stderr, "lutra: internal error: %s\n", e.what());
      return kExitFailure;
    }
  }
  std::fprintf(stderr, "lutra: no command '%s'; `lutra --help` lists them\n",
               Printable(name).c_str());
  return kExitUsage;
}

}  // namespace

ExitStatus ExitStatusOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return kExitUsage;
    case ErrorCode::kNotFound:
      return kExitNotFound;
    case ErrorCode::kCorrupt:
    case ErrorCode::kUnsupported:
      return kExitBadInput;
    case ErrorCode::kResourceExhausted:
      return kExitResources;
    case ErrorCode::kCancelled:
      return kExitInterrupted;
    case ErrorCode::kIo:
      return kExitIo;
    case ErrorCode::kInternal:
      return kExitFailure;
  }
  return kExitFailure;
}

}  // namespace lutra::cli

int main(int argc, char** argv) {
  // Writing to a reader that left, or past a file size limit, is an error to handle, not a death.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  return lutra::cli::Main(argc, argv);
}
