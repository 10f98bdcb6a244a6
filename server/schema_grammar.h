// JSON schemas as grammars. What is said is what is meant: a keyword that would change what is valid and that we cannot express is
// refused by name, never ignored. Supported: type (one or several), enum, const, properties, required, additionalProperties,
// items, prefixItems, minItems, maxItems, minLength, maxLength, pattern, format (date, time, date-time, duration, uuid, ipv4, ipv6,
// hostname, email, uri; others are annotations), minimum, maximum, exclusiveMinimum, exclusiveMaximum, anyOf, oneOf, allOf (merged),
// $ref within the schema (also recursive), $defs, definitions, nullable. Objects have their properties in the schema's order; without
// additionalProperties there are no others.
// oneOf is exact where no value can match two branches and this is seen (NeverBoth in schema_overlap.h); otherwise SchemaMode decides.
#pragma once

#include <string>
#include <vector>

#include "server/json.h"

namespace lutra::server {

struct SchemaMode {
  bool strict = false;  // refuse what is not exact
  std::vector<std::string>* relaxed =
      nullptr;  // otherwise: places of oneOf that are taken as anyOf are appended
};

// GBNF whose root is a value of the schema. Throws ApiError(400) naming the place in the schema and the keyword; `field` names the
// request's field.
std::string SchemaGrammar(const Json& schema, const std::string& field,
                          const SchemaMode& mode = {});
// The same as rules without a root: the value's rule has the name that is returned; rules are appended to *rules. `prefix` keeps
// names of several schemas apart. References are to `root`, which is the schema itself if null.
std::string SchemaRules(const Json& schema, const std::string& field, const std::string& prefix,
                        std::string* rules, const SchemaMode& mode = {},
                        const Json* root = nullptr);

// Rules that the above use; to be appended once.
std::string JsonRules();
// GBNF for any JSON object.
std::string AnyObjectGrammar();

}  // namespace lutra::server
