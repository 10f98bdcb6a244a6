// `lutra run`: one completion, or one answer of a chat, then the end.
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/args.h"
#include "cli/command.h"
#include "cli/conversation.h"
#include "cli/interrupt.h"
#include "cli/model_options.h"
#include "cli/sampling_options.h"
#include "cli/status.h"
#include "cli/text_input.h"
#include "engine/generate.h"
#include "kernels/base/utf8.h"

namespace lutra::cli {
namespace {

// The prompt from -p, -f or standard input, whichever was given.
std::string ReadPrompt(const std::string& text, bool has_text, const std::string& path) {
  if (has_text && text != "-") return text;
  return ReadTextFile(path.empty() ? "-" : path, "prompt file");
}

nlohmann::ordered_json ToJson(const Generation& g, const Engine& engine) {
  nlohmann::ordered_json json;
  const auto name = engine.model().file().GetString("general.name");
  json["model"] = name ? Utf8Sanitize(*name) : "";
  json["text"] = g.text;
  json["finish_reason"] = FinishReasonName(g.finish);
  json["seed"] = g.seed;
  json["usage"] = {{"prompt_tokens", g.prompt_tokens},
                   {"cached_tokens", g.cached_tokens},
                   {"completion_tokens", g.tokens.size()},
                   {"total_tokens", g.prompt_tokens + g.tokens.size()}};
  json["timings"] = {
      {"load_ms", engine.load_seconds() * 1e3}, {"prompt_ms", g.prompt_seconds * 1e3},
      {"prompt_per_second", g.prompt_rate()},   {"ttft_ms", g.first_token_seconds * 1e3},
      {"decode_ms", g.decode_seconds * 1e3},    {"decode_per_second", g.decode_rate()}};
  return json;
}

}  // namespace

int RunRun(int argc, char** argv) {
  CLI::App app(
      "Completes a text, or with --chat answers one message. Only the answer goes to standard "
      "output.");
  ModelOptions model;
  GenerateOptions options;
  std::string prompt_text, prompt_file, positional, system;
  bool chat = false, json = false;
  model.kv_type =
      "q8";  // half the memory and traffic for an error below that of 8-bit weights: docs/kernels.md
  AddModelOptions(app, &model);
  auto* p = app.add_option("-p,--prompt", prompt_text, "the prompt; - reads standard input")
                ->type_name("TEXT");
  auto* f =
      app.add_option("-f,--file", prompt_file, "file that holds the prompt; - reads standard input")
          ->type_name("FILE");
  app.add_option("stdin", positional, "- reads the prompt from standard input")
      ->check(CLI::IsMember({"-"}))
      ->type_name("-");
  p->excludes(f);
  app.add_option("-n,--max-tokens,--predict", options.max_tokens,
                 "most tokens to generate; 0: until the end or a full context")
      ->type_name("N");
  app.add_flag("--chat", chat, "the prompt is a user's message: use the model's chat template");
  app.add_option("-s,--system", system, "system message, with --chat")->type_name("TEXT");
  app.add_option("--stop", options.stop, "text that ends the answer (repeatable)")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  app.add_flag("--special", options.special, "show control tokens in the answer");
  app.add_flag("--json", json, "print one JSON object: text, finish_reason, usage, timings");
  AddSamplingOptions(app, &options.sampling);
  if (const auto status = ParseArgs(app, argc, argv)) return *status;
  if (p->count() == 0 && f->count() == 0 && positional.empty() && isatty(STDIN_FILENO)) {
    Fail(ErrorCode::kInvalidArgument,
         "no prompt: give one with -p TEXT, -f FILE or - for standard input");
  }
  if (!system.empty() && !chat) Fail(ErrorCode::kInvalidArgument, "--system: needs --chat");
  const std::string prompt = ReadPrompt(prompt_text, p->count() > 0, prompt_file);
  if (prompt.empty()) Fail(ErrorCode::kInvalidArgument, "the prompt is empty");

  const bool terminal = isatty(STDOUT_FILENO);
  if (!terminal && !isatty(STDERR_FILENO)) model.quiet = true;
  const auto engine = LoadEngine(model);
  ApplyModelAdvice(engine->model().file(), app, &options.sampling);
  options.cancel = &InterruptFlag();
  if (!json) {
    options.on_text = [](std::string_view text) {
      return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
             std::fflush(stdout) == 0;
    };
  }
  Session session(*engine);
  Generation result;
  if (chat) {
    Conversation conversation(*engine, session);
    conversation.SetSystem(system);
    result = conversation.Ask(prompt, options);
  } else {
    const std::vector<int32_t> tokens = engine->tokenizer().Encode(prompt, true, true);
    result = Generate(*engine, session, tokens, options);
  }
  if (json) {
    std::printf("%s\n", ToJson(result, *engine)
                            .dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
                            .c_str());
  } else if (terminal && !result.text.ends_with('\n')) {
    std::printf("\n");
  }
  if (!model.quiet) std::fprintf(stderr, "%s\n", StatusLine(result, session, *engine).c_str());
  return FinishOutput(
      result.finish == FinishReason::kCancelled && InterruptFlag() ? kExitInterrupted : kExitOk);
}

}  // namespace lutra::cli
