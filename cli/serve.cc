// `lutra serve`: an OpenAI-compatible HTTP server.
#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iterator>

#include "cli/args.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/sampling_options.h"
#include "kernels/base/log.h"
#include "server/server.h"

namespace lutra::cli {
namespace {

void LogLine(LogLevel level, const std::string& line) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  char time[32];
  std::strftime(time, sizeof(time), "%Y-%m-%d %H:%M:%S", &local);
  const char* word = level == LogLevel::kError     ? "error: "
                     : level == LogLevel::kWarning ? "warning: "
                                                   : "";
  std::fprintf(stderr, "%s %s%s\n", time, word, line.c_str());
}

// Lines of a file that are not empty and no comment.
std::vector<std::string> ReadKeys(const std::string& path) {
  std::ifstream in(path);
  if (!in)
    Fail(ErrorCode::kNotFound, "%s: cannot open the file of API keys",
         Printable(path, 400).c_str());
  std::vector<std::string> keys;
  std::string line;
  while (std::getline(in, line)) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty() && line[0] != '#') keys.push_back(line);
  }
  if (keys.empty())
    Fail(ErrorCode::kInvalidArgument, "%s: holds no API key", Printable(path, 400).c_str());
  return keys;
}

// A connection is a file: as many as the system lets us have.
void RaiseFileLimit() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// "ALIAS=FILE" or "FILE".
server::ModelSpec ParseModel(const std::string& text) {
  server::ModelSpec spec;
  const size_t at = text.find('=');
  // A path that exists as it is may hold '='.
  const bool whole = at == std::string::npos || ::access(text.c_str(), R_OK) == 0;
  if (!whole) spec.alias = text.substr(0, at);
  spec.engine.model_path = whole ? text : text.substr(at + 1);
  return spec;
}

// Every option can be set by LUTRA_ and its long name in capitals.
void NameInEnvironment(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (!option->get_envname().empty() || option->get_lnames().empty() ||
        option == app.get_help_ptr())
      continue;
    std::string name = "LUTRA_";
    for (const char c : option->get_lnames()[0])
      name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    option->envname(name);
  }
}

}  // namespace

