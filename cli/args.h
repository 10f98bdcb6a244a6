// Command lines of the subcommands, all parsed and refused the same way.
#pragma once

#include <CLI/CLI.hpp>

#include <optional>

namespace lutra::cli {

// Parses into the variables bound to `app`. nullopt: go on. Otherwise the command ends with that
// status: kExitOk after
// --help (printed to stdout), kExitUsage after a mistake (one line on stderr that names it and
// where help is). argv[0] is the program's name, "lutra NAME". Long options may have one dash, too: -ctk for --ctk.
std::optional<int> ParseArgs(CLI::App& app, int argc, char** argv);

// After a command has written its product to stdout: flushes it. Returns `status`, or kExitIo with
// one line on stderr if the output could not be written (disk full). A reader that went away (`|
// head`) is no error.
int FinishOutput(int status);

}  // namespace lutra::cli
