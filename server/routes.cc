// The table of routes and the small ones.
#include "server/routes.h"

#include <algorithm>

#include "kernels/base/utf8.h"
#include "server/api_error.h"
#include "server/page.h"
#include "server/prompt.h"

namespace lutra::server {
namespace {

constexpr Route kRoutes[] = {
    // method, path, prefix, needs a key, needs the models, function
    {"POST", "/v1/chat/completions", false, true, true, ChatCompletions},
    {"POST", "/v1/completions", false, true, true, Completions},
    {"POST", "/v1/embeddings", false, true, true, Embeddings},
    {"GET", "/v1/models", false, true, true, ListModels},
    {"GET", "/v1/models/", true, true, true, ShowModel},
    // The same without the prefix, as clients with another base address send it.
    {"POST", "/chat/completions", false, true, true, ChatCompletions},
    {"POST", "/completions", false, true, true, Completions},
    {"POST", "/embeddings", false, true, true, Embeddings},
    {"GET", "/models", false, true, true, ListModels},
    {"POST", "/tokenize", false, true, true, Tokenize},
    {"POST", "/detokenize", false, true, true, Detokenize},
    {"POST", "/apply-template", false, true, true, ApplyTemplate},
    {"GET", "/props", false, true, true, Props},
    {"GET", "/slots", false, true, true, Slots},
    {"GET", "/metrics", false, true, false, Metrics},
    {"GET", "/version", false, true, false, Version},
    {"GET", "/health", false, false, false, Health},
    {"GET", "/v1/health", false, false, false, Health},
    {"GET", "/", false, false, false, Page},
};

Json ModelJson(const ServedModel& m) {
  const Hparams& h = m.engine().hparams();
  return {{"id", m.name()},
          {"object", "model"},
          {"created", static_cast<int64_t>(m.created())},
          {"owned_by", "lutra"},
          {"meta",
           {{"n_ctx", m.n_ctx()},
            {"n_ctx_train", h.n_ctx_train},
            {"n_embd", h.n_embd},
            {"n_vocab", m.tokenizer().n_vocab()},
            {"size", m.file_bytes()},
            {"architecture", h.arch->name}}}};
}

}  // namespace

std::span<const Route> Routes() { return kRoutes; }

void ListModels(Call& call) {
  Json data = Json::array();
  for (const auto& m : call.app.models()) data.push_back(ModelJson(*m));
  Reply(call, 200, {{"object", "list"}, {"data", std::move(data)}});
}

void ShowModel(Call& call) {
  const std::string& path = call.exchange.request.path;
  Reply(call, 200, ModelJson(call.app.Model(path.substr(path.rfind("/models/") + 8))));
}

void Health(Call& call) {
  if (call.app.stopping()) throw ApiError(503, "the server is shutting down", "", "shutting_down");
  if (!call.app.ready()) throw ApiError(503, "Loading model", "", "model_loading");
  Reply(call, 200, {{"status", "ok"}});
}

void Metrics(Call& call) {
  call.response().status = 200;
  call.response().set_content(call.app.MetricsText(), "text/plain; version=0.0.4");
}

void Version(Call& call) { Reply(call, 200, {{"version", LUTRA_VERSION}, {"name", "lutra"}}); }

void Tokenize(Call& call) {
  const Params p = call.app.Read(call, kTokenize);
  const ServedModel& model = call.app.Model(p.model);
  const std::vector<int32_t> ids =
      model.tokenizer().Encode(p.content, p.add_special, p.parse_special);
  Json tokens = Json::array();
  for (const int32_t id : ids) {
    if (!p.with_pieces) {
      tokens.push_back(id);
      continue;
    }
    const std::string piece = model.tokenizer().TokenToPiece(id, true);
    Json bytes = Json::array();
    for (const char c : piece) bytes.push_back(static_cast<uint8_t>(c));
    tokens.push_back({{"id", id}, {"piece", Utf8IsValid(piece) ? Json(piece) : bytes}});
  }
  Reply(call, 200, {{"tokens", std::move(tokens)}});
}

void Detokenize(Call& call) {
  const Params p = call.app.Read(call, kDetokenize);
  const ServedModel& model = call.app.Model(p.model);
  if (p.tokens.is_null())
    throw ApiError(400, "field 'tokens' is missing; it takes a list of token ids", "tokens",
                   "missing_field");
  std::vector<int32_t> ids;
  if (!p.tokens.empty()) {
    if (!p.tokens[0].is_number())
      throw ApiError(400, "field 'tokens' takes a list of token ids", "tokens", "invalid_value");
    ids = MakePrompts(p.tokens, "tokens", 1, model).at(0);
  }
  Reply(call, 200, {{"content", Utf8Sanitize(model.tokenizer().Decode(ids, false, true))}});
}

void ApplyTemplate(Call& call) {
  const Params p = call.app.Read(call, kApplyTemplate);
  const ServedModel& model = call.app.Model(p.model);
  if (p.messages.is_null())
    throw ApiError(400, "field 'messages' is missing; it takes a list of messages", "messages",
                   "missing_field");
  const ChatPrompt prompt = MakeChatPrompt(p, model);
  Reply(call, 200, {{"prompt", Utf8Sanitize(prompt.text)}, {"n_tokens", prompt.tokens.size()}});
}

void Props(Call& call) {
  if (!call.app.options().expose_slots)
    throw ApiError(403, "this endpoint is off; start the server without --no-slots", "",
                   "endpoint_off");
  Json models = Json::array();
  for (const auto& m : call.app.models()) {
    Json sampling = Json::object();
    for (const SamplingParamRow& row : SamplingParamTable()) {
      const std::string text = row.Text(m->sampling());
      const std::string type = row.TypeName();
      const Json value = type == "list" ? Json(text) : Json::parse(text, nullptr, false);
      sampling[row.name] = value.is_discarded() ? Json(text) : value;
    }
    const SchedulerOptions& o = m->scheduler().options();
    models.push_back(
        {{"model", m->name()},
         {"n_ctx", m->n_ctx()},
         {"total_slots", o.max_sequences},
         {"max_queued", o.max_queued},
         {"kv_tokens", m->engine().kv_tokens()},
         {"kv_type", KvTypeName(m->engine().plan().kv_type)},
         {"bos_token",
          m->tokenizer().IsValid(m->tokenizer().bos())
              ? Utf8Sanitize(std::string(m->tokenizer().TokenText(m->tokenizer().bos())))
              : ""},
         {"eos_token",
          m->tokenizer().IsValid(m->tokenizer().eos())
              ? Utf8Sanitize(std::string(m->tokenizer().TokenText(m->tokenizer().eos())))
              : ""},
         {"chat_template", Utf8Sanitize(m->chat_template().source())},
         {"default_generation_settings", std::move(sampling)}});
  }
  Json props = {{"build_info", Fingerprint()}};
  props.update(models[0]);
  props["models"] = std::move(models);
  Reply(call, 200, props);
}

void Slots(Call& call) {
  if (!call.app.options().expose_slots)
    throw ApiError(403, "this endpoint is off; start the server without --no-slots", "",
                   "endpoint_off");
  Json list = Json::array();
  for (const auto& m : call.app.models()) {
    const std::vector<SlotInfo> slots = m->scheduler().slots();
    for (size_t i = 0; i < slots.size(); ++i) {
      const SlotInfo& s = slots[i];
      Json slot = {
          {"id", i}, {"model", m->name()}, {"n_ctx", m->n_ctx()}, {"is_processing", s.busy}};
      if (s.busy) {
        slot.update(Json{{"id_task", s.id},
                         {"n_prompt", s.prompt_tokens},
                         {"n_cached", s.cached_tokens},
                         {"n_prompt_done", s.prompt_done},
                         {"n_decoded", s.generated}});
      }
      list.push_back(std::move(slot));
    }
  }
  Reply(call, 200, list);
}

void Page(Call& call) {
  call.response().status = 200;
  call.response().set_header(
      "Content-Security-Policy",
      "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src "
      "'self'; "
      "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
  call.response().set_header("X-Content-Type-Options", "nosniff");
  call.response().set_header("Referrer-Policy", "no-referrer");
  call.response().set_content(std::string(PageHtml()), "text/html; charset=utf-8");
}

}  // namespace lutra::server
