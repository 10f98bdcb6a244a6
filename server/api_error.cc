#include "server/api_error.h"

#include <new>

#include "kernels/base/log.h"
#include "kernels/base/utf8.h"

namespace lutra::server {
namespace {

// One row an engine's code.
int StatusOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kCorrupt:
    case ErrorCode::kUnsupported:
    case ErrorCode::kResourceExhausted:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kCancelled:
      return 499;
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      return 500;
  }
  return 500;
}

const char* TypeOf(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "service_unavailable_error";
    case 501:
    case 505:
      return "invalid_request_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

}  // namespace

Json ApiError::ToJson() const {
  Json error = {{"message", Utf8Sanitize(what())}, {"type", TypeOf(status_)}};
  error["param"] = param_.empty() ? Json(nullptr) : Json(param_);
  error["code"] = code_.empty() ? Json(nullptr) : Json(code_);
  if (more_.is_object()) error.update(more_);
  return {{"error", std::move(error)}};
}

ApiError FromError(const Error& error) { return ApiError(StatusOf(error.code()), error.what()); }

ApiError CurrentError() {
  try {
    throw;
  } catch (const ApiError& e) {
    return e;
  } catch (const Error& e) {
    return FromError(e);
  } catch (const std::bad_alloc&) {
    return ApiError(503, "out of memory", "", "out_of_memory");
  } catch (const std::exception& e) {
    Log(LogLevel::kError, "internal error: %s", Printable(e.what()).c_str());
    return ApiError(500, "internal error", "", "internal_error");
  }
}

}  // namespace lutra::server
