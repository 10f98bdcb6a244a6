#include "cli/bench/printer.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "cli/bench/stats.h"
#include "kernels/base/error.h"
#include "kernels/base/utf8.h"

namespace lutra::bench {
namespace {

template <class T, class Text>
std::string Join(const T& items, const char* between, Text text) {
  std::string out;
  for (const auto& item : items) {
    if (!out.empty()) out += between;
    out += text(item);
  }
  return out;
}

std::string Name(const Column& c) { return c.name; }

std::string JsonString(std::string_view s) {
  return nlohmann::json(Utf8Sanitize(std::string(s))).dump();
}

std::string JsonValue(const Column& c, const BenchRecord& r) {
  const auto v = c.value(r);
  if (!v) return "null";
  if (c.type == ColumnType::kString) return JsonString(*v);
  if (c.type == ColumnType::kBool) return *v == "0" ? "false" : "true";
  return *v;
}

// All columns, then the single measurements.
std::string JsonFields(const BenchRecord& r, const char* before, const char* between) {
  std::string out;
  for (const Column& c : Columns())
    out += std::string(before) + "\"" + c.name + "\": " + JsonValue(c, r) + between;
  const auto ns = [](uint64_t v) { return std::to_string(v); };
  const auto ts = [](double v) { return Format("%.6f", v); };
  out += std::string(before) + "\"samples_ns\": [" + Join(r.samples_ns, ", ", ns) + "]" + between;
  out += std::string(before) + "\"samples_ts\": [" + Join(r.samples_ts(), ", ", ts) + "]";
  return out;
}

class Csv : public Printer {
  std::string Header() override { return Join(Columns(), ",", Name) + "\n"; }
  std::string Row(const BenchRecord& r) override {
    return Join(Columns(), ",",
                [&](const Column& c) {
                  std::string quoted;
                  for (const char ch : c.value(r).value_or(""))
                    quoted += ch == '"' ? "\"\"" : std::string(1, ch);
                  return "\"" + quoted + "\"";
                }) +
           "\n";
  }
};

class Json : public Printer {
  std::string Header() override { return "[\n"; }
  std::string Row(const BenchRecord& r) override {
    const char* comma = first_ ? "" : ",\n";
    first_ = false;
    return comma + std::string("  {\n") + JsonFields(r, "    ", ",\n") + "\n  }";
  }
  std::string Footer() override { return first_ ? "]\n" : "\n]\n"; }
  bool first_ = true;
};

class Jsonl : public Printer {
  std::string Row(const BenchRecord& r) override { return "{" + JsonFields(r, "", ", ") + "}\n"; }
};

class Sql : public Printer {
  std::string Header() override {
    return "CREATE TABLE IF NOT EXISTS llama_bench (\n" +
           Join(Columns(), ",\n",
                [](const Column& c) {
                  const char* type = c.type == ColumnType::kString  ? "TEXT"
                                     : c.type == ColumnType::kFloat ? "REAL"
                                                                    : "INTEGER";
                  return std::string("  ") + c.name + " " + type;
                }) +
           "\n);\n\n";
  }
  std::string Row(const BenchRecord& r) override {
    return "INSERT INTO llama_bench (" + Join(Columns(), ", ", Name) + ") VALUES (" +
           Join(Columns(), ", ",
                [&](const Column& c) {
                  const auto v = c.value(r);
                  if (!v) return std::string("NULL");
                  std::string quoted;
                  for (const char ch : *v) quoted += ch == '\'' ? "''" : std::string(1, ch);
                  return "'" + quoted + "'";
                }) +
           ");\n";
  }
};

class Markdown : public Printer {
 public:
  explicit Markdown(const MarkdownOptions& options) : options_(options) {}

  std::string Header() override {
    fields_ = {{"model", -30}, {"size", 10}, {"params", 10}, {"backend", -10}, {"threads", 7}};
    for (const std::string& name : options_.columns)
      fields_.push_back({name, std::max<int>(6, static_cast<int>(name.size()))});
    fields_.push_back({"test", 15});
    fields_.push_back({"t/s", 20});
    fields_.push_back({"GB/s", 6});
    fields_.push_back({"TOPS", 6});
    fields_.push_back({"% roof", 6});
    std::string names = "|", lines = "|";
    for (const auto& [name, width] : fields_) {
      names += Format(" %*s |", width, name.c_str());
      lines += " " + std::string(static_cast<size_t>(std::abs(width)) - 1, '-') +
               (width > 0 ? ": |" : "- |");
    }
    return names + "\n" + lines + "\n";
  }

  std::string Row(const BenchRecord& r) override {
    std::string line = "|";
    for (const auto& [name, width] : fields_) {
      const std::string text = Cell(name, r);
      // printf counts bytes: a sign of two bytes needs one more.
      const int more = static_cast<int>(
          std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) == 0x80; }));
      line += Format(" %*s |", width > 0 ? width + more : width - more, text.c_str());
    }
    return line + "\n";
  }

  std::string Footer() override {
    return Format("\nbuild: %s (%d)\n", BuildCommit(), BuildNumber());
  }

 private:
  static std::string Cell(const std::string& name, const BenchRecord& r) {
    const auto scaled = [](double v, double limit, double small, const char* small_name,
                           double large, const char* large_name) {
      return v < limit ? Format("%.2f %s", v / small, small_name)
                       : Format("%.2f %s", v / large, large_name);
    };
    const double kGib = 1 << 30;
    if (name == "model") return r.model_type;
    if (name == "size")
      return scaled(static_cast<double>(r.model_size), kGib, kGib / 1024, "MiB", kGib, "GiB");
    if (name == "params")
      return scaled(static_cast<double>(r.model_n_params), 1e9, 1e6, "M", 1e9, "B");
    if (name == "backend") return "CPU";
    if (name == "threads") return std::to_string(r.spec.n_threads);
    if (name == "test") return TestName(r.spec);
    const double seconds = r.median_seconds();
    if (name == "GB/s") return seconds > 0 ? Format("%.1f", r.work.bytes() / seconds / 1e9) : "";
    if (name == "TOPS") return seconds > 0 ? Format("%.3f", r.work.ops() / seconds / 1e12) : "";
    if (name == "% roof")
      return r.percent_of_roofline() ? Format("%.1f", *r.percent_of_roofline()) : "";
    for (const Column& c : Columns()) {
      if (name == c.name) return c.value(r).value_or("");
    }
    const std::vector<double> ts = r.samples_ts();
    return Format("%.2f \xC2\xB1 %.2f", Mean(ts), StandardDeviation(ts));
  }

  MarkdownOptions options_;
  std::vector<std::pair<std::string, int>> fields_;
};

}  // namespace

std::unique_ptr<Printer> MakePrinter(const char* option, std::string_view format,
                                     const MarkdownOptions& markdown) {
  if (format == "none") return nullptr;
  if (format == "md") return std::make_unique<Markdown>(markdown);
  if (format == "csv") return std::make_unique<Csv>();
  if (format == "json") return std::make_unique<Json>();
  if (format == "jsonl") return std::make_unique<Jsonl>();
  if (format == "sql") return std::make_unique<Sql>();
  Fail(ErrorCode::kInvalidArgument,
       "%s: '%s' is not known; it takes md, csv, json, jsonl, sql or none", option,
       Printable(format, 40).c_str());
}

}  // namespace lutra::bench
