// Importance matrices in both forms, and hostile ones.
#include "models/imatrix.h"

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "models/gguf_writer.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

void AppendI32(std::vector<uint8_t>* out, int32_t v) {
  const uint8_t* p = reinterpret_cast<const uint8_t*>(&v);
  out->insert(out->end(), p, p + 4);
}
void AppendText(std::vector<uint8_t>* out, const std::string& text) {
  AppendI32(out, static_cast<int32_t>(text.size()));
  out->insert(out->end(), text.begin(), text.end());
}

std::vector<uint8_t> LegacyFile(float value = 6.0f) {
  std::vector<uint8_t> out;
  AppendI32(&out, 1);
  AppendText(&out, "blk.0.ffn_up.weight");
  AppendI32(&out, 3);
  AppendI32(&out, 2);
  for (const float v : {value, 1.5f}) {
    const uint8_t* p = reinterpret_cast<const uint8_t*>(&v);
    out.insert(out.end(), p, p + 4);
  }
  AppendI32(&out, 7);
  AppendText(&out, "stories");
  return out;
}

std::vector<uint8_t> GgufForm(bool with_counts = true) {
  static const std::vector<float> sums = {4, 8, 1, 1, 9, 3};
  static const std::vector<float> counts = {4, 0, 3};
  GgufWriter writer;
  writer.Set("general.type", "imatrix");
  writer.SetArray("imatrix.datasets", std::vector<std::string>{"a.txt"});
  writer.Set("imatrix.chunk_count", uint32_t{5});
  writer.Set("imatrix.chunk_size", uint32_t{512});
  const auto bytes = [](const std::vector<float>& v) {
    return std::span(reinterpret_cast<const uint8_t*>(v.data()), v.size() * 4);
  };
  writer.AddTensor("blk.0.ffn_up_exps.weight.in_sum2", {2, 3}, 0, bytes(sums));
  if (with_counts) writer.AddTensor("blk.0.ffn_up_exps.weight.counts", {1, 3}, 0, bytes(counts));
  return writer.WriteToBytes();
}

ErrorCode CodeOf(const std::vector<uint8_t>& bytes) {
  try {
    Imatrix::FromBytes(bytes, "test");
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode::kInternal;
}

}  // namespace

TEST_CASE("An importance matrix of the older form is read, and found for the gate too") {
  const Imatrix m = Imatrix::FromBytes(LegacyFile(), "test.dat");
  CHECK(m.legacy);
  CHECK(m.chunk_count == 7);
  CHECK(m.datasets == std::vector<std::string>{"stories"});
  REQUIRE(m.entries.size() == 1);
  const ImatrixEntry* e = m.Find("blk.0.ffn_gate.weight");
  REQUIRE(e != nullptr);
  CHECK(e->Means(0) == std::vector<float>{2.0f, 0.5f});
  CHECK(m.Find("blk.1.ffn_up.weight") == nullptr);
}

TEST_CASE("An importance matrix of the GGUF form is read; experts nobody saw count as 1") {
  const Imatrix m = Imatrix::FromBytes(GgufForm(), "test.gguf");
  CHECK_FALSE(m.legacy);
  CHECK(m.chunk_count == 5);
  CHECK(m.chunk_size == 512);
  const ImatrixEntry* e = m.Find("blk.0.ffn_gate_exps.weight");
  REQUIRE(e != nullptr);
  CHECK(e->n_matrices == 3);
  CHECK(e->n_columns == 2);
  CHECK(e->Means(0) == std::vector<float>{1.0f, 2.0f});
  CHECK(e->Means(1) == std::vector<float>{1.0f, 1.0f});
  CHECK(e->Means(2) == std::vector<float>{3.0f, 1.0f});
}

TEST_CASE("Hostile importance matrices are refused") {
  CHECK(CodeOf(GgufForm(false)) == ErrorCode::kCorrupt);
  CHECK(CodeOf(LegacyFile(-1.0f)) == ErrorCode::kCorrupt);
  CHECK(CodeOf(LegacyFile(std::numeric_limits<float>::quiet_NaN())) == ErrorCode::kCorrupt);
  CHECK(CodeOf(LegacyFile(std::numeric_limits<float>::infinity())) == ErrorCode::kCorrupt);
  CHECK(CodeOf({}) == ErrorCode::kCorrupt);
  CHECK(CodeOf({0, 0, 0, 0}) == ErrorCode::kCorrupt);
  const std::vector<uint8_t> whole = LegacyFile();
  // The chunk count and the data set are optional; everything before is not.
  const size_t needed = whole.size() - 4 - 4 - 7;
  for (size_t n = 0; n < needed; ++n) {
    CHECK(CodeOf({whole.begin(), whole.begin() + static_cast<ptrdiff_t>(n)}) ==
          ErrorCode::kCorrupt);
  }
  for (size_t at = 0; at < 4; ++at) {
    std::vector<uint8_t> bad = whole;
    bad[at] = 0xFF;
    CHECK(CodeOf(bad) != ErrorCode::kInternal);
  }
}

}  // namespace lutra
