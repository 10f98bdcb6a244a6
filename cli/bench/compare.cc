#include "cli/bench/compare.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <map>
#include <optional>

#include <nlohmann/json.hpp>

#include "cli/bench/record.h"
#include "kernels/base/error.h"

extern char** environ;

namespace lutra::bench {
namespace {

using Json = nlohmann::json;

// A row of CSV: cells in quotes may hold commas, line ends and doubled quotes.
std::vector<std::string> TakeCsvRow(std::string_view* text) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  size_t i = 0;
  for (; i < text->size(); ++i) {
    const char c = (*text)[i];
    if (quoted && c == '"' && i + 1 < text->size() && (*text)[i + 1] == '"') {
      cells.back() += '"';
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && c == ',') {
      cells.emplace_back();
    } else if (!quoted && c == '\n') {
      ++i;
      break;
    } else if (c != '\r' || quoted) {
      cells.back() += c;
    }
  }
  text->remove_prefix(i);
  return cells;
}

Json CsvToJson(const std::string& text) {
  std::string_view rest = text;
  const std::vector<std::string> names = TakeCsvRow(&rest);
  Json rows = Json::array();
  while (!rest.empty()) {
    const std::vector<std::string> cells = TakeCsvRow(&rest);
    if (cells.size() == 1 && cells[0].empty()) continue;
    Json row = Json::object();
    for (size_t i = 0; i < std::min(names.size(), cells.size()); ++i) {
      double v = 0;
      const char* end = cells[i].data() + cells[i].size();
      const auto [stop, error] = std::from_chars(cells[i].data(), end, v);
      if (error == std::errc() && stop == end) {
        row[names[i]] = v;
      } else {
        row[names[i]] = cells[i];
      }
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

Json ParseRows(const std::string& text, const std::string& name) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos)
    Fail(ErrorCode::kCorrupt, "%s: is empty: no results of a benchmark", name.c_str());
  try {
    if (text[first] == '[') return Json::parse(text);
    if (text[first] != '{') return CsvToJson(text);
    Json rows = Json::array();
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      const std::string line = text.substr(begin, end - begin);
      if (line.find_first_not_of(" \t\r") != std::string::npos) rows.push_back(Json::parse(line));
      begin = end + 1;
    }
    return rows;
  } catch (const Json::exception& e) {
    Fail(ErrorCode::kCorrupt, "%s: is no JSON, JSONL or CSV of a benchmark: %s", name.c_str(),
         Printable(e.what(), 120).c_str());
  }
}

double Number(const Json& row, const char* key, const std::string& name, bool required) {
  const auto it = row.find(key);
  if (it != row.end() && it->is_number()) return it->get<double>();
  if (required)
    Fail(ErrorCode::kCorrupt, "%s: a row has no number %s: no results of a benchmark", name.c_str(),
         key);
  return 0;
}

class Pipe {
 public:
  Pipe() {
    if (::pipe2(fds_.data(), O_CLOEXEC) != 0)
      Fail(ErrorCode::kIo, "cannot make a pipe: %s", std::strerror(errno));
  }
  ~Pipe() {
    Close(0);
    Close(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  int operator[](size_t i) const { return fds_[i]; }
  void Close(size_t i) {
    if (fds_[i] >= 0) ::close(fds_[i]);
    fds_[i] = -1;
  }
  // Appends what is there; closes at the end.
  void Read(std::string* to) {
    char buffer[16384];
    const ssize_t n = ::read(fds_[0], buffer, sizeof buffer);
    if (n > 0) to->append(buffer, static_cast<size_t>(n));
    if (n == 0 || (n < 0 && errno != EINTR)) Close(0);
  }

 private:
  std::array<int, 2> fds_{-1, -1};
};

}  // namespace

std::vector<Series> ReadRuns(const std::string& text, const std::string& name) {
  const Json rows = ParseRows(text, name);
  std::vector<Series> out;
  std::map<std::string, int> seen, threads_of_test;
  bool several_threads = false;
  for (const Json& row : rows) {
    if (!row.is_object())
      Fail(ErrorCode::kCorrupt, "%s: a row is no object: no results of a benchmark", name.c_str());
    several_threads = several_threads || Number(row, "n_threads", name, false) !=
                                             Number(rows[0], "n_threads", name, false);
  }
  for (const Json& row : rows) {
    TestSpec spec;
    spec.n_prompt = static_cast<int>(Number(row, "n_prompt", name, true));
    spec.n_gen = static_cast<int>(Number(row, "n_gen", name, true));
    spec.n_depth = static_cast<int>(Number(row, "n_depth", name, false));
    Series s{TestName(spec), {}};
    if (several_threads)
      s.test += Format(" t%d", static_cast<int>(Number(row, "n_threads", name, false)));
    if (const int n = ++seen[s.test]; n > 1) s.test += Format(" #%d", n);
    const auto samples = row.find("samples_ts");
    if (samples != row.end() && samples->is_array()) {
      for (const Json& v : *samples) {
        if (v.is_number()) s.ts.push_back(v.get<double>());
      }
    }
    if (s.ts.empty()) s.ts.push_back(Number(row, "avg_ts", name, true));
    out.push_back(std::move(s));
  }
  return out;
}

std::vector<Comparison> Compare(const std::vector<Series>& a, const std::vector<Series>& b) {
  std::vector<Comparison> out;
  for (const Series& x : a) {
    for (const Series& y : b) {
      if (x.test != y.test) continue;
      Comparison c;
      c.test = x.test;
      c.a = Median(x.ts);
      c.b = Median(y.ts);
      std::vector<double> ratios;
      for (size_t i = 0; i < std::min(x.ts.size(), y.ts.size()); ++i) {
        if (x.ts[i] > 0) ratios.push_back(y.ts[i] / x.ts[i]);
      }
      c.n_pairs = ratios.size();
      c.ratio = Median(ratios);
      c.interval = BootstrapMedian(ratios);
      c.verdict = ratios.size() < 3     ? "too few runs"
                  : c.interval.low > 1  ? "faster"
                  : c.interval.high < 1 ? "slower"
                                        : "no difference";
      out.push_back(c);
    }
  }
  return out;
}

std::vector<std::string> SplitWords(std::string_view text) {
  std::vector<std::string> words;
  std::optional<std::string> word;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote == 0 && (c == ' ' || c == '\t' || c == '\n')) {
      if (word) words.push_back(*std::exchange(word, std::nullopt));
      continue;
    }
    if (!word) word = "";
    if (quote == 0 && (c == '\'' || c == '"')) {
      quote = c;
    } else if (c == quote) {
      quote = 0;
    } else if (c == '\\' && quote != '\'' && i + 1 < text.size()) {
      *word += text[++i];
    } else {
      *word += c;
    }
  }
  if (quote != 0)
    Fail(ErrorCode::kInvalidArgument, "'%s': a quote %c is not closed",
         Printable(text, 100).c_str(), quote);
  if (word) words.push_back(*word);
  return words;
}

