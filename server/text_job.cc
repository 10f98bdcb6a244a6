#include "server/text_job.h"

#include <cmath>

#include "kernels/base/log.h"
#include "server/api_error.h"

namespace lutra::server {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// Takes an event into its choice; returns what is new of the output.
OutputDelta Take(TextJob::Choice& choice, SequenceEvent& event) {
  OutputDelta delta;
  if (choice.parser) {
    const bool thought = choice.parser->thinking();
    choice.parser->Feed(event.text, &delta);
    if (event.finished) choice.parser->Finish(&delta);
    if (thought) choice.reasoning_tokens += event.n_tokens;
  } else {
    delta.content = event.text;
  }
  if (event.finished) {
    choice.finished = true;
    choice.finish = event.finish;
    choice.stats = event.stats;
  }
  return delta;
}

void NoteEnd(TextJob& job) {
  job.call.numbers.usage = job.TotalUsage();
  for (const auto& c : job.choices) {
    job.call.numbers.queue_seconds =
        std::max(job.call.numbers.queue_seconds, c.stats.queue_seconds);
    job.call.numbers.prompt_seconds =
        std::max(job.call.numbers.prompt_seconds, c.stats.prompt_seconds);
    job.call.numbers.decode_seconds =
        std::max(job.call.numbers.decode_seconds, c.stats.decode_seconds);
  }
}

Json ChatChoice(const TextJob& job, size_t i) {
  const TextJob::Choice& c = job.choices[i];
  Json message = {{"role", "assistant"}};
  message["content"] = c.content.empty() && !c.calls.empty() ? Json(nullptr) : Json(c.content);
  message["refusal"] = nullptr;
  if (!c.reasoning.empty()) message["reasoning_content"] = c.reasoning;
  if (!c.calls.empty()) {
    message["tool_calls"] = Json::array();
    for (const CallDelta& call : c.calls) message["tool_calls"].push_back(CallJson(call));
  }
  return {{"index", i},
          {"message", std::move(message)},
          {"logprobs", job.logprobs ? ChatLogprobs(c.logprobs) : Json(nullptr)},
          {"finish_reason", FinishText(c.finish, !c.calls.empty())}};
}

Json CompletionChoice(TextJob& job, size_t i) {
  TextJob::Choice& c = job.choices[i];
  size_t offset = 0;
  const std::string echo = job.params.echo ? job.echoes[i / static_cast<size_t>(job.params.n)] : "";
  return {{"text", echo + c.content},
          {"index", i},
          {"logprobs", job.logprobs
                           ? LegacyLogprobs(c.logprobs, job.params.legacy_logprobs > 0, &offset)
                           : Json(nullptr)},
          {"finish_reason", FinishText(c.finish, false)}};
}

void AnswerWhole(TextJob& job) {
  Exchange& exchange = job.call.exchange;
  size_t i;
  SequenceEvent event;
  while (!job.run->finished()) {
    if (exchange.client_gone()) throw Cancelled(exchange);
    if (!job.run->Next(&i, &event, milliseconds(1000))) continue;
    if (event.error != nullptr) std::rethrow_exception(event.error);
    TextJob::Choice& c = job.choices[i];
    for (auto* list : {&event.prompt_logprobs, &event.logprobs}) {
      c.logprobs.insert(c.logprobs.end(), std::make_move_iterator(list->begin()),
                        std::make_move_iterator(list->end()));
    }
    const OutputDelta delta = Take(c, event);
    c.content += delta.content;
    c.reasoning += delta.reasoning;
    for (const CallDelta& call : delta.calls) {
      if (!call.id.empty())
        c.calls.push_back(call);
      else
        c.calls[call.index].arguments += call.arguments;
    }
    if (event.finished && event.finish == FinishReason::kCancelled) throw Cancelled(exchange);
  }
  NoteEnd(job);
  Json answer = StartAnswer(job.head);
  answer["choices"] = Json::array();
  for (size_t k = 0; k < job.choices.size(); ++k) {
    answer["choices"].push_back(job.chat ? ChatChoice(job, k) : CompletionChoice(job, k));
  }
  answer["usage"] = UsageJson(job.call.numbers.usage, job.chat);
  answer["timings"] = TimingsJson(job.choices[0].stats);
  Reply(job.call, 200, answer);
}

// Writes one answer as events. Lives as long as the connection writes.
class EventWriter {
 public:
  explicit EventWriter(std::shared_ptr<TextJob> job)
      : job_(std::move(job)), last_sent_(Clock::now()) {}
  ~EventWriter() {
    job_->run->Cancel();
    NoteEnd(*job_);
    job_->call.app.Log(job_->call, status_);
  }

