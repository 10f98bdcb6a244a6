#include "engine/scheduler.h"

#include <algorithm>

#include "engine/sequence.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"

namespace lutra {
namespace {

using Clock = std::chrono::steady_clock;

// A slice with nobody else running: how long a newcomer or a cancellation may wait.
constexpr double kAloneSliceSeconds = 0.5;
// Slices never shrink below this: weights are read once a step, however few tokens it has.
constexpr size_t kMinSliceTokens = 4;
// Before anything was measured.
constexpr size_t kFirstSliceTokens = 32;
// A shared page that is not full is copied; below this many tokens that is not worth it.
constexpr size_t kMinPartialTokens = 4;

size_t PagesFor(size_t n_tokens) { return (n_tokens + kKvPage - 1) / kKvPage; }

double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

Scheduler::Scheduler(Engine& engine, const SchedulerOptions& options)
    : engine_(engine),
      options_(options),
      pool_(engine.decoder().kv_layout().page_bytes(), PagesFor(engine.kv_tokens())),
      prefixes_(&pool_, static_cast<size_t>(options.prefix_cache_share *
                                            static_cast<double>(pool_.n_pages()))) {
  if (options.max_sequences < 1 || options.max_sequences > engine.decoder().max_logits() ||
      options.max_sequences > engine.decoder().max_tokens()) {
    Fail(ErrorCode::kInvalidArgument, "slots: %zu are out of range; the batch takes 1 to %zu",
         options.max_sequences,
         std::min(engine.decoder().max_logits(), engine.decoder().max_tokens()));
  }
  slots_.resize(options.max_sequences);
  stats_.kv_pages = pool_.n_pages();
  batch_.reserve(engine.decoder().max_tokens());
  thread_ = std::thread([this] { Run(); });
}

Scheduler::~Scheduler() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = draining_ = true;
  }
  work_.notify_all();
  thread_.join();
}

std::vector<std::shared_ptr<TokenStream>> Scheduler::Submit(std::vector<SequenceRequest> requests) {
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (SequenceRequest& r : requests)
    sequences.push_back(std::make_unique<Sequence>(engine_, std::move(r)));
  if (sequences.size() > 1) {
    const auto done =
        std::make_shared<bool>(false);  // shared by the group; touched by the engine thread only
    for (auto& s : sequences) s->leader_done = done;
    sequences[0]->leads = true;
  }
  std::vector<std::shared_ptr<TokenStream>> streams;
  const auto wake = [this] {
    {
      const std::lock_guard lock(mutex_);
      woken_ = true;
    }
    work_.notify_all();
  };
  {
    const std::lock_guard lock(mutex_);
    if (draining_ || stats_.running + n_queued_ + sequences.size() >
                         options_.max_sequences + options_.max_queued)
      return {};
    for (auto& s : sequences) {
      s->id = next_id_++;
      s->stream->SetWaker(wake);
      streams.push_back(s->stream);
      queue_[s->request.client].push_back(std::move(s));
      ++n_queued_;
      ++stats_.requests;
    }
    stats_.queued = n_queued_;
  }
  work_.notify_all();
  return streams;
}

bool Scheduler::accepting() const {
  const std::lock_guard lock(mutex_);
  return !draining_;
}

bool Scheduler::Drain(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  return idle_.wait_for(lock, timeout, [&] { return stats_.running == 0 && n_queued_ == 0; });
}

void Scheduler::CancelAll() {
  {
    const std::lock_guard lock(mutex_);
    draining_ = woken_ = true;
    cancelling_ = true;
  }
  work_.notify_all();
}

bool Scheduler::Cancelled(const Sequence& s) const { return cancelling_ || s.stream->cancelled(); }

SchedulerStats Scheduler::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

std::vector<SlotInfo> Scheduler::slots() const {
  const std::lock_guard lock(mutex_);
  return slots_;
}

void Scheduler::ClearPrefixCache() {
  {
    const std::lock_guard lock(mutex_);
    clear_prefixes_ = woken_ = true;
  }
  work_.notify_all();
}