std::string RunProgram(const std::vector<std::string>& words) {
  const std::string name = Printable(words.empty() ? "" : words[0], 200);
  if (words.empty()) Fail(ErrorCode::kInvalidArgument, "no program to run");
  std::vector<std::string> copy = words;
  std::vector<char*> argv;
  for (std::string& w : copy) argv.push_back(w.data());
  argv.push_back(nullptr);

  Pipe out, err;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_adddup2(&actions, err[1], 2);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0)
    Fail(ErrorCode::kNotFound, "%s: cannot run: %s", name.c_str(), std::strerror(error));
  out.Close(1);
  err.Close(1);
  std::string text, messages;
  while (out[0] >= 0 || err[0] >= 0) {
    struct pollfd fds[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) break;
    if (out[0] >= 0 && fds[0].revents != 0) out.Read(&text);
    if (err[0] >= 0 && fds[1].revents != 0) err.Read(&messages);
    if (messages.size() > 8192) messages.erase(0, messages.size() - 4096);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return text;
  while (!messages.empty() && messages.back() == '\n') messages.pop_back();
  const size_t line = messages.find_last_of('\n');
  const std::string last =
      Printable(messages.substr(line == std::string::npos ? 0 : line + 1), 300);
  if (WIFEXITED(status)) {
    Fail(WEXITSTATUS(status) == 127 ? ErrorCode::kNotFound : ErrorCode::kIo,
         "%s: ended with status %d: %s", name.c_str(), WEXITSTATUS(status), last.c_str());
  }
  Fail(ErrorCode::kIo, "%s: was killed by signal %d: %s", name.c_str(), WTERMSIG(status),
       last.c_str());
}

}  // namespace lutra::bench