  // Called again and again until it says done or fails.
  bool Write(httplib::DataSink& sink) {
    TextJob& job = *job_;
    sink_ = &sink;
    if (job.call.exchange.client_gone()) return false;
    try {
      size_t i;
      SequenceEvent event;
      // Short waits only: the transport asks whether the client is still there between them.
      if (!job.run->Next(&i, &event, milliseconds(job.params.return_progress ? 50 : 250))) {
        if (job.run->finished()) return End();
        if (job.params.return_progress) Progress();
        const double silent = std::chrono::duration<double>(Clock::now() - last_sent_).count();
        return silent < job.call.app.options().ping_seconds || Send(":\n\n");
      }
      if (event.error != nullptr) std::rethrow_exception(event.error);
      if (event.finished && event.finish == FinishReason::kCancelled)
        throw Cancelled(job.call.exchange);
      const bool good = job.chat ? ChatEvent(i, event) : CompletionEvent(i, event);
      return good && (!job.run->finished() || End());
    } catch (...) {
      const ApiError error = CurrentError();
      status_ = error.status();
      Send("data: " + Dump(error.ToJson()) + "\n\n");
      sink.done();
      return true;
    }
  }

 private:
  bool Send(const std::string& text) {
    last_sent_ = Clock::now();
    return sink_->write(text.data(), text.size());
  }
  bool SendChunk(Json choices, const SequenceStats* stats = nullptr) {
    Json chunk = StartAnswer(job_->head);
    chunk["choices"] = std::move(choices);
    if (job_->include_usage) chunk["usage"] = nullptr;
    if (stats != nullptr && job_->params.timings_per_token) chunk["timings"] = TimingsJson(*stats);
    return Send("data: " + Dump(chunk) + "\n\n");
  }
  bool ChatChunk(size_t i, Json delta, const Json& finish, Json logprobs,
                 const SequenceStats& stats) {
    return SendChunk(Json::array({{{"index", i},
                                   {"delta", std::move(delta)},
                                   {"logprobs", std::move(logprobs)},
                                   {"finish_reason", finish}}}),
                     &stats);
  }

  bool ChatEvent(size_t i, SequenceEvent& event) {
    TextJob& job = *job_;
    TextJob::Choice& c = job.choices[i];
    const OutputDelta delta = Take(c, event);
    c.stats = event.stats;
    for (LogprobEntry& e : event.logprobs) c.logprobs.push_back(std::move(e));
    const auto take_logprobs = [&] {
      if (!job.logprobs || c.logprobs.empty()) return Json(nullptr);
      Json json = ChatLogprobs(c.logprobs);
      c.logprobs.clear();
      return json;
    };
    if (!c.started) {
      c.started = true;
      if (!ChatChunk(i, {{"role", "assistant"}, {"content", ""}, {"refusal", nullptr}}, nullptr,
                     nullptr, event.stats))
        return false;
    }
    if (!delta.reasoning.empty() && !ChatChunk(i, {{"reasoning_content", delta.reasoning}}, nullptr,
                                               take_logprobs(), event.stats))
      return false;
    if (!delta.content.empty() &&
        !ChatChunk(i, {{"content", delta.content}}, nullptr, take_logprobs(), event.stats))
      return false;
    for (const CallDelta& call : delta.calls) {
      // First who is called, then with what.
      Json part = {{"index", call.index}};
      if (!call.id.empty()) {
        c.calls.push_back(call);
        part.update({{"id", call.id},
                     {"type", "function"},
                     {"function", {{"name", call.name}, {"arguments", ""}}}});
      } else {
        part["function"] = {{"arguments", call.arguments}};
      }
      if (!ChatChunk(i, {{"tool_calls", Json::array({part})}}, nullptr, take_logprobs(),
                     event.stats))
        return false;
    }
    if (!event.finished) return true;
    return ChatChunk(i, Json::object(), FinishText(c.finish, !c.calls.empty()), take_logprobs(),
                     event.stats);
  }