void Scheduler::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    Admit(lock);
    if (clear_prefixes_) {
      clear_prefixes_ = false;
      prefixes_.Clear();
    }
    woken_ = false;
    bool progress = false;
    if (!running_.empty()) {
      lock.unlock();
      progress = Step();
      lock.lock();
      UpdateShared();
    }
    if (stats_.running == 0 && n_queued_ == 0) idle_.notify_all();
    if (!progress && !stopping_ && !woken_) {
      const auto ready = [&] {
        return stopping_ || woken_ || (running_.size() < options_.max_sequences && n_queued_ > 0);
      };
      if (running_.empty() && n_queued_ == 0) {
        work_.wait(lock, ready);
      } else {
        // Somebody is there, but slow readers or a lack of pages keep all from running.
        work_.wait_for(lock, std::chrono::milliseconds(20));
      }
    }
  }
  lock.unlock();
  for (auto& s : running_) s->Finish(FinishReason::kCancelled);
  while (!running_.empty()) Retire(running_.size() - 1);
  lock.lock();
  for (auto& [client, waiting] : queue_) {
    for (auto& s : waiting) s->Finish(FinishReason::kCancelled), s->Flush();
  }
  queue_.clear();
  n_queued_ = 0;
  UpdateShared();
  lock.unlock();
  prefixes_.Clear();
}

void Scheduler::Admit(std::unique_lock<std::mutex>&) {
  for (auto it = queue_.begin(); it != queue_.end();) {
    std::erase_if(it->second, [&](std::unique_ptr<Sequence>& s) {
      if (!Cancelled(*s)) return false;
      s->admitted = Clock::now();
      s->Finish(FinishReason::kCancelled);
      s->Flush();
      if (s->leads) *s->leader_done = true;
      for (const int page : s->pages) pool_.Release(page);
      --n_queued_;
      ++stats_.cancelled;
      return true;
    });
    it = it->second.empty() ? queue_.erase(it) : std::next(it);
  }
  size_t reserved = 0;  // pages that running prompts will still take
  for (const auto& s : running_) {
    const size_t all = PagesFor(s->tokens.size() + 1);
    reserved += all > s->pages.size() ? all - s->pages.size() : 0;
  }
  size_t skipped = 0;
  auto next = queue_.upper_bound(last_client_);
  while (running_.size() < options_.max_sequences && !queue_.empty() && skipped < queue_.size()) {
    if (next == queue_.end()) next = queue_.begin();
    auto& waiting = next->second;
    // Others of a group wait for the first one's prompt; whoever is behind them may go ahead.
    const auto it = std::find_if(waiting.begin(), waiting.end(), [](const auto& s) {
      return s->leader_done == nullptr || s->leads || *s->leader_done;
    });
    if (it == waiting.end()) {
      ++skipped;
      ++next;
      continue;
    }
    const size_t wanted = PagesFor((*it)->tokens.size() + 1);
    if (!running_.empty() && reserved + wanted > pool_.n_free() + pool_.n_evictable()) break;
    reserved += wanted;
    std::unique_ptr<Sequence> s = std::move(*it);
    waiting.erase(it);
    --n_queued_;
    last_client_ = next->first;
    next = waiting.empty() ? queue_.erase(next) : std::next(next);
    skipped = 0;
    if (s->admitted == Clock::time_point()) {
      s->admitted = Clock::now();
      s->stats.queue_seconds = Seconds(s->admitted - s->submitted);
    }
    s->slot = 0;
    while (std::any_of(running_.begin(), running_.end(),
                       [&](const auto& r) { return r->slot == s->slot; }))
      ++s->slot;
    running_.push_back(std::move(s));
  }
  UpdateShared();
}

void Scheduler::UpdateShared() {
  stats_.running = running_.size();
  stats_.queued = n_queued_;
  stats_.kv_pages_cached = prefixes_.n_pages();
  stats_.kv_pages_used = pool_.n_pages() - pool_.n_free();
  for (SlotInfo& slot : slots_) slot.busy = false;
  for (const auto& s : running_) {
    slots_[s->slot] = {true,
                       s->id,
                       s->stats.prompt_tokens,
                       s->stats.cached_tokens,
                       std::min(s->n_kv, s->stats.prompt_tokens),
                       s->stats.completion_tokens};
  }
}

