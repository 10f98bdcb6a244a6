// What a grammar is to the sampler: which tokens may come next.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/candidates.h"

namespace lutra {

// For one generated sequence; one thread at a time.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  // False while everything is allowed (a grammar that waits for its trigger).
  virtual bool active() const = 0;
  virtual bool Allows(int32_t token) = 0;
  // All tokens that Allows(), valid until the next Accept. Costs more than Allows: wanted only when a draw was refused.
  virtual const TokenMask& Mask() = 0;
  // A token that was drawn (and, while active, allowed).
  virtual void Accept(int32_t token) = 0;
  // True if nothing may follow.
  virtual bool done() const = 0;
  // Tokens that must come next whatever the model says, perhaps none; they are not accepted yet.
  virtual std::vector<int32_t> Forced() { return {}; }
};

}  // namespace lutra
