#include <algorithm>
#include <cinttypes>
#include <map>
#include <set>

#include "cli/doctor/findings.h"
#include "engine/engine.h"
#include "kernels/base/error.h"
#include "models/chat/chat_template.h"
#include "models/tokenizer/tokenizer.h"

namespace lutra::doctor {
namespace {

std::string Gib(uint64_t bytes) {
  return Format("%.2f GiB", static_cast<double>(bytes) / (1 << 30));
}

std::string SpecialText(const Tokenizer& tokenizer, int32_t id) {
  return tokenizer.IsValid(id) ? std::string(tokenizer.TokenText(id)) : "";
}

Finding Tensors(const GgufFile& file) {
  std::map<std::string, uint64_t> bytes;
  std::set<std::string> unreadable;
  for (const GgufTensor& t : file.tensors()) {
    bytes[t.type->name] += t.bytes;
    if (!t.type->readable) unreadable.insert(t.type->name);
  }
  std::string types;
  for (const auto& [name, n] : bytes)
    types += Format("%s%s %.0f MB", types.empty() ? "" : ", ", name.c_str(),
                    static_cast<double>(n) / 1e6);
  if (unreadable.empty())
    return {Verdict::kOk, "tensors",
            Format("%zu tensors: %s", file.tensors().size(), types.c_str()), ""};
  std::string names;
  for (const std::string& n : unreadable) names += (names.empty() ? "" : ", ") + n;
  return {Verdict::kProblem, "tensors", "types that cannot be computed with: " + names,
          "get the model in another quantization"};
}

Finding TokenizerFinding(const GgufFile& file, std::unique_ptr<Tokenizer>* tokenizer) {
  try {
    *tokenizer = Tokenizer::FromGguf(file);
    const std::string text = "Hello, world! 1234";
    const std::vector<int32_t> ids = (*tokenizer)->Encode(text, false, false);
    if ((*tokenizer)->Decode(ids, false, false) != text) {
      return {Verdict::kWarning, "tokenizer", "a plain text does not come back from its tokens",
              "convert the model again"};
    }
    const auto model = file.GetString("tokenizer.ggml.model");
    const auto pre = file.GetString("tokenizer.ggml.pre");
    return {Verdict::kOk, "tokenizer",
            Format("%s%s%s", model ? Printable(*model, 40).c_str() : "?",
                   pre ? ", pre-tokenizer " : "", pre ? Printable(*pre, 40).c_str() : ""),
            ""};
  } catch (const Error& e) {
    return {Verdict::kProblem, "tokenizer", e.what(),
            "convert the model again with a current converter"};
  }
}

Finding TemplateFinding(const GgufFile& file, const Tokenizer& tokenizer) {
  if (!file.GetString("tokenizer.chat_template")) {
    return {Verdict::kNote, "template",
            "the file has no chat template: chat uses ChatML, which a model that was not trained "
            "with it answers badly",
            "a base model: use lutra run; a chat model: get a file with its template"};
  }
  try {
    const ChatTemplate t = ChatTemplate::FromGguf(file, SpecialText(tokenizer, tokenizer.bos()),
                                                  SpecialText(tokenizer, tokenizer.eos()));
    if (t.is_fallback())
      return {Verdict::kProblem, "template",
              "the chat template cannot be parsed; ChatML is used instead",
              "get a newer file of the model"};
    ChatRequest request;
    request.messages = {{{"role", "user"}, {"content", "Hello"}}};
    const std::string text = t.Apply(request);
    if (text.find("Hello") == std::string::npos) {
      return {Verdict::kWarning, "template", "the chat template leaves out the user's message",
              "get a newer file of the model"};
    }
    return {Verdict::kOk, "template", "renders: " + Printable(text, 60), ""};
  } catch (const Error& e) {
    return {Verdict::kProblem, "template", e.what(), "get a newer file of the model"};
  }
}

}  // namespace

std::vector<PlanRow> MemoryTable(const GgufFile& file, uint64_t available_bytes) {
  const Hparams h = ReadHparams(file);
  std::vector<PlanRow> rows;
  std::set<uint32_t> contexts = {h.n_ctx_train};
  for (uint64_t n = 4096; n < h.n_ctx_train; n *= 4) contexts.insert(static_cast<uint32_t>(n));
  for (const uint32_t n_ctx : contexts) {
    for (const char* type : {"q8", "f16", "f32"}) {
      EngineOptions options;
      options.n_ctx = std::min(n_ctx, kMaxContext);
      options.kv_type = ParseKvType(type);
      const MemoryPlan plan = PlanMemory(file, h, options);
      rows.push_back({options.n_ctx, type, plan.weights, plan.kv, plan.scratch,
                      available_bytes == 0 || plan.total() <= available_bytes});
    }
  }
  return rows;
}

std::vector<Finding> ModelFindings(const GgufFile& file, uint64_t available_bytes) {
  std::vector<Finding> f;
  try {
    const Hparams h = ReadHparams(file);
    f.push_back({Verdict::kOk, "model",
                 Format("%s, %u layers, width %u, context %u, %u tokens", h.arch->name, h.n_layer,
                        h.n_embd, h.n_ctx_train, h.n_vocab),
                 ""});
  } catch (const Error& e) {
    f.push_back({Verdict::kProblem, "model", e.what(), "lutra inspect shows what is in the file"});
    return f;
  }
  f.push_back(Tensors(file));
  std::unique_ptr<Tokenizer> tokenizer;
  f.push_back(TokenizerFinding(file, &tokenizer));
  if (tokenizer) f.push_back(TemplateFinding(file, *tokenizer));
  uint32_t longest = 0;
  uint64_t least = UINT64_MAX;
  for (const PlanRow& row : MemoryTable(file, available_bytes)) {
    least = std::min(least, row.weights + row.kv + row.scratch);
    if (row.fits && row.kv_type == "f16") longest = std::max(longest, row.n_ctx);
  }
  if (longest == 0) {
    f.push_back({Verdict::kProblem, "fit",
                 Format("needs at least %s, but %s are available", Gib(least).c_str(),
                        Gib(available_bytes).c_str()),
                 "a smaller quantization or model"});
  } else {
    f.push_back({Verdict::kOk, "fit",
                 Format("fits with a context of %u (f16 cache): see the table", longest), ""});
  }
  return f;
}

}  // namespace lutra::doctor
