// Requests to answers: who may ask, which route, which model. The routes themselves are in routes_*.cc.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "server/answer.h"
#include "server/api_error.h"
#include "server/http/http_server.h"
#include "server/params.h"
#include "server/served_model.h"

namespace lutra::server {

struct AppOptions {
  std::vector<std::string> api_keys;  // none: everybody may ask
  std::vector<std::string>
      cors_origins;  // "*" or origins such as https://example.org; none: no page may ask
  std::vector<std::string> allowed_hosts;  // Host names taken beside loopback ones; "*": any
  bool check_host = true;                  // set where the server listens on a loopback address
  bool expose_slots = true;                // /slots and /props
  bool strict_fields = false;  // unknown fields are a 400 instead of a note in x-ignored-params
  double ping_seconds = 5;     // a comment in a stream that is silent for so long
};

class App;

// A request on its way through a route.
struct Call {
  App& app;
  Exchange& exchange;
  std::string request_id;
  int key = -1;  // which API key, -1: none needed
  // For the log line.
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  struct Numbers {
    Usage usage;
    double queue_seconds = 0, prompt_seconds = 0, decode_seconds = 0;
  };
  Numbers numbers = {};

  std::string scope() const { return key < 0 ? "" : "key " + std::to_string(key); }
  std::string client(const std::string& user) const;
  httplib::Response& response() { return exchange.response; }
};

struct Route {
  const char* method;
  const char* path;  // "/v1/models/" with `prefix` also matches what is behind it
  bool prefix;
  bool needs_key;
  bool needs_model;  // 503 while models are loading
  void (*run)(Call&);
};
std::span<const Route> Routes();

// Names that clients chose as a header's value, percent-encoded, at most kMaxNamesShown.
std::string HeaderNames(std::span<const std::string> names);

// Thread-safe once models are set.
class App {
 public:
  explicit App(AppOptions options);

  // The transport's handler.
  void Handle(Exchange& exchange);

  // Models come when they are loaded, once.
  void SetModels(std::vector<std::unique_ptr<ServedModel>> models);
  bool ready() const { return ready_; }
  void SetStopping() { stopping_ = true; }
  bool stopping() const { return stopping_; }

  std::span<const std::unique_ptr<ServedModel>> models() const { return models_; }
  // By name, "": the first. Throws ApiError(404) listing the names.
  ServedModel& Model(const std::string& name) const;
  const AppOptions& options() const { return options_; }
  void SetTransport(const HttpStats* stats) { transport_ = stats; }
  std::string MetricsText() const;

  // Reads a JSON body against the table of fields and tells in a header what is not known or not honoured.
  Params Read(Call& call, Endpoint endpoint);
  // The answer is known: headers, metrics and the log line (for streams: at their end).
  void Log(const Call& call, int status);

 private:
  void Guard(Call& call, const Route* route);
  bool Preflight(Exchange& exchange, const std::string& origin);

  AppOptions options_;  // as given but for the keys; never changed later
  std::vector<std::unique_ptr<ServedModel>> models_;
  std::atomic<bool> ready_{false}, stopping_{false};
  const HttpStats* transport_ = nullptr;
  std::mutex unknown_mutex_;
  std::map<std::string, int> unknown_;  // fields already logged
  mutable std::mutex counts_mutex_;
  std::map<std::pair<std::string, int>, uint64_t> counts_;  // by path and status
};

// Why an answer was cancelled: its client went away (499, which nobody reads but the log), or the server is ending (503).
ApiError Cancelled(const Exchange& exchange);

// Puts JSON into an answer.
void Reply(Call& call, int status, const Json& json);

}  // namespace lutra::server
