#include "server/app.h"

#include <algorithm>

#include "kernels/base/log.h"
#include "kernels/base/utf8.h"
#include "server/api_error.h"
#include "server/limits.h"

namespace lutra::server {
namespace {

constexpr size_t kMaxNameBytesShown = 60;
constexpr size_t kMaxUnknownLogged = 1000;  // names; clients cannot fill the log or the memory

// True if `given` is one of the keys. Time depends on the lengths only: every byte of every key is looked at.
int FindKey(const std::vector<std::string>& keys, const std::string& given) {
  int found = -1;
  for (size_t k = 0; k < keys.size(); ++k) {
    const std::string& key = keys[k];
    unsigned difference = key.size() == given.size() ? 0 : 1;
    for (size_t i = 0; i < key.size(); ++i) {
      const char g = given.empty() ? '\0' : given[i % given.size()];
      difference |= static_cast<unsigned char>(key[i] ^ g);
    }
    if (difference == 0) found = static_cast<int>(k);
  }
  return found;
}

std::string Credentials(const httplib::Request& request) {
  const std::string header = request.get_header_value("Authorization");
  constexpr std::string_view kBearer = "Bearer ";
  if (header.size() > kBearer.size() &&
      std::equal(kBearer.begin(), kBearer.end(), header.begin(), [](char a, char b) {
        return std::tolower(static_cast<unsigned char>(a)) ==
               std::tolower(static_cast<unsigned char>(b));
      })) {
    return header.substr(kBearer.size());
  }
  return request.get_header_value("x-api-key");
}

// The name in a Host header, without the port.
std::string HostName(std::string host) {
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

bool IsLoopback(const std::string& name) {
  return name == "localhost" || name.ends_with(".localhost") || name == "[::1]" ||
         name == "127.0.0.1" ||
         (name.starts_with("127.") && name.find_first_not_of("0123456789.") == std::string::npos);
}

constexpr char kCorsHeaders[] =
    "Authorization, Content-Type, Accept, X-Api-Key, X-Request-Id, OpenAI-Organization, "
    "OpenAI-Project, OpenAI-Beta, User-Agent, "
    "X-Stainless-Lang, X-Stainless-Package-Version, X-Stainless-OS, X-Stainless-Arch, "
    "X-Stainless-Runtime, "
    "X-Stainless-Runtime-Version, X-Stainless-Retry-Count, X-Stainless-Timeout, X-Stainless-Async, "
    "X-Stainless-Helper-Method, "
    "X-Stainless-Poll-Helper, X-Stainless-Custom-Poll-Interval, X-Stainless-Read-Timeout";

bool Matches(const Route& route, const std::string& path) {
  return route.prefix
             ? path.starts_with(route.path) && path.size() > std::string_view(route.path).size()
             : path == route.path;
}

}  // namespace

std::string Call::client(const std::string& user) const {
  return scope() + "/" + exchange.request.remote_addr + "/" + user.substr(0, 64);
}

ApiError Cancelled(const Exchange& exchange) {
  if (exchange.client_gone())
    return ApiError(499, "the client went away", "", "client_closed_request");
  return ApiError(503, "the server is shutting down", "", "shutting_down");
}

void Reply(Call& call, int status, const Json& json) {
  call.response().status = status;
  call.response().set_content(Dump(json), "application/json");
}

App::App(AppOptions options) : options_(std::move(options)) {
  // The parser of heads decodes the values of headers.
  for (std::string& key : options_.api_keys) key = httplib::detail::decode_url(key, false);
}

void App::SetModels(std::vector<std::unique_ptr<ServedModel>> models) {
  models_ = std::move(models);
  ready_ = true;
}

ServedModel& App::Model(const std::string& name) const {
  if (name.empty()) return *models_[0];
  std::string names;
  for (const auto& m : models_) {
    if (m->name() == name) return *m;
    names += (names.empty() ? "" : ", ") + m->name();
  }
  throw ApiError(404,
                 "The model '" + Printable(name, 100) + "' does not exist; there are: " + names,
                 "model", "model_not_found");
}

std::string HeaderNames(std::span<const std::string> names) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMaxNamesShown); ++i) {
    if (i > 0) text += ", ";
    for (const char c : names[i].substr(0, kMaxNameBytesShown)) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         (c >= '0' && c <= '9') ||
                         std::string_view("_-.~/$#[]").find(c) != std::string_view::npos;
      text += plain ? std::string(1, c) : Format("%%%02X", static_cast<unsigned char>(c));
    }
  }
  return text;
}

