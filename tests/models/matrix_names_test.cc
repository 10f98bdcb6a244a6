// Every matrix of every architecture has the name of its tensor.
#include "models/matrix_names.h"

#include <map>
#include <set>

#include "models/arch/arch.h"
#include "tests/models/tiny_model.h"

namespace lutra {
namespace {

void CheckNames(const testing::TinySpec& spec) {
  INFO(spec.arch);
  const std::vector<uint8_t> bytes = testing::BuildTiny(spec).Build();
  ThreadPool pool(1);
  const auto model = Model::Load(GgufFile::FromBytes(bytes, "tiny.gguf"), pool);
  std::map<std::string, uint64_t> rows, matrices;
  std::set<const Matrix*> seen;
  for (const NamedMatrix& m : NamedMatrices(*model)) {
    INFO(m.tensor);
    const GgufTensor* t = model->file().FindTensor(m.tensor);
    REQUIRE(t != nullptr);
    CHECK(m.matrix->n_cols() == t->dim(0));
    CHECK(m.n_matrices == t->dim(2));
    CHECK(m.index < m.n_matrices);
    CHECK(&m.matrix->type() == t->type);
    CHECK(seen.insert(m.matrix).second);
    rows[m.tensor] += m.matrix->n_rows();
    if (m.tensor.ends_with("_exps.weight")) CHECK(m.index == matrices[m.tensor]++);
  }
  // All tensors of two or more dimensions, and no rows missing.
  for (const GgufTensor& t : model->file().tensors()) {
    const bool matrix = t.dims.size() >= 2 || t.name.ends_with("ffn_gate_inp_shexp.weight");
    const bool multiplied = t.name != "token_embd.weight" || spec.tied;
    INFO(t.name);
    CHECK(rows.contains(t.name) == (matrix && multiplied));
    if (rows.contains(t.name)) CHECK(rows[t.name] == t.dim(1) * t.dim(2));
  }
}

}  // namespace

TEST_CASE("Every matrix of every architecture has the name of its tensor") {
  for (const ArchSpec* arch : AllArchs()) {
    CheckNames(testing::TinyArch(arch->name));
  }
  testing::TinySpec fused = testing::TinyArch("llama");
  fused.fused_qkv = true;
  CheckNames(fused);
  testing::TinySpec tied = testing::TinyArch("qwen3");
  tied.tied = true;
  CheckNames(tied);
  testing::TinySpec mixtral = testing::TinyArch("llama");
  mixtral.n_expert = 4;
  mixtral.n_used = 2;
  CheckNames(mixtral);
}

}  // namespace lutra
