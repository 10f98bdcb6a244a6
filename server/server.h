// The server as a whole: what `lutra serve` starts, and tests too, on port 0.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/app.h"

namespace lutra::server {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;  // 0: a free one
  HttpLimits http;
  AppOptions app;
  std::vector<ModelSpec> models;  // at least one; names must differ
  double drain_seconds = 10;      // Stop() lets what is being generated go on for so long
};

class LutraServer {
 public:
  // Throws Error(kInvalidArgument) for options that contradict each other.
  explicit LutraServer(ServerOptions options);
  ~LutraServer();

  // Listens (at once; /health says 503 while models are loading) and begins to load. Returns the port. Throws Error(kIo).
  int Start();
  bool loading() const { return loading_; }
  // Waits for the models; throws what loading one threw.
  void WaitReady();
  // Finishes what is being generated within drain_seconds, then cancels; returns when all threads have ended.
  void Stop();

  App& app() { return app_; }
  HttpServer& http() { return http_; }

 private:
  ServerOptions options_;
  App app_;
  HttpServer http_;
  std::thread loader_;
  std::exception_ptr load_error_;
  std::atomic<bool> loading_{false};
  bool stopped_ = false;
};

}  // namespace lutra::server