int RunServe(int argc, char** argv) {
  CLI::App app(
      "Serves models over HTTP as OpenAI's API does, with a chat page at /. SIGTERM and Ctrl-C end "
      "it; what is being generated may finish.");
  ModelOptions shared;
  std::vector<std::string> models, aliases, key_list;
  std::string key_file, template_file;
  server::ServerOptions options;
  server::ModelSpec common;
  uint64_t kv_tokens = 0;
  double slice_ms = common.scheduler.slice_seconds * 1e3;
  bool no_slots = false, verbose = false;
  shared.kv_type =
      "q8";  // half the memory and traffic for an error below that of 8-bit weights: docs/kernels.md
  AddModelOptions(app, &shared, /*many=*/&models);
  app.add_option("-a,--alias", aliases, "name of the model in requests, in the order of -m")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_option("--host", options.host, "address to listen on")
      ->type_name("ADDRESS")
      ->capture_default_str();
  app.add_option("--port", options.port, "port to listen on; 0 takes a free one and prints it")
      ->type_name("N")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("-n,--slots,--parallel", common.scheduler.max_sequences,
                 "sequences computed at the same time")
      ->type_name("N")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--queue", common.scheduler.max_queued, "sequences that may wait; beyond it 429")
      ->type_name("N")
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  app.add_option("--kv-tokens", kv_tokens,
                 "positions all KV caches hold together; 0: enough for every slot's full context")
      ->type_name("N");
  app.add_option("--slice-ms", slice_ms,
                 "time a step may spend on prompts while answers are being generated")
      ->type_name("MS")
      ->check(CLI::Range(1.0, 60000.0))
      ->capture_default_str();
  app.add_option("--prefix-cache", common.scheduler.prefix_cache_share,
                 "share of the KV memory that may hold prefixes of earlier requests")
      ->type_name("0..1")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--api-key", key_list, "key that requests must bring (repeatable)")
      ->type_name("KEY")
      ->delimiter(',');
  app.add_option("--api-key-file", key_file, "file with one key a line")->type_name("FILE");
  app.add_option("--cors", options.app.cors_origins,
                 "origin whose pages may ask, or * (repeatable)")
      ->type_name("ORIGIN")
      ->delimiter(',');
  app.add_option("--allowed-host", options.app.allowed_hosts,
                 "Host name taken beside loopback names, or * (repeatable)")
      ->type_name("NAME")
      ->delimiter(',');
  app.add_option("--chat-template-file", template_file, "Jinja template instead of the model's own")
      ->type_name("FILE");
  app.add_option("--drain", options.drain_seconds, "seconds that answers may go on after SIGTERM")
      ->type_name("S")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app.add_option("--ping", options.app.ping_seconds,
                 "seconds after which a silent stream gets a comment")
      ->type_name("S")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_flag("--no-slots", no_slots, "turns /slots and /props off");
  app.add_flag("--strict", options.app.strict_fields,
               "refuses requests with fields that are not known");
  app.add_flag("-v,--verbose", verbose, "logs every request, /health too");
  AddSamplingOptions(app, &common.sampling);
  NameInEnvironment(app);
  if (const auto status = ParseArgs(app, argc, argv)) return *status;

  if (models.empty()) models.push_back(DemoModelPath());
  if (aliases.size() > models.size())
    Fail(ErrorCode::kInvalidArgument, "--alias: %zu names for %zu models", aliases.size(),
         models.size());
  options.app.api_keys = key_list;
  if (!key_file.empty()) {
    for (std::string& key : ReadKeys(key_file)) options.app.api_keys.push_back(std::move(key));
  }
  options.app.expose_slots = !no_slots;
  common.scheduler.slice_seconds = slice_ms / 1e3;
  if (!template_file.empty()) {
    std::ifstream in(template_file, std::ios::binary);
    if (!in)
      Fail(ErrorCode::kNotFound, "%s: cannot open the chat template",
           Printable(template_file, 400).c_str());
    common.chat_template.assign(std::istreambuf_iterator<char>(in), {});
  }
  for (size_t i = 0; i < models.size(); ++i) {
    server::ModelSpec spec = ParseModel(models[i]);
    if (i < aliases.size()) spec.alias = aliases[i];
    spec.scheduler = common.scheduler;
    spec.chat_template = common.chat_template;
    spec.sampling = common.sampling;
    ApplyModelOptions(shared, &spec.engine);
    const GgufFile file = GgufFile::Open(spec.engine.model_path);
    ApplyModelAdvice(file, app, &spec.sampling);
    const Hparams h = ReadHparams(file);
    const uint32_t n_ctx =
        spec.engine.n_ctx != 0 ? spec.engine.n_ctx : std::min(h.n_ctx_train, kDefaultContext);
    spec.engine.kv_tokens =
        kv_tokens != 0 ? kv_tokens : uint64_t{n_ctx} * spec.scheduler.max_sequences;
    options.models.push_back(std::move(spec));
  }

  SetLogSink(LogLine);
  SetLogLevel(shared.quiet ? LogLevel::kWarning : verbose ? LogLevel::kDebug : LogLevel::kInfo);
  // The signals are taken by this thread alone, when it waits for them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const int signal_fd = ::signalfd(-1, &signals, SFD_CLOEXEC);

  RaiseFileLimit();
  server::LutraServer server(options);
  const int port = server.Start();
  std::printf("listening on http://%s:%d\n", options.host.c_str(), port);
  std::fflush(stdout);
  // A signal while models are loading ends the process at once: there is nothing to finish.
  while (server.loading()) {
    struct pollfd waiting = {signal_fd, POLLIN, 0};
    if (::poll(&waiting, 1, 50) > 0) ::_exit(kExitInterrupted);
  }
  server.WaitReady();
  for (const auto& m : server.app().models()) {
    Log(LogLevel::kInfo, "%s: %s; loaded in %.2f s; %s; %zu slots; %s", m->name().c_str(),
        m->engine().hparams().arch->name, m->engine().load_seconds(),
        m->engine().thread_reason().c_str(), m->scheduler().options().max_sequences,
        m->engine().plan().Text().c_str());
  }
  Log(LogLevel::kInfo, "ready");
  signalfd_siginfo info{};
  while (::read(signal_fd, &info, sizeof(info)) < 0 && errno == EINTR) {
  }
  Log(LogLevel::kInfo, "ending; what is being generated may go on for %.0f s",
      options.drain_seconds);
  // A second signal ends at once.
  ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  server.Stop();
  ::close(signal_fd);
  return kExitOk;
}

}  // namespace lutra::cli
