// JSON of requests and answers. Objects keep the order of their members: schemas and templates depend on it.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace lutra::server {

using Json = nlohmann::ordered_json;

// Throws ApiError(400) naming the offset for malformed text, numbers out of range and bad UTF-8, and naming the limits kMaxJsonDepth and kMaxJsonMembers.
Json ParseJson(std::string_view text);

// One line, always valid UTF-8.
std::string Dump(const Json& json);

// "an object", "a list", "a string" ... for messages.
const char* JsonTypeName(const Json& value);
// A short printable form of a value for messages.
std::string ShowJson(const Json& value);

}  // namespace lutra::server
