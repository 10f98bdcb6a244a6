// /v1/chat/completions and /v1/completions.
#include <algorithm>

#include "server/api_error.h"
#include "server/constrain.h"
#include "server/limits.h"
#include "server/prompt.h"
#include "server/routes.h"
#include "server/text_job.h"
#include "server/tool_syntax.h"

namespace lutra::server {
namespace {

std::vector<std::string> Stops(const Json& stop) {
  std::vector<std::string> out;
  const std::string takes = "a non-empty string of at most " + std::to_string(kMaxStopBytesEach) +
                            " bytes, or a list of at most " + std::to_string(kMaxStops);
  const auto add = [&](const Json& s) {
    if (!s.is_string() || s.get_ref<const std::string&>().empty() ||
        s.get_ref<const std::string&>().size() > kMaxStopBytesEach) {
      throw ApiError(400, "field 'stop' is " + ShowJson(s) + "; it takes " + takes, "stop",
                     "invalid_value");
    }
    out.push_back(s);
  };
  if (stop.is_array()) {
    if (stop.size() > kMaxStops)
      throw ApiError(
          400, Format("field 'stop' has %zu entries; it takes %s", stop.size(), takes.c_str()),
          "stop", "invalid_value");
    for (const Json& s : stop) add(s);
  } else if (!stop.is_null()) {
    add(stop);
  }
  return out;
}

bool IncludeUsage(const Json& options) {
  if (!options.is_object()) return false;
  const auto it = options.find("include_usage");
  if (it == options.end() || it->is_null()) return false;
  if (!it->is_boolean()) {
    throw ApiError(
        400,
        "field 'stream_options.include_usage' is " + ShowJson(*it) + "; it takes true or false",
        "stream_options.include_usage", "invalid_value");
  }
  return it->get<bool>();
}

void CheckBiases(const Params& params, const ServedModel& model) {
  for (const LogitBias& b : params.sampling.logit_bias) {
    if (!model.tokenizer().IsValid(b.token)) {
      throw ApiError(400,
                     Format("field 'logit_bias' names token %d; the vocabulary has the ids 0 to %d",
                            b.token, model.tokenizer().n_vocab() - 1),
                     "logit_bias", "invalid_value");
    }
  }
}

// What chat and completions have in common.
std::shared_ptr<TextJob> NewJob(Call& call, Params params, const ServedModel& model, bool chat) {
  auto job = std::make_shared<TextJob>(TextJob{call, std::move(params)});
  job->chat = chat;
  job->head.id = NewId(chat ? "chatcmpl-" : "cmpl-");
  job->head.object = !chat                ? "text_completion"
                     : job->params.stream ? "chat.completion.chunk"
                                          : "chat.completion";
  job->head.model = model.name();
  job->head.created = static_cast<int64_t>(std::time(nullptr));
  job->include_usage = IncludeUsage(job->params.stream_options);
  CheckBiases(job->params, model);
  return job;
}

SequenceRequest NewRequest(const TextJob& job, std::vector<int32_t> prompt) {
  SequenceRequest r;
  r.prompt = std::move(prompt);
  r.sampling = job.params.sampling;
  r.stop = Stops(job.params.stop);
  r.special = job.params.special;
  r.scope = job.call.scope();
  r.use_prefixes = job.params.cache_prompt;
  r.client = job.call.client(job.params.user);
  if (job.params.max_tokens >= 0) r.max_tokens = static_cast<size_t>(job.params.max_tokens);
  if (job.params.max_completion_tokens >= 0)
    r.max_tokens = static_cast<size_t>(job.params.max_completion_tokens);
  return r;
}

// A seed gives each answer of a request another text, and the same ones each time.
void AddChoices(const TextJob& job, const SequenceRequest& request,
                const ConstraintMaker& constraint, std::vector<SequenceRequest>* requests) {
  for (int64_t k = 0; k < job.params.n; ++k) {
    requests->push_back(request);
    SequenceRequest& r = requests->back();
    if (r.sampling.seed != kRandomSeed) r.sampling.seed += static_cast<uint32_t>(k);
    if (r.sampling.seed == kRandomSeed && k > 0) r.sampling.seed = static_cast<uint32_t>(k);
    if (job.params.sampling.seed == kRandomSeed) r.sampling.seed = kRandomSeed;
    if (constraint) r.constraint = constraint();
  }
}

// Control tokens that are part of what the parser looks for, and so appear in the text.
std::vector<int32_t> RenderedMarks(const OutputFormat& format, const Tokenizer& tokenizer) {
  std::vector<std::string> marks = {format.reasoning.start, format.reasoning.end};
  if (format.syntax != nullptr) {
    for (const char* mark : FormatMarks()) marks.push_back(mark);
  }
  std::vector<int32_t> ids;
  for (const std::string& mark : marks) {
    const int32_t id = mark.empty() ? kNoToken : tokenizer.FindToken(mark);
    if (id != kNoToken) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

void TellRelaxedSchema(Call& call, const AnswerForm& form) {
  const std::string places = HeaderNames(form.relaxed_schema);
  if (!places.empty()) call.response().set_header("x-relaxed-schema", places);
}

}  // namespace

void ChatCompletions(Call& call) {
  Params params = call.app.Read(call, kChat);
  ServedModel& model = call.app.Model(params.model);
  if (params.messages.is_null())
    throw ApiError(400, "field 'messages' is missing; it takes a list of messages", "messages",
                   "missing_field");
  if (params.max_tokens == 0)
    throw ApiError(400, "field 'max_tokens' is 0; it takes an integer from 1 to 2147483647",
                   "max_tokens", "invalid_value");
  if (params.top_logprobs > 0 && !params.logprobs) {
    throw ApiError(400, "field 'top_logprobs' needs 'logprobs': true", "top_logprobs",
                   "invalid_value");
  }
  const auto job = NewJob(call, std::move(params), model, true);
  const ToolPlan tools = PlanTools(job->params, model);
  Params for_prompt = job->params;
  for_prompt.tools = tools.shown;
  const ChatPrompt prompt = MakeChatPrompt(for_prompt, model);
  CheckContext(prompt.tokens.size(), 1, model, "messages");

  OutputFormat format;
  if (job->params.reasoning_format == "auto") format.reasoning = model.chat_template().reasoning();
  format.in_thought = prompt.in_thought;
  const AnswerForm form = PlanAnswer(job->params, tools, std::move(format), model);
  const std::string relaxed = HeaderNames(form.relaxed);
  if (!relaxed.empty()) call.response().set_header("x-relaxed-tools", relaxed);
  TellRelaxedSchema(call, form);
  SequenceRequest request = NewRequest(*job, prompt.tokens);
  request.rendered = RenderedMarks(form.format, model.tokenizer());
  if (job->params.logprobs) request.top_logprobs = static_cast<int>(job->params.top_logprobs);
  job->logprobs = job->params.logprobs;
  job->prompt_tokens = {prompt.tokens.size()};
  for (int64_t k = 0; k < job->params.n; ++k) {
    job->choices.emplace_back();
    job->choices.back().parser.emplace(form.format);
  }
  std::vector<SequenceRequest> requests;
  AddChoices(*job, request, form.constraint, &requests);
  RunTextJob(call, job, model.scheduler(), std::move(requests));
}

void Completions(Call& call) {
  Params params = call.app.Read(call, kCompletions);
  ServedModel& model = call.app.Model(params.model);
  if (!params.suffix.empty()) {
    throw ApiError(400, "field 'suffix' is not supported; leave it out", "suffix",
                   "unsupported_value");
  }
  const auto job = NewJob(call, std::move(params), model, false);
  const Json& value = job->params.prompt;
  const std::vector<std::vector<int32_t>> prompts =
      MakePrompts(value, "prompt", kMaxPrompts, model);
  const AnswerForm form = PlanAnswer(job->params, ToolPlan(), OutputFormat(), model);
  TellRelaxedSchema(call, form);
  std::vector<SequenceRequest> requests;
  for (size_t i = 0; i < prompts.size(); ++i) {
    SequenceRequest request = NewRequest(*job, prompts[i]);
    CheckContext(prompts[i].size(), request.max_tokens > 0 ? 1 : 0, model, "prompt");
    job->prompt_tokens.push_back(prompts[i].size());
    if (job->params.legacy_logprobs >= 0) {
      request.top_logprobs = static_cast<int>(job->params.legacy_logprobs);
      request.prompt_logprobs = job->params.echo;
      job->logprobs = true;
    }
    if (job->params.echo) {
      const Json& one = value.is_array() && !value[0].is_number() ? value[i] : value;
      job->echoes.push_back(one.is_string() ? one.get<std::string>()
                                            : model.tokenizer().Decode(prompts[i], false, true));
    }
    AddChoices(*job, request, form.constraint, &requests);
  }
  job->choices.resize(requests.size());
  RunTextJob(call, job, model.scheduler(), std::move(requests));
}

}  // namespace lutra::server
