// Adding up importance matrices, writing both forms, and what the statistics say.
#include "models/imatrix_sum.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/error.h"
#include "models/imatrix_statistics.h"
#include "tests/models/gguf_check.h"

namespace lutra {
namespace {

using testing::TemporaryFolder;

using Doubles = std::vector<double>;

// A dense tensor, experts of which one was not reached, and one without data.
ImatrixSum Example() {
  ImatrixSum sum(16);
  sum.Add("blk.0.attn_q.weight", Doubles{1, 2, 3, 4}, Doubles{32}, "test");
  sum.Add("blk.0.ffn_up_exps.weight", Doubles{1, 2, 0, 0, 5, 6}, Doubles{20, 0, 12}, "test");
  sum.Add("blk.1.ffn_up_exps.weight", Doubles{0, 0}, Doubles{0, 0}, "test");
  sum.AddDataset("a.txt");
  return sum;
}

void CheckSame(const Imatrix& a, const Imatrix& b) {
  CHECK(a.datasets == b.datasets);
  CHECK(a.chunk_count == b.chunk_count);
  CHECK(a.chunk_size == b.chunk_size);
  REQUIRE(a.entries.size() == b.entries.size());
  for (const auto& [name, entry] : a.entries) {
    INFO(name);
    REQUIRE(b.entries.contains(name));
    const ImatrixEntry& other = b.entries.at(name);
    CHECK(entry.n_matrices == other.n_matrices);
    CHECK(entry.n_columns == other.n_columns);
    CHECK(entry.sums == other.sums);
    CHECK(entry.counts == other.counts);
  }
}

}  // namespace

TEST_CASE("Importance matrices add up, with counts and data sets") {
  ImatrixSum sum = Example();
  CHECK(sum.chunk_count() == 2);
  sum.AddDataset("a.txt");  // the same again
  sum.AddDataset("b.txt");
  sum.Add(Example().Result());
  const Imatrix r = sum.Result();
  CHECK(r.datasets == std::vector<std::string>{"a.txt", "b.txt", "a.txt"});
  CHECK(r.chunk_count == 4);
  CHECK(r.chunk_size == 16);
  const ImatrixEntry& dense = r.entries.at("blk.0.attn_q.weight");
  CHECK(dense.n_matrices == 1);
  CHECK(dense.n_columns == 4);
  CHECK(dense.sums == std::vector<float>{2, 4, 6, 8});
  CHECK(dense.counts == std::vector<float>{64});
  const ImatrixEntry& experts = r.entries.at("blk.0.ffn_up_exps.weight");
  CHECK(experts.n_matrices == 3);
  CHECK(experts.n_columns == 2);
  CHECK(experts.sums == std::vector<float>{2, 4, 0, 0, 10, 12});
  CHECK(experts.counts == std::vector<float>{40, 0, 24});
  CHECK(ImatrixGaps(r) ==
        std::vector<std::string>{"blk.0.ffn_up_exps.weight: 1 of 3 matrices have no data",
                                 "blk.1.ffn_up_exps.weight: 2 of 2 matrices have no data"});
}

TEST_CASE("Importance matrices of other shapes are not added") {
  ImatrixSum sum = Example();
  CHECK_THROWS_WITH_AS(
      sum.Add("blk.0.attn_q.weight", Doubles{1, 2, 3}, Doubles{1}, "x.gguf"),
      doctest::Contains(
          "x.gguf: 'blk.0.attn_q.weight' has 3 sums in 1 matrices, here it has 4 in 1"),
      Error);
  CHECK_THROWS_AS(
      sum.Add("blk.0.ffn_up_exps.weight", Doubles{1, 2, 3, 4, 5, 6}, Doubles{1, 2}, "x"), Error);
}

TEST_CASE("Both forms are read back as written") {
  const TemporaryFolder folder;
  const Imatrix written = Example().Result();
  WriteImatrix(written, ImatrixForm::kGguf, folder / "a.gguf");
  CheckSame(Imatrix::Read(folder / "a.gguf"), written);

  WriteImatrix(written, ImatrixForm::kLegacy, folder / "a.dat");
  const Imatrix legacy = Imatrix::Read(folder / "a.dat");
  CHECK(legacy.legacy);
  CHECK(legacy.datasets == written.datasets);
  CHECK(legacy.chunk_count == 2);
  CHECK(legacy.entries.size() == 2);  // the one without data is left out
  const ImatrixEntry& dense = legacy.entries.at("blk.0.attn_q.weight");
  CHECK(dense.counts == std::vector<float>{2});
  for (size_t i = 0; i < 4; ++i) CHECK(dense.Means(0)[i] == doctest::Approx((i + 1) / 32.0));
  const ImatrixEntry& experts = legacy.entries.at("blk.0.ffn_up_exps.weight");
  CHECK(experts.counts == std::vector<float>{2});  // 20 rows are 2 chunks, begun ones too
  const double means[] = {1 / 20.0, 2 / 20.0, 1,
                          1,        5 / 12.0, 6 / 12.0};  // 1 where nothing was seen
  for (size_t i = 0; i < 6; ++i) CHECK(experts.Means(0)[i] == doctest::Approx(means[i]));

  // The older form counts chunks: it is added in rows, whichever comes first.
  ImatrixSum sum(16);
  sum.Add(legacy);
  sum.Add(written);
  const Imatrix both = sum.Result();
  CHECK(both.entries.at("blk.0.attn_q.weight").counts == std::vector<float>{64});
  CHECK(both.entries.at("blk.0.attn_q.weight").sums == std::vector<float>{2, 4, 6, 8});
  CHECK(both.entries.at("blk.0.ffn_up_exps.weight").counts == std::vector<float>{52, 32, 44});
  CHECK(both.entries.at("blk.0.ffn_up_exps.weight").n_columns == 2);
  ImatrixSum reversed(16);
  reversed.Add(written);
  reversed.Add(legacy);
  CHECK(reversed.Result().entries.at("blk.0.ffn_up_exps.weight").counts ==
        std::vector<float>{52, 32, 44});
}

TEST_CASE("The bytes of the older form") {
  const TemporaryFolder folder;
  ImatrixSum sum(4);
  sum.Add("w", Doubles{8, 24}, Doubles{8}, "test");
  sum.AddDataset("t");
  WriteImatrix(sum.Result(), ImatrixForm::kLegacy, folder / "a.dat");
  const std::vector<uint8_t> expected = {1,    0, 0, 0, 1, 0, 0, 0, 'w',  2,  0, 0,
                                         0,    2, 0, 0, 0, 0, 0, 0, 0x40, 0,  0, 0xC0,
                                         0x40, 2, 0, 0, 0, 1, 0, 0, 0,    't'};
  CHECK(testing::ReadBytes(folder / "a.dat") == expected);
}

TEST_CASE("Sums that are no numbers are refused with the place") {
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity(), 1e39}) {
    ImatrixSum sum(16);
    sum.Add("blk.0.ffn_up_exps.weight", Doubles{1, 2, 3, bad}, Doubles{1, 1}, "test");
    CHECK_THROWS_WITH_AS(
        sum.Result(),
        doctest::Contains("blk.0.ffn_up_exps.weight: the activations of column 1 of matrix 1"),
        Error);
  }
}