  bool CompletionEvent(size_t i, SequenceEvent& event) {
    TextJob& job = *job_;
    TextJob::Choice& c = job.choices[i];
    std::string text = Take(c, event).content;
    c.stats = event.stats;
    if (!c.started && job.params.echo) {
      text = job.echoes[i / static_cast<size_t>(job.params.n)] + text;
      event.logprobs.insert(event.logprobs.begin(), event.prompt_logprobs.begin(),
                            event.prompt_logprobs.end());
    }
    c.started = true;
    const Json logprobs =
        job.logprobs && !event.logprobs.empty()
            ? LegacyLogprobs(event.logprobs, job.params.legacy_logprobs > 0, &c.text_offset)
            : Json(nullptr);
    return SendChunk(
        Json::array({{{"text", text},
                      {"index", i},
                      {"logprobs", logprobs},
                      {"finish_reason",
                       event.finished ? Json(FinishText(c.finish, false)) : Json(nullptr)}}}),
        &event.stats);
  }

  void Progress() {
    const size_t done = job_->run->prompt_done();
    if (done == progress_ || done == 0 || job_->choices[0].started) return;
    progress_ = done;
    Json chunk = StartAnswer(job_->head);
    chunk["choices"] = Json::array();
    chunk["prompt_progress"] = {{"total", job_->prompt_tokens[0]}, {"processed", done}};
    Send("data: " + Dump(chunk) + "\n\n");
  }

  bool End() {
    TextJob& job = *job_;
    if (job.include_usage) {
      Json chunk = StartAnswer(job.head);
      chunk["choices"] = Json::array();
      chunk["usage"] = UsageJson(job.TotalUsage(), job.chat);
      chunk["timings"] = TimingsJson(job.choices[0].stats);
      if (!Send("data: " + Dump(chunk) + "\n\n")) return false;
    }
    if (!Send("data: [DONE]\n\n")) return false;
    status_ = 200;
    sink_->done();
    return true;
  }

  std::shared_ptr<TextJob> job_;
  httplib::DataSink* sink_ = nullptr;
  Clock::time_point last_sent_;
  size_t progress_ = 0;
  int status_ = 499;  // for the log, until more is known
};

}  // namespace

Usage TextJob::TotalUsage() const {
  Usage usage;
  for (const size_t n : prompt_tokens) usage.prompt_tokens += n;
  const size_t n = static_cast<size_t>(params.n);
  for (size_t i = 0; i < choices.size(); ++i) {
    usage.completion_tokens += choices[i].stats.completion_tokens;
    usage.reasoning_tokens += choices[i].reasoning_tokens;
    if (i % n == 0) usage.cached_tokens += choices[i].stats.cached_tokens;
  }
  return usage;
}

void RunTextJob(Call& call, std::shared_ptr<TextJob> job, Scheduler& scheduler,
                std::vector<SequenceRequest> requests) {
  job->run = Run::Start(scheduler, std::move(requests));
  job->call.exchange.OnClientGone([run = std::weak_ptr<Run>(job->run)] {
    if (const auto r = run.lock()) r->Cancel();
  });
  if (!job->params.stream) {
    AnswerWhole(*job);
    call.numbers = job->call.numbers;
    return;
  }
  httplib::Response& response = job->call.response();
  response.status = 200;
  response.set_header("Cache-Control", "no-cache");
  response.set_header("X-Accel-Buffering", "no");  // proxies must not collect the events
  const auto writer = std::make_shared<EventWriter>(job);
  response.set_chunked_content_provider(
      "text/event-stream",
      [writer](size_t, httplib::DataSink& sink) { return writer->Write(sink); });
}

}  // namespace lutra::server
