// What clients are told when something is wrong, in OpenAI's form.
#pragma once

#include <stdexcept>
#include <string>

#include "kernels/base/error.h"
#include "server/json.h"

namespace lutra::server {

class ApiError : public std::runtime_error {
 public:
  // `param` and `code` "": null in the answer. The type follows from the status.
  ApiError(int status, const std::string& message, std::string param = "", std::string code = "",
           Json more = nullptr)
      : std::runtime_error(message),
        status_(status),
        param_(std::move(param)),
        code_(std::move(code)),
        more_(std::move(more)) {}
  int status() const { return status_; }
  // {"error": {"message", "type", "param", "code", ...}}
  Json ToJson() const;

 private:
  int status_;
  std::string param_, code_;
  Json more_;  // an object whose members join the error's, or null
};

// The status and words for an error of the engine.
ApiError FromError(const Error& error);
// For whatever is being handled in a catch block.
ApiError CurrentError();

}  // namespace lutra::server
