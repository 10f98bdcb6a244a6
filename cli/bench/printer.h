// Output formats of `lutra bench`.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/bench/record.h"

namespace lutra::bench {

// Which columns the Markdown table shows beside model, size, params, backend, threads, test and t/s.
struct MarkdownOptions {
  std::vector<std::string> columns;  // names of Columns()
};

// Text of one format. Stateless but for the first-row comma of JSON.
class Printer {
 public:
  virtual ~Printer() = default;
  virtual std::string Header() { return ""; }
  virtual std::string Row(const BenchRecord& record) = 0;
  virtual std::string Footer() { return ""; }
};

// "md", "csv", "json", "jsonl", "sql" as in llama-bench; nullptr for "none". Throws Error(kInvalidArgument) naming `option` and
// the formats.
std::unique_ptr<Printer> MakePrinter(const char* option, std::string_view format,
                                     const MarkdownOptions& markdown);

}  // namespace lutra::bench
