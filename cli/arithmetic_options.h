// Which instructions and which arithmetic a command computes with: the same options everywhere.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

namespace lutra::cli {

struct ArithmeticOptions {
  std::string simd = "auto";
  std::string prefill = "exact";
  bool no_amx = false;

  // --simd, --prefill, --no-amx. Environment: LUTRA_SIMD, LUTRA_PREFILL, LUTRA_NO_AMX.
  void AddTo(CLI::App& app);
  // Before any matrix is packed. Throws Error(kInvalidArgument, kUnsupported).
  void Apply() const;
};

}  // namespace lutra::cli
