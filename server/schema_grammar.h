// JSON schemas as grammars. What is said is what is meant: a keyword that would change what is valid and that we cannot express is
// refused by name, never ignored. Supported: type (one or several), enum, const, properties, required, additionalProperties,
// items, prefixItems, minItems, maxItems, minLength, maxLength, pattern, format (date, time, date-time, uuid, ipv4, email; others are
// annotations), minimum, maximum, exclusiveMinimum, exclusiveMaximum, anyOf, oneOf (as anyOf), allOf (merged), $ref within the
// schema (also recursive), $defs, definitions, nullable. Objects have their properties in the schema's order; without
// additionalProperties there are no others.
#pragma once

#include <string>

#include "server/json.h"

namespace lutra::server {

// GBNF whose root is a value of the schema. Throws ApiError(400) naming the place in the schema and the keyword; `field` names the
// request's field.
std::string SchemaGrammar(const Json& schema, const std::string& field);
// The same as rules without a root: the value's rule has the name that is returned; rules are appended to *rules. `prefix` keeps
// names of several schemas apart. References are to `root`, which is the schema itself if null.
std::string SchemaRules(const Json& schema, const std::string& field, const std::string& prefix, std::string* rules, const Json* root = nullptr);

// Rules that the above use; to be appended once.
std::string JsonRules();
// GBNF for any JSON object.
std::string AnyObjectGrammar();

// GBNF of the texts of a JSON string (without the quotes) that match a regular expression in full or, where it has no anchors, in
// part. Throws ApiError(400) for what it does not know (look-around, back-references).
std::string PatternRule(const std::string& pattern, const std::string& where, const std::string& field);

// GBNF of the decimal integers from low to high; a bound that is null is none.
std::string IntegerRange(const int64_t* low, const int64_t* high);

// A GBNF literal.
std::string GbnfLiteral(const std::string& text);

}  // namespace lutra::server
