#include "server/json.h"

#include <array>

#include "kernels/base/utf8.h"
#include "server/api_error.h"
#include "server/limits.h"

namespace lutra::server {
namespace {

// What the library says is wrong, without its own name and the position, which is told before it.
std::string Reason(const Json::exception& e) {
  std::string text = e.what();
  if (const size_t at = text.find("] "); text.starts_with('[') && at != std::string::npos)
    text.erase(0, at + 2);
  if (const size_t at = text.find(": "); text.starts_with("parse error") && at != std::string::npos)
    text.erase(0, at + 2);
  return Printable(text, 300);
}

}  // namespace

Json ParseJson(std::string_view text) {
  int depth = 0;
  std::array<int, kMaxJsonDepth + 1> members{};  // of the objects that are open
  const auto bounded = [&](int, Json::parse_event_t event, Json&) {
    using E = Json::parse_event_t;
    if (event == E::object_start || event == E::array_start) ++depth;
    if (event == E::object_end || event == E::array_end) --depth;
    if (depth > kMaxJsonDepth) {
      throw ApiError(400, Format("the JSON is nested deeper than %d levels", kMaxJsonDepth), "",
                     "invalid_json");
    }
    int& n = members[static_cast<size_t>(depth)];
    if (event == E::object_start) n = 0;
    if (event == E::key && ++n > kMaxJsonMembers) {
      throw ApiError(400, Format("an object of the JSON has more than %d members", kMaxJsonMembers),
                     "", "invalid_json");
    }
    return true;
  };
  if (text.empty())
    throw ApiError(400, "the body is empty; it must be a JSON object", "", "invalid_json");
  try {
    return Json::parse(text, bounded);
  } catch (const Json::parse_error& e) {
    throw ApiError(400,
                   Format("the body is not valid JSON at byte %zu: %s", e.byte, Reason(e).c_str()),
                   "", "invalid_json");
  } catch (const Json::exception& e) {
    throw ApiError(400, Format("the body is not valid JSON: %s", Reason(e).c_str()), "",
                   "invalid_json");
  }
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

const char* JsonTypeName(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "a list";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "a boolean";
    default:
      return value.is_number_float() ? "a number" : "an integer";
  }
}

std::string ShowJson(const Json& value) {
  if (value.is_structured()) return JsonTypeName(value);
  return Printable(Dump(value), 60);
}

}  // namespace lutra::server
