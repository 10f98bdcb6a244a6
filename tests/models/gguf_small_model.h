// A small valid file with every value type, arrays, and tensors of several types and ranks, for
// tests to break.
#pragma once

#include "tests/gguf_builder.h"

namespace lutra::testing {

inline GgufBuilder SmallModel() {
  GgufBuilder b;
  b.Set("general.architecture", "llama").Alignment(32);
  b.Set("t.u8", uint8_t{1})
      .Set("t.i8", int8_t{-1})
      .Set("t.u16", uint16_t{2})
      .Set("t.i16", int16_t{-2});
  b.Set("t.i32", int32_t{-3}).Set("t.f32", 0.5f).Set("t.bool", true).Set("t.u64", uint64_t{4});
  b.Set("t.i64", int64_t{-4}).Set("t.f64", 0.25);
  b.SetArray("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "", "a"});
  b.SetArray<float>("tokenizer.ggml.scores", {0.0f, -1.0f, -2.0f});
  b.SetArray<int32_t>("tokenizer.ggml.token_type", {2, 3, 1});
  b.SetArray<uint8_t>("t.bytes", {1, 2, 3});
  b.SetArray<bool>("t.bools", {true, false});
  b.F32("norm", {4}, {1.0f, 2.0f, 3.0f, 4.0f});
  b.Tensor("q8", {64, 2}, 8);
  b.Tensor("q4k", {256, 1, 2}, 12);
  b.Tensor("iq4ks", {256, 2}, 144);  // rows with a header
  b.Tensor("f16", {3, 2, 2, 2}, 1);
  return b;
}

}  // namespace lutra::testing
