#include "server/server.h"

#include <set>

#include "kernels/base/log.h"
#include "server/api_error.h"

namespace lutra::server {
namespace {

AppOptions ForHost(AppOptions options, const std::string& host) {
  const bool loopback = host == "localhost" || host == "::1" || host.starts_with("127.");
  options.check_host = options.check_host && loopback;
  return options;
}

const char* TransportCode(int status) {
  switch (status) {
    case 408:
      return "request_timeout";
    case 413:
      return "request_too_large";
    case 415:
      return "unsupported_media_type";
    case 503:
      return "overloaded";
    default:
      return "bad_request";
  }
}

}  // namespace

LutraServer::LutraServer(ServerOptions options)
    : options_(std::move(options)),
      app_(ForHost(options_.app, options_.host)),
      http_(
          options_.http, [this](Exchange& e) { app_.Handle(e); },
          [](int status, const std::string& message) {
            return Dump(ApiError(status, message, "", TransportCode(status)).ToJson());
          }) {
  if (options_.models.empty()) Fail(ErrorCode::kInvalidArgument, "no model to serve");
  std::set<std::string> names;
  for (ModelSpec& m : options_.models) {
    if (m.alias.empty()) m.alias = DefaultAlias(m.engine.model_path);
    if (!names.insert(m.alias).second) {
      Fail(ErrorCode::kInvalidArgument, "two models are named '%s': give them different --alias",
           Printable(m.alias, 80).c_str());
    }
  }
  for (const std::string& key : options_.app.api_keys) {
    if (key.empty()) Fail(ErrorCode::kInvalidArgument, "an API key is empty");
  }
  app_.SetTransport(&http_.stats());
}

LutraServer::~LutraServer() { Stop(); }

int LutraServer::Start() {
  const int port = http_.Start(options_.host, options_.port);
  loading_ = true;
  loader_ = std::thread([this] {
    try {
      std::vector<std::unique_ptr<ServedModel>> models;
      for (const ModelSpec& spec : options_.models)
        models.push_back(std::make_unique<ServedModel>(spec));
      app_.SetModels(std::move(models));
    } catch (...) {
      load_error_ = std::current_exception();
    }
    loading_ = false;
  });
  return port;
}

void LutraServer::WaitReady() {
  if (loader_.joinable()) loader_.join();
  if (load_error_ != nullptr) std::rethrow_exception(load_error_);
}

void LutraServer::Stop() {
  if (stopped_) return;
  stopped_ = true;
  if (loader_.joinable()) loader_.join();
  app_.SetStopping();
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::milliseconds(static_cast<int64_t>(options_.drain_seconds * 1e3));
  for (const auto& m : app_.models()) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    m->scheduler().Drain(std::max(left, std::chrono::milliseconds(0)));
  }
  // Streams that go on are told so, and what was generated gets a moment to be written.
  for (const auto& m : app_.models()) m->scheduler().CancelAll();
  http_.Stop(2);
}

}  // namespace lutra::server
