#include "cli/args.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "cli/command.h"
#include "kernels/base/error.h"

namespace lutra::cli {
namespace {

// "-ctk" and "-ctk=q8" where there is an option --ctk: people know such names with one dash.
std::string WithTwoDashes(const CLI::App& app, std::string arg) {
  if (arg.size() < 3 || arg[0] != '-' || arg[1] == '-') return arg;
  const std::string name = "-" + arg.substr(0, arg.find('='));
  return app.get_option_no_throw(name) != nullptr ? "-" + arg : arg;
}

}  // namespace

std::optional<int> ParseArgs(CLI::App& app, int argc, char** argv) {
  app.name(argv[0]);
  std::vector<std::string> args;  // the last one first, as CLI11 wants them
  for (int i = argc - 1; i > 0; --i) args.push_back(WithTwoDashes(app, argv[i]));
  try {
    app.parse(args);
    return std::nullopt;
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return kExitOk;
  } catch (const CLI::ParseError& e) {
    // CLI11 may put several lines into one message.
    std::string text = e.what();
    while (!text.empty() && text.back() == '\n') text.pop_back();
    for (char& c : text) {
      if (c == '\n') c = ' ';
    }
    std::fprintf(stderr, "%s: %s; `%s --help` explains the options\n", argv[0],
                 Printable(text, 400).c_str(), argv[0]);
    return kExitUsage;
  }
}

int FinishOutput(int status) {
  const bool failed = std::ferror(stdout) != 0;
  errno = 0;
  if (std::fflush(stdout) == 0 && !failed) return status;
  const int error =
      errno;  // 0 if an earlier write failed: then the pipe itself tells whether its reader left
  struct pollfd out = {STDOUT_FILENO, POLLOUT, 0};
  if (error == EPIPE || (::poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0)) return status;
  std::fprintf(stderr, "lutra: cannot write the output%s%s\n", error == 0 ? "" : ": ",
               error == 0 ? "" : std::strerror(error));
  return status == kExitOk ? kExitIo : status;
}

}  // namespace lutra::cli
