#include "cli/line_editor.h"

#include <histedit.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <filesystem>
#include <iostream>

namespace lutra::cli {
namespace {

constexpr int kHistoryEntries = 1000;

}  // namespace

struct LineEditor::Impl {
  bool terminal = false;
  std::string history_path;
  std::string prompt;
  bool interrupted = false;
  EditLine* editor = nullptr;
  History* history = nullptr;

  static Impl* Of(EditLine* el) {
    void* data = nullptr;
    el_get(el, EL_CLIENTDATA, &data);
    return static_cast<Impl*>(data);
  }
  static char* Prompt(EditLine* el) { return Of(el)->prompt.data(); }

  // One character from the terminal. libedit's own reader swallows the first interrupt; a chat must see it.
  static int ReadChar(EditLine* el, wchar_t* out) {
    Impl* self = Of(el);
    std::mbstate_t state{};
    for (;;) {
      char byte;
      const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
      if (n == 0) return 0;
      if (n < 0) {
        if (errno == EINTR) self->interrupted = true;
        return -1;
      }
      const size_t used = std::mbrtowc(out, &byte, 1, &state);
      if (used == static_cast<size_t>(-2)) continue;  // more bytes to come
      if (used == static_cast<size_t>(-1)) *out = L'\uFFFD';
      return 1;
    }
  }

  void OpenTerminal() {
    std::setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
    editor = el_init("lutra", stdin, stdout, stderr);
    if (editor == nullptr) {
      terminal = false;
      return;
    }
    history = history_init();
    el_set(editor, EL_CLIENTDATA, this);
    el_set(editor, EL_PROMPT_ESC, &Prompt, '\1');
    el_set(editor, EL_EDITOR, "emacs");
    el_set(editor, EL_GETCFN, &ReadChar);
    el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    el_set(editor, EL_BIND, "\\e[1;5C", "em-next-word", nullptr);
    el_set(editor, EL_BIND, "\\e[1;5D", "ed-prev-word", nullptr);
    if (history != nullptr) {
      HistEvent event;
      ::history(history, &event, H_SETSIZE, kHistoryEntries);
      ::history(history, &event, H_SETUNIQUE, 1);
      el_set(editor, EL_HIST, ::history, history);
      if (!history_path.empty()) ::history(history, &event, H_LOAD, history_path.c_str());
    }
    el_source(editor, nullptr);  // the user's ~/.editrc
  }
};

LineEditor::LineEditor(bool terminal, std::string history_path) : impl_(std::make_unique<Impl>()) {
  impl_->terminal = terminal;
  impl_->history_path = std::move(history_path);
  if (terminal) impl_->OpenTerminal();
}

LineEditor::~LineEditor() {
  if (impl_->history != nullptr) history_end(impl_->history);
  if (impl_->editor != nullptr) el_end(impl_->editor);
}

LineEditor::Status LineEditor::Read(const std::string& prompt, std::string* line) {
  line->clear();
  if (!impl_->terminal) {
    return std::getline(std::cin, *line) ? Status::kLine : Status::kEnd;
  }
  impl_->prompt = prompt;
  impl_->interrupted = false;
  int n = 0;
  const char* text = el_gets(impl_->editor, &n);
  if (impl_->interrupted) {
    el_reset(impl_->editor);
    return Status::kInterrupted;
  }
  if (text == nullptr || n <= 0) return Status::kEnd;
  line->assign(text, static_cast<size_t>(n));
  while (!line->empty() && (line->back() == '\n' || line->back() == '\r')) line->pop_back();
  return Status::kLine;
}

void LineEditor::AddHistory(const std::string& entry) {
  if (impl_->history == nullptr || entry.empty()) return;
  HistEvent event;
  ::history(impl_->history, &event, H_ENTER, entry.c_str());
  if (impl_->history_path.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(impl_->history_path).parent_path(),
                                      ignored);
  const mode_t old = ::umask(0077);  // what people tell a model is theirs
  ::history(impl_->history, &event, H_SAVE, impl_->history_path.c_str());
  ::umask(old);
  ::chmod(impl_->history_path.c_str(), 0600);
}

std::string LineEditor::DefaultHistoryPath() {
  if (const char* own = std::getenv("LUTRA_HISTORY")) return own;
  if (const char* state = std::getenv("XDG_STATE_HOME"); state != nullptr && *state != '\0') {
    return std::string(state) + "/lutra/history";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return std::string(home) + "/.local/state/lutra/history";
  }
  return "";
}

}  // namespace lutra::cli
