// One chat or completions request from its submission to its last byte, streamed or whole.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/answer.h"
#include "server/app.h"
#include "server/run.h"

namespace lutra::server {

struct TextJob {
  Call call;  // a copy: a stream lives longer than its route
  Params params;
  bool chat = true;
  AnswerHead head = {};
  bool include_usage = false;
  bool logprobs = false;                   // wanted
  std::vector<std::string> echoes = {};    // completions: the text of each prompt
  std::vector<size_t> prompt_tokens = {};  // of each prompt
  std::shared_ptr<Run> run = nullptr;

  // One answer of the request.
  struct Choice {
    std::optional<OutputParser> parser;
    std::string text, content, reasoning;
    std::vector<CallDelta> calls;
    std::vector<LogprobEntry> logprobs;
    size_t text_offset = 0;
    size_t reasoning_tokens = 0;
    bool started = false, finished = false;
    FinishReason finish = FinishReason::kStop;
    SequenceStats stats;
  };
  std::vector<Choice> choices = {};

  Usage TotalUsage() const;
};

// Submits and answers; takes the job. Throws ApiError and Error as long as nothing was sent.
void RunTextJob(Call& call, std::shared_ptr<TextJob> job, Scheduler& scheduler,
                std::vector<SequenceRequest> requests);

}  // namespace lutra::server
