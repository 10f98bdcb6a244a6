// Whether two JSON schemas can be told apart: what makes oneOf the same as anyOf.
#pragma once

#include "server/json.h"

namespace lutra::server {

// True if no value that the grammar of `made` writes is valid under `other`. False if one is or if
// that is not seen: looked at are types, const and enum, ranges of numbers and lengths, and of
// objects the properties that are required on one side and excluded or of another kind on the
// other. `root`: what references refer to. *steps is what may still be looked at (kMaxOverlapSteps
// of a whole schema); when it is used up, nothing is seen.
bool NeverBoth(const Json& root, const Json& made, const Json& other, int* steps);

// False if `value` is certainly not valid under `schema`, as far as *steps allow to see.
bool MayBeValid(const Json& root, const Json& value, const Json& schema, int* steps);

}  // namespace lutra::server