Params App::Read(Call& call, Endpoint endpoint) {
  const Json body = ParseJson(call.exchange.body);
  const Params params =
      ReadParams(body, endpoint,
                 body.is_object() && body.contains("model") && body["model"].is_string()
                     ? Model(body["model"]).sampling()
                     : models_[0]->sampling());
  if (options_.strict_fields && !params.unknown.empty()) {
    throw ApiError(400, "field '" + Printable(params.unknown[0], 60) + "' is not known",
                   Utf8Sanitize(params.unknown[0].substr(0, 60)), "unknown_field");
  }
  std::vector<std::string> names = params.ignored;
  for (const std::string& name : params.unknown) {
    names.push_back(name);
    const std::lock_guard lock(unknown_mutex_);
    if (unknown_.size() < kMaxUnknownLogged && unknown_[name]++ == 0) {
      lutra::Log(LogLevel::kInfo, "a request has a field '%s' that is not known; it is ignored",
                 Printable(name, 60).c_str());
    }
  }
  const std::string header = HeaderNames(names);
  if (!header.empty()) call.response().set_header("x-ignored-params", header);
  return params;
}

bool App::Preflight(Exchange& exchange, const std::string& origin) {
  const auto& allowed = options_.cors_origins;
  const bool any = std::find(allowed.begin(), allowed.end(), "*") != allowed.end();
  const auto it = std::find(allowed.begin(), allowed.end(), origin);
  httplib::Response& r = exchange.response;
  if (origin.empty() || (!any && it == allowed.end())) return false;
  // Never bytes of the request: the listed origin itself, or the star.
  r.set_header("Access-Control-Allow-Origin", any ? "*" : *it);
  if (!any) r.set_header("Vary", "Origin");
  r.set_header("Access-Control-Expose-Headers",
               "x-request-id, x-ignored-params, x-relaxed-tools, x-relaxed-schema, retry-after");
  if (exchange.request.method != "OPTIONS") return true;
  r.set_header("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
  r.set_header("Access-Control-Allow-Headers", kCorsHeaders);
  r.set_header("Access-Control-Max-Age", "86400");
  return true;
}

// Throws ApiError if the request may not go on.
void App::Guard(Call& call, const Route* route) {
  const httplib::Request& request = call.exchange.request;
  const std::string host = HostName(request.get_header_value("Host"));
  const auto& hosts = options_.allowed_hosts;
  if (options_.check_host && !host.empty() && !IsLoopback(host) &&
      std::find(hosts.begin(), hosts.end(), host) == hosts.end() &&
      std::find(hosts.begin(), hosts.end(), "*") == hosts.end()) {
    throw ApiError(403,
                   "the Host '" + Printable(host, 100) + "' is not this server; see --allowed-host",
                   "", "host_not_allowed");
  }
  if (route->needs_key && !options_.api_keys.empty()) {
    call.key = FindKey(options_.api_keys, Credentials(request));
    if (call.key < 0) {
      call.response().set_header("WWW-Authenticate", "Bearer");
      throw ApiError(401, "Incorrect API key provided: send one as 'Authorization: Bearer KEY'", "",
                     "invalid_api_key");
    }
  }
  if (request.method == "POST" && request.has_header("Origin")) {
    // What a page may send without asking first must be JSON, so that no page can make the model work behind its user's back.
    const std::string type = request.get_header_value("Content-Type");
    if (!type.starts_with("application/json")) {
      throw ApiError(415,
                     "the Content-Type is '" + Printable(type, 60) + "'; it takes application/json",
                     "", "unsupported_media_type");
    }
  }
  if (route->needs_model && !ready_) throw ApiError(503, "Loading model", "", "model_loading");
  if (route->needs_model && stopping_)
    throw ApiError(503, "the server is shutting down", "", "shutting_down");
}

void App::Handle(Exchange& exchange) {
  Call call{*this, exchange, NewId("req_")};
  httplib::Response& response = exchange.response;
  response.set_header("x-request-id", call.request_id);
  response.set_header("Server", Fingerprint());
  const std::string& path = exchange.request.path;
  try {
    const bool cors = Preflight(exchange, exchange.request.get_header_value("Origin"));
    const std::string method = exchange.request.method == "HEAD" ? "GET" : exchange.request.method;
    const Route* found = nullptr;
    std::string methods;
    for (const Route& r : Routes()) {
      if (!Matches(r, path)) continue;
      methods += (methods.empty() ? "" : ", ") + std::string(r.method);
      if (method == r.method) found = &r;
    }
    if (method == "OPTIONS" && !methods.empty()) {
      response.status = 200;  // not 204, which may have no Content-Length
      if (!cors) response.set_header("Allow", methods + ", OPTIONS");
      Log(call, 200);
      return;
    }
    if (found == nullptr && methods.empty()) {
      throw ApiError(404, "there is nothing at " + Printable(path, 100), "", "not_found");
    }
    if (found == nullptr) {
      response.set_header("Allow", methods + ", OPTIONS");
      throw ApiError(405,
                     exchange.request.method + " is not allowed at " + Printable(path, 100) +
                         "; it takes " + methods,
                     "", "method_not_allowed");
    }
    Guard(call, found);
    found->run(call);
    if (response.content_provider_ == nullptr) Log(call, response.status);
  } catch (...) {
    const ApiError error = CurrentError();
    if (error.status() == 429) response.set_header("Retry-After", "1");
    if (error.status() == 503) response.set_header("Retry-After", "2");
    Reply(call, error.status(), error.ToJson());
    Log(call, error.status());
  }
}

void App::Log(const Call& call, int status) {
  const httplib::Request& q = call.exchange.request;
  std::string known = "other";
  for (const Route& r : Routes()) {
    if (Matches(r, q.path)) known = r.path;
  }
  {
    const std::lock_guard lock(counts_mutex_);
    ++counts_[{known, status}];
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - call.start).count();
  std::string tokens;
  if (call.numbers.usage.prompt_tokens > 0) {
    tokens = Format(
        ", prompt %zu (cached %zu), generated %zu, queue %.3f s, prompt %.3f s, decode %.3f s",
        call.numbers.usage.prompt_tokens, call.numbers.usage.cached_tokens,
        call.numbers.usage.completion_tokens, call.numbers.queue_seconds,
        call.numbers.prompt_seconds, call.numbers.decode_seconds);
  }
  lutra::Log(known == "/health" || known == "/metrics" ? LogLevel::kDebug : LogLevel::kInfo,
             "%s %s %s %s %d in %.3f s%s", call.request_id.c_str(), q.remote_addr.c_str(),
             q.method.c_str(), Printable(q.path, 100).c_str(), status, seconds, tokens.c_str());
}

std::string App::MetricsText() const {
  std::string out;
  const auto metric = [&](const char* name, const char* type, const char* help, double value,
                          const std::string& labels = "") {
    if (*help != '\0')
      out += Format("# HELP lutra_%s %s\n# TYPE lutra_%s %s\n", name, help, name, type);
    out += Format("lutra_%s%s %.17g\n", name, labels.c_str(), value);
  };
  {
    const std::lock_guard lock(counts_mutex_);
    const char* help = "HTTP requests by path and status";
    for (const auto& [key, n] : counts_) {
      metric("http_requests_total", "counter", help, static_cast<double>(n),
             Format("{path=\"%s\",status=\"%d\"}", key.first.c_str(), key.second));
      help = "";
    }
  }
  if (transport_ != nullptr) {
    metric("connections_open", "gauge", "open connections", static_cast<double>(transport_->open));
    metric("connections_total", "counter", "connections accepted",
           static_cast<double>(transport_->connections));
    metric("connections_timed_out_total", "counter", "connections closed for slowness",
           static_cast<double>(transport_->timeouts));
    metric("http_refused_total", "counter", "requests refused by the transport",
           static_cast<double>(transport_->refused));
    metric("http_workers_busy", "gauge", "requests being handled",
           static_cast<double>(transport_->busy_workers));
  }
  if (!ready_) return out;
  struct Row {
    const char* name;
    const char* type;
    const char* help;
    double (*value)(const SchedulerStats&);
  };
  static constexpr Row kRows[] = {
      {"sequences_total", "counter", "sequences accepted",
       [](const SchedulerStats& s) { return static_cast<double>(s.requests); }},
      {"sequences_finished_total", "counter", "sequences that came to their end",
       [](const SchedulerStats& s) { return static_cast<double>(s.finished); }},
      {"sequences_cancelled_total", "counter", "sequences whose client went away",
       [](const SchedulerStats& s) { return static_cast<double>(s.cancelled); }},
      {"sequences_failed_total", "counter", "sequences ended by an error",
       [](const SchedulerStats& s) { return static_cast<double>(s.failed); }},
      {"sequences_interrupted_total", "counter", "times a sequence gave its memory to another",
       [](const SchedulerStats& s) { return static_cast<double>(s.preemptions); }},
      {"sequences_running", "gauge", "sequences being computed",
       [](const SchedulerStats& s) { return static_cast<double>(s.running); }},
      {"sequences_queued", "gauge", "sequences waiting",
       [](const SchedulerStats& s) { return static_cast<double>(s.queued); }},
      {"prompt_tokens_total", "counter", "prompt tokens of ended sequences",
       [](const SchedulerStats& s) { return static_cast<double>(s.prompt_tokens); }},
      {"prompt_tokens_cached_total", "counter", "of which were known already",
       [](const SchedulerStats& s) { return static_cast<double>(s.cached_tokens); }},
      {"generated_tokens_total", "counter", "tokens generated by ended sequences",
       [](const SchedulerStats& s) { return static_cast<double>(s.generated_tokens); }},
      {"forced_tokens_total", "counter", "of which a grammar left no choice about",
       [](const SchedulerStats& s) { return static_cast<double>(s.forced_tokens); }},
      {"steps_total", "counter", "forward passes",
       [](const SchedulerStats& s) { return static_cast<double>(s.steps); }},
      {"prompt_seconds_total", "counter", "time in forward passes with prompt tokens",
       [](const SchedulerStats& s) { return s.prompt_seconds; }},
      {"decode_seconds_total", "counter", "time in forward passes without",
       [](const SchedulerStats& s) { return s.decode_seconds; }},
      {"kv_pages", "gauge", "KV pages in all",
       [](const SchedulerStats& s) { return static_cast<double>(s.kv_pages); }},
      {"kv_pages_used", "gauge", "KV pages in use",
       [](const SchedulerStats& s) { return static_cast<double>(s.kv_pages_used); }},
      {"kv_pages_cached", "gauge", "KV pages of known prefixes",
       [](const SchedulerStats& s) { return static_cast<double>(s.kv_pages_cached); }},
  };
  for (const Row& row : kRows) {
    const char* help = row.help;
    for (const auto& m : models_) {
      std::string label;
      for (const char c : Utf8Sanitize(m->name()))
        label += c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20 ? '_' : c;
      metric(row.name, row.type, help, row.value(m->scheduler().stats()),
             "{model=\"" + label + "\"}");
      help = "";
    }
  }
  return out;
}

}  // namespace lutra::server
