// Reading what a user types: line editing and history on a terminal (libedit), plain lines otherwise.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace lutra::cli {

// One at a time, on the main thread. Ctrl-C must be handled by a handler installed without SA_RESTART.
class LineEditor {
 public:
  // history_path "": no history file. The file is kept at mode 0600 and at most 1000 lines. `terminal` false: reads lines from stdin
  // without editing or prompt.
  LineEditor(bool terminal, std::string history_path);
  ~LineEditor();

  enum class Status { kLine, kEnd, kInterrupted };
  // The next line without its end. kInterrupted: a signal came while waiting, the line typed so far is dropped.
  Status Read(const std::string& prompt, std::string* line);

  // Remembers an entry (several lines are one entry).
  void AddHistory(const std::string& entry);

  // "$XDG_STATE_HOME/lutra/history" or "~/.local/state/lutra/history"; $LUTRA_HISTORY overrides; "" if there is no home.
  static std::string DefaultHistoryPath();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lutra::cli
