#include "cli/arithmetic_options.h"

#include "kernels/dispatch.h"

namespace lutra::cli {

void ArithmeticOptions::AddTo(CLI::App& app) {
  app.add_option("--simd", simd,
                 "cap the instruction set: auto; x86: scalar, sse4, avx2, avx2vnni, avx3, "
                 "avx3vnni, avx3_dl, amx; ARM: neon, neon_dot")
      ->envname("LUTRA_SIMD")
      ->type_name("SET");
  app.add_option(
         "--prefill", prefill,
         "exact: the same results in any batch; fast: rounds weights of long prompts further")
      ->envname("LUTRA_PREFILL")
      ->type_name("HOW");
  app.add_flag("--no-amx", no_amx, "leave the AMX tiles alone, whatever --simd takes")
      ->envname("LUTRA_NO_AMX");
}

void ArithmeticOptions::Apply() const {
  SetSimd(simd, !no_amx);
  SetPrefill(prefill);
}

}  // namespace lutra::cli
