// Rows of floats to any tensor type we can write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace lutra {

// True if QuantizeRow can write the type.
bool CanQuantize(uint32_t type_id);

// True for types so coarse that they are of little use without an importance matrix.
bool WantsImportance(uint32_t type_id);

// Scratch memory and the choice of code for one thread. Reused from row to row.
class RowQuantizer {
 public:
  // Throws Error(kUnsupported) naming the type if it cannot be written.
  explicit RowQuantizer(uint32_t type_id);
  ~RowQuantizer();
  RowQuantizer(RowQuantizer&&) noexcept;
  RowQuantizer& operator=(RowQuantizer&&) noexcept;

  // Encodes one row so that the sum of (typical importance + importance) * (x - decoded)^2 is small.
  //   x           [n] any finite values; n a multiple of the type's block_weights.
  //   importance  [n] >= 0, finite, or empty: all weights count alike.
  //   out         [RowBytes(type, n)]
  // Any input gives a row that decodes to finite values and is no worse than zeros: its error is at most the sum of squares.
  // The bytes do not depend on the machine. False (and zeros written) if x holds a NaN or an infinity.
  bool Quantize(std::span<const float> x, std::span<const float> importance, uint8_t* out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lutra