void Scheduler::ReusePrefix(Sequence& s) {
  if (!s.request.use_prefixes || s.request.prompt_logprobs || s.request.embed ||
      s.n_kv % kKvPage != 0)
    return;
  // The last token is always computed: its logits are wanted.
  const std::span<const int32_t> wanted = std::span(s.tokens).first(s.tokens.size() - 1);
  if (s.n_kv >= wanted.size()) return;
  PrefixCache::Match match = prefixes_.Find(s.request.scope, wanted);
  const size_t held = s.pages.size();
  for (size_t i = 0; i < match.pages.size(); ++i) {
    if (i < held) {
      pool_.Release(match.pages[i]);
    } else {
      s.pages.push_back(match.pages[i]);
      s.page_data.push_back(pool_.data(match.pages[i]));
    }
  }
  const size_t before = s.n_kv;
  s.n_kv = std::max(s.n_kv, s.pages.size() * kKvPage);
  if (match.partial_tokens >= kMinPartialTokens && match.pages.size() == s.pages.size()) {
    const int page = pool_.Allocate();  // without evicting, which could take the very page to copy
    if (page >= 0) {
      pool_.CopyPage(match.partial_page, page);
      s.pages.push_back(page);
      s.page_data.push_back(pool_.data(page));
      s.n_kv += match.partial_tokens;
    }
  }
  if (s.stats.completion_tokens == 0) s.stats.cached_tokens += s.n_kv - before;
}

bool Scheduler::EnsurePages(Sequence& s, size_t n_tokens) {
  while (s.pages.size() < PagesFor(n_tokens)) {
    int page = pool_.Allocate();
    if (page < 0 && prefixes_.Evict(1 + pool_.n_pages() / 32) > 0) page = pool_.Allocate();
    if (page < 0) {
      // The youngest gives way; being computed again later changes nothing about its text.
      Sequence& youngest = *running_.back();
      const bool self = &youngest == &s;
      Preempt(youngest);
      if (self) return false;
      continue;
    }
    s.pages.push_back(page);
    s.page_data.push_back(pool_.data(page));
  }
  return true;
}

void Scheduler::Preempt(Sequence& s) {
  for (const int page : s.pages) pool_.Release(page);
  s.pages.clear();
  s.page_data.clear();
  s.n_kv = 0;
  s.step_tokens = 0;
  const std::lock_guard lock(mutex_);
  ++stats_.preemptions;
  ++n_queued_;
  auto it =
      std::find_if(running_.begin(), running_.end(), [&](const auto& r) { return r.get() == &s; });
  queue_[s.request.client].push_front(std::move(*it));
  running_.erase(it);
}

void Scheduler::Retire(size_t i) {
  Sequence& s = *running_[i];
  if (s.leads) *s.leader_done = true;
  if (!s.failed && !s.request.embed && s.request.use_prefixes && s.n_kv > 0) {
    prefixes_.Insert(s.request.scope, std::span(s.tokens).first(s.n_kv), s.pages);
  }
  for (const int page : s.pages) pool_.Release(page);
  {
    const std::lock_guard lock(mutex_);
    ++(s.failed ? stats_.failed : Cancelled(s) ? stats_.cancelled : stats_.finished);
    stats_.prompt_tokens += s.stats.prompt_tokens;
    stats_.cached_tokens += s.stats.cached_tokens;
    stats_.generated_tokens += s.stats.completion_tokens;
    stats_.forced_tokens += s.stats.forced_tokens;
    stats_.running = running_.size() - 1;
    stats_.kv_pages_cached = prefixes_.n_pages();
    stats_.kv_pages_used = pool_.n_pages() - pool_.n_free();
  }
  s.Flush();  // last, so that whoever hears of the end finds the place free
  running_.erase(running_.begin() + static_cast<ptrdiff_t>(i));
}