TEST_CASE("Statistics of an importance matrix follow their definitions") {
  ImatrixSum sum(4);
  sum.Add("blk.0.attn_q.weight", Doubles{2, 2, 2, 2}, Doubles{2}, "test");
  sum.Add("blk.1.attn_q.weight", Doubles{0, 0, 0, 16}, Doubles{2}, "test");
  sum.Add("blk.1.ffn_up_exps.weight", Doubles{1, 2, 9, 9, 3, 6}, Doubles{1, 0, 3}, "test");
  sum.Add("output.weight", Doubles{1}, Doubles{1}, "test");
  sum.Add("blk.2.attn_k.weight", Doubles{0, 0}, Doubles{0}, "test");
  const auto all = StatisticsOf(sum.Result());
  REQUIRE(all.size() == 4);  // the one without data is left out
  CHECK(all[0].tensor == "attn_q");
  CHECK(all[0].layer == 1);  // the larger sum first
  CHECK(all[0].sum == 8);
  CHECK(all[0].min == 0);
  CHECK(all[0].max == 8);
  CHECK(all[0].mean == 2);
  CHECK(all[0].stddev == doctest::Approx(std::sqrt(12.0)));
  CHECK(all[0].active == 0.25);
  CHECK(all[0].entropy == 0);
  CHECK(all[0].outliers == 0.25);
  CHECK(all[0].cosine == doctest::Approx(0.5));
  CHECK(all[1].layer == 0);
  CHECK(all[1].n == 4);
  CHECK(all[1].entropy == doctest::Approx(2.0));
  CHECK(all[1].normalized_entropy == doctest::Approx(1.0));
  CHECK(all[1].stddev == 0);
  CHECK(all[1].outliers == 0);
  CHECK(all[1].active == 1);
  CHECK(all[1].cosine == 0);
  CHECK(all[2].tensor == "ffn_up_exps");
  CHECK(all[2].n == 4);  // 1, 2, 1, 2: the matrix without data does not count
  CHECK(all[2].sum == 6);
  CHECK(all[3].tensor == "output.weight");
  CHECK(all[3].layer == -1);
  const auto layers = LayerStatisticsOf(all);
  REQUIRE(layers.size() == 2);
  CHECK(layers[1].layer == 1);
  CHECK(layers[1].sum == doctest::Approx((4 * 8 + 4 * 6) / 8.0));
  CHECK(layers[1].outliers == doctest::Approx(0.125));
  CHECK(layers[1].cosine == doctest::Approx(0.25));
}

}  // namespace lutra
