// Random damage to a valid file, aware of where its fields are. Fixed seed: a failure repeats.
#include <algorithm>
#include <random>

#include "tests/models/gguf_check.h"
#include "tests/models/gguf_small_model.h"

namespace lutra {
namespace {

using testing::GgufBuilder;

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {
    GgufBuilder b = testing::SmallModel();
    b.pad_last = false;
    good_ = b.Build();
    fields_ = b.fields();
    header_bytes_ = b.header_bytes();
  }

  std::vector<uint8_t> Next() {
    std::vector<uint8_t> bytes = good_;
    const uint64_t n = 1 + Below(3);
    for (uint64_t i = 0; i < n; ++i) MutateOnce(&bytes);
    return bytes;
  }

 private:
  uint64_t Below(uint64_t n) { return random_() % n; }

  uint64_t Extreme() {
    switch (Below(6)) {
      case 0:
        return Below(17);
      case 1:
        return UINT64_MAX - Below(64);
      case 2:
        return (uint64_t{1} << Below(64)) - Below(2);
      case 3:
        return good_.size() - Below(64);
      case 4:
        return uint64_t{32} << Below(59);
      default:
        return random_();
    }
  }

  void MutateOnce(std::vector<uint8_t>* bytes) {
    switch (Below(8)) {
      case 0:
      case 1:
      case 2: {  // a field to another value
        const GgufBuilder::Field& f = fields_[Below(fields_.size())];
        const uint64_t value = Extreme();
        for (size_t i = 0; i < f.bytes && f.at + i < bytes->size(); ++i) {
          (*bytes)[f.at + i] = static_cast<uint8_t>(value >> (8 * (i % 8)));
        }
        break;
      }
      case 3: {  // one field's value into another of the same width
        const GgufBuilder::Field& a = fields_[Below(fields_.size())];
        const GgufBuilder::Field& b = fields_[Below(fields_.size())];
        if (a.bytes != b.bytes) break;
        for (size_t i = 0; i < a.bytes; ++i) {
          if (a.at + i < bytes->size() && b.at + i < good_.size())
            (*bytes)[a.at + i] = good_[b.at + i];
        }
        break;
      }
      case 4:  // a field up or down a little
      {
        const GgufBuilder::Field& f = fields_[Below(fields_.size())];
        if (f.at < bytes->size()) {
          (*bytes)[f.at] = static_cast<uint8_t>((*bytes)[f.at] + Below(7) - 3);
        }
        break;
      }
      case 5:  // cut
        bytes->resize(Below(4) == 0 ? Below(bytes->size() + 1)
                                    : bytes->size() - Below(bytes->size() / 16 + 1));
        break;
      case 6: {  // splice: a piece of the header copied in, or out
        const size_t from = Below(header_bytes_);
        const size_t n = std::min<size_t>(Below(64), header_bytes_ - from);
        const size_t to = Below(std::min(header_bytes_, bytes->size()) + 1);
        if (Below(2) == 0) {
          bytes->insert(bytes->begin() + static_cast<ptrdiff_t>(to),
                        good_.begin() + static_cast<ptrdiff_t>(from),
                        good_.begin() + static_cast<ptrdiff_t>(from + n));
        } else {
          const size_t end = std::min(to + n, bytes->size());
          bytes->erase(bytes->begin() + static_cast<ptrdiff_t>(to),
                       bytes->begin() + static_cast<ptrdiff_t>(end));
        }
        break;
      }
      default:  // a byte of the header
        if (!bytes->empty()) {
          (*bytes)[Below(std::min(header_bytes_, bytes->size()))] = static_cast<uint8_t>(random_());
        }
        break;
    }
  }

  std::mt19937_64 random_;
  std::vector<uint8_t> good_;
  std::vector<GgufBuilder::Field> fields_;
  size_t header_bytes_ = 0;
};

}  // namespace

TEST_CASE("Hostile: 5,000 mutants are refused or read within their bounds") {
  Mutator mutator(20240607);
  size_t refused = 0;
  constexpr size_t kMutants = 5000;
  for (size_t i = 0; i < kMutants; ++i) {
    INFO("mutant " << i);
    if (testing::TryOpen(mutator.Next()).has_value()) ++refused;
  }
  // Both outcomes are frequent, or the mutations are not worth much.
  CHECK(refused > kMutants / 4);
  CHECK(refused < kMutants);
  MESSAGE(refused << " of " << kMutants << " refused");
}

}  // namespace lutra