size_t Scheduler::SliceTokens(bool others_run) const {
  if (tokens_per_second_ == 0) return kFirstSliceTokens;
  const double seconds =
      others_run ? options_.slice_seconds : std::max(options_.slice_seconds, kAloneSliceSeconds);
  const double n = tokens_per_second_ * seconds;
  return n >= 1e9 ? size_t{1000000000} : std::max(kMinSliceTokens, static_cast<size_t>(n));
}

// Chooses what the step computes: Sequence::step_tokens. False if nothing can be.
bool Scheduler::Plan() {
  const size_t max_tokens = engine_.decoder().max_tokens();
  size_t n = 0;
  for (auto& s : running_) s->step_tokens = 0;
  // Sequences behind the current one may leave running_ meanwhile (EnsurePages), or the current one itself.
  for (size_t i = 0; i < running_.size();) {
    Sequence& s = *running_[i];
    if (!s.in_prompt() && n < max_tokens && !s.stream->full() && !s.request.prompt_logprobs &&
        !s.request.embed) {
      if (!EnsurePages(s, s.tokens.size())) continue;
      s.step_tokens = 1;
      ++n;
    }
    ++i;
  }
  size_t budget = std::min(max_tokens - n, SliceTokens(n > 0));
  size_t logits_left = engine_.decoder().max_logits() - running_.size();
  size_t waiting = 0;
  for (const auto& s : running_)
    waiting += s->step_tokens == 0 && s->pending() > 0 && !s->stream->full();
  for (size_t i = 0; i < running_.size() && budget > 0 && waiting > 0;) {
    Sequence& s = *running_[i];
    if (s.step_tokens > 0 || s.pending() == 0 || s.stream->full()) {
      ++i;
      continue;
    }
    ReusePrefix(s);
    size_t part = std::min(s.pending(), std::max<size_t>(1, budget / waiting));
    if (s.request.prompt_logprobs) {
      part = std::min(part, logits_left);
      logits_left -= part;
    }
    --waiting;
    if (part > 0) {
      if (!EnsurePages(s, s.n_kv + part)) continue;
      s.step_tokens = part;
      budget -= part;
    }
    ++i;
  }
  return std::any_of(running_.begin(), running_.end(),
                     [](const auto& s) { return s->step_tokens > 0; });
}

void Scheduler::FailAll(std::exception_ptr error) {
  for (auto& s : running_) s->Fail(error);
  while (!running_.empty()) Retire(running_.size() - 1);
}

bool Scheduler::Step() {
  for (size_t i = running_.size(); i-- > 0;) {
    if (!Cancelled(*running_[i])) continue;
    running_[i]->Finish(FinishReason::kCancelled);
    Retire(i);
  }
  if (running_.empty()) return true;
  const Clock::time_point start = Clock::now();
  try {
    if (!Plan()) return false;
    batch_.clear();
    planned_.clear();
    size_t n_logits = 0, n_hidden = 0, n_prompt = 0;
    for (auto& owner : running_) {
      Sequence& s = *owner;
      if (s.step_tokens == 0) continue;
      planned_.push_back(&s);
      const bool prompt = s.in_prompt() || s.stats.completion_tokens == 0;
      if (prompt) n_prompt += s.step_tokens;
      s.first_logits = n_logits;
      s.first_hidden = n_hidden;
      for (size_t j = 0; j < s.step_tokens; ++j) {
        const size_t pos = s.n_kv + j;
        const bool last = pos + 1 == s.tokens.size();
        const bool hidden = s.request.embed && (!s.request.embed_last || last);
        const bool logits =
            !s.request.embed && ((last && s.request.max_tokens > 0) ||
                                 (s.request.prompt_logprobs && pos + 1 < s.request.prompt.size()));
        batch_.push_back(
            {s.tokens[pos], static_cast<int32_t>(pos), s.page_data.data(), logits, hidden});
        n_logits += logits;
        n_hidden += hidden;
      }
      s.n_logits = n_logits - s.first_logits;
      s.n_hidden = n_hidden - s.first_hidden;
    }
    engine_.decoder().Forward(batch_);
    const double seconds = Seconds(Clock::now() - start);
    if (n_prompt >= kMinSliceTokens / 2 && seconds > 0) {
      const double speed = static_cast<double>(batch_.size()) / seconds;
      // Quick to believe in slowness, so that a slice that was too long is not repeated.
      const double weight = speed < tokens_per_second_ ? 0.7 : 0.3;
      tokens_per_second_ = tokens_per_second_ == 0
                               ? speed
                               : tokens_per_second_ + weight * (speed - tokens_per_second_);
    }
    Deliver();
    const std::lock_guard lock(mutex_);
    ++stats_.steps;
    stats_.computed_prompt_tokens += n_prompt;
    const double all = Seconds(Clock::now() - start);
    stats_.busy_seconds += all;
    (n_prompt > 0 ? stats_.prompt_seconds : stats_.decode_seconds) += all;
  } catch (const std::exception& e) {
    Log(LogLevel::kError, "a step of %zu tokens failed: %s", batch_.size(),
        Printable(e.what()).c_str());
    FailAll(std::current_exception());
  }
  return true;
}

// After the forward pass: draws tokens and hands out what there is.
void Scheduler::Deliver() {
  sampling_.clear();
  for (Sequence* s : planned_) {
    const size_t first = s->n_kv;
    s->n_kv += s->step_tokens;
    s->stream->prompt_done.store(std::min(s->n_kv, s->stats.prompt_tokens),
                                 std::memory_order_relaxed);
    sampling_.push_back(s);
    if (first / kKvPage != s->n_kv / kKvPage && first < s->stats.prompt_tokens &&
        !s->request.embed && s->request.use_prefixes) {
      const size_t full = s->n_kv / kKvPage;
      prefixes_.Insert(s->request.scope, std::span(s->tokens).first(full * kKvPage),
                       std::span(s->pages).first(full));
    }
  }
  const auto work = [&](size_t i) {
    Sequence& s = *sampling_[i];
    const size_t first = s.n_kv - s.step_tokens;
    size_t row = s.first_logits;
    if (s.request.prompt_logprobs) {
      for (size_t j = 0; j < s.step_tokens && first + j + 1 < s.request.prompt.size(); ++j) {
        s.AddPromptLogprob(engine_.decoder().logits(row++), first + j);
      }
    }
    for (size_t j = 0; j < s.n_hidden; ++j)
      s.AddHidden(engine_.decoder().hidden(s.first_hidden + j));
    if (s.pending() > 0 || s.finished) return;
    if (s.request.embed) {
      s.FinishEmbedding();
    } else if (s.request.max_tokens == 0) {
      s.Finish(FinishReason::kLength);
    } else {
      s.Draw(engine_.decoder().logits(row));
    }
  };
  ThreadPool& threads = engine_.pool();
  if (sampling_.size() > 1 && threads.n_threads() > 1) {
    threads.Region([&] { threads.For(sampling_.size(), work); });
  } else {
    for (size_t i = 0; i < sampling_.size(); ++i) work(i);
  }
  for (Sequence* s : sampling_) {
    if (s->leads && !*s->leader_done && !s->in_prompt()) {
      // The others of the group begin: they find this prompt, its last page (still written to) as a copy.
      *s->leader_done = true;
      const size_t n = s->stats.prompt_tokens;
      const int copy = n % kKvPage != 0 && s->n_kv >= n ? pool_.Allocate() : -1;
      if (copy >= 0) {
        std::vector<int> pages(s->pages.begin(),
                               s->pages.begin() + static_cast<ptrdiff_t>(n / kKvPage));
        pool_.CopyPage(s->pages[n / kKvPage], copy);
        pages.push_back(copy);
        prefixes_.Insert(s->request.scope, std::span(s->tokens).first(n), pages);
        pool_.Release(copy);
      }
    }
    if (!s->finished) s->Flush();
  }
  for (size_t i = running_.size(); i-- > 0;) {
    if (running_[i]->finished) Retire(i);
  }
}

}  // namespace lutra
