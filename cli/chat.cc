// `lutra chat`: an interactive conversation.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "cli/args.h"
#include "cli/command.h"
#include "cli/conversation.h"
#include "cli/interrupt.h"
#include "cli/line_editor.h"
#include "cli/model_options.h"
#include "cli/sampling_options.h"
#include "cli/status.h"
#include "engine/generate.h"
#include "kernels/dispatch.h"

namespace lutra::cli {
namespace {

constexpr size_t kMaxReadBytes = 16u << 20;  // of a file named in /read

// Everything the commands work on.
struct Chat {
  Engine& engine;
  Session& session;
  Conversation conversation;
  GenerateOptions options;
  bool colour = false;  // stdout is a terminal
  bool show_status = true;
  bool leave = false;
  Generation last{};
  bool has_last = false;

  const char* Dim() const { return colour ? "\033[2m" : ""; }
  const char* Bold() const { return colour ? "\033[1m" : ""; }
  const char* Plain() const { return colour ? "\033[0m" : ""; }

  // What is not an answer goes to the terminal only: piped output holds answers alone.
  void Note(const std::string& text) const {
    std::fflush(stdout);
    std::fprintf(colour ? stdout : stderr, "%s%s%s\n", Dim(), text.c_str(), Plain());
    std::fflush(stdout);
  }

  void Finish(const Generation& g) {
    if (!g.text.ends_with('\n')) std::printf("\n");
    std::fflush(stdout);
    last = g;
    has_last = true;
    if (g.finish == FinishReason::kContextFull) {
      Note(
          Format("The context of %u tokens is full. /clear forgets the conversation, /undo the "
                 "last turn; a longer context is "
                 "given at start with -c N.",
                 session.n_ctx()));
    }
    if (show_status) Note(StatusLine(g, session, engine));
  }

  // Runs one answer; errors that leave the conversation whole are shown, not thrown.
  template <class Run>
  void Answer(Run run) {
    InterruptFlag() = false;
    try {
      Finish(run());
    } catch (const Error& e) {
      if (e.code() == ErrorCode::kResourceExhausted) {
        Note(std::string(e.what()) + ". Choices: /clear, /undo, or start again with -c N.");
      } else {
        Note(e.what());
      }
    }
    InterruptFlag() = false;
  }
};

struct ChatCommand {
  const char* name;
  const char* arguments;
  const char* help;
  void (*run)(Chat& chat, const std::string& argument);
};

std::span<const ChatCommand> Commands();

void Help(Chat& chat, const std::string&) {
  for (const ChatCommand& c : Commands()) {
    chat.Note(Format("  /%-8s %-14s %s", c.name, c.arguments, c.help));
  }
  chat.Note(
      "  \"\"\" begins and ends a message of several lines; a \\ at the end of a line goes on "
      "too.\n"
      "  Ctrl-C stops an answer (what there is of it is kept); at the prompt, twice leaves. Ctrl-D "
      "leaves.");
}

void System(Chat& chat, const std::string& text) {
  if (text.empty()) {
    const std::string now = chat.conversation.system();
    chat.Note(now.empty() ? "No system message. /system TEXT sets one; /system - removes it."
                          : "System: " + now);
    return;
  }
  chat.conversation.SetSystem(text == "-" ? "" : text);
  chat.Note(text == "-" ? "System message removed." : "System message set.");
}

void Set(Chat& chat, const std::string& text) {
  const size_t space = text.find_first_of(" =");
  if (text.empty() || space == std::string::npos) {
    chat.Note(
        "/set NAME VALUE; /show lists names and values; also /set max_tokens N, /set stop TEXT "
        "(/set stop - for none)");
    return;
  }
  const std::string name = text.substr(0, space);
  const std::string value = text.substr(std::min(text.size(), text.find_first_not_of(" =", space)));
  if (name == "max_tokens") {
    SamplingParams check;  // reuse the integer parser and its messages
    SetByName(&check, "repeat_last_n", value);
    chat.options.max_tokens = static_cast<size_t>(std::max(0, check.repeat_last_n));
  } else if (name == "stop") {
    chat.options.stop.clear();
    if (value != "-") chat.options.stop.push_back(value);
  } else {
    SamplingParams changed = chat.options.sampling;
    SetByName(&changed, name, value);
    Validate(changed);
    chat.options.sampling = changed;
  }
  chat.Note(name + " = " + value);
}

void Show(Chat& chat, const std::string&) {
  for (const SamplingParamRow& row : SamplingParamTable()) {
    chat.Note(Format("  %-22s %-10s %s", row.name, row.Text(chat.options.sampling).c_str(),
                     row.description));
  }
  chat.Note(Format("  %-22s %-10zu most tokens of an answer; 0: no limit", "max_tokens",
                   chat.options.max_tokens));
  std::string stops;
  for (const std::string& s : chat.options.stop)
    stops += (stops.empty() ? "" : ", ") + Printable(s);
  chat.Note(Format("  %-22s %-10s text that ends an answer", "stop",
                   stops.empty() ? "none" : stops.c_str()));
}

void Regen(Chat& chat, const std::string&) {
  chat.Answer([&] { return chat.conversation.Regenerate(chat.options); });
}

void Undo(Chat& chat, const std::string&) {
  chat.Note(chat.conversation.Undo() ? "The last message and its answer are forgotten."
                                     : "Nothing to undo.");
}

void Clear(Chat& chat, const std::string&) {
  chat.conversation.Clear();
  chat.Note("The conversation is forgotten; the system message stays.");
}

void Save(Chat& chat, const std::string& path) {
  if (path.empty()) Fail(ErrorCode::kInvalidArgument, "/save FILE");
  chat.conversation.Save(path);
  chat.Note(
      Format("Saved %zu turns to %s.", chat.conversation.n_turns(), Printable(path, 400).c_str()));
}

void Load(Chat& chat, const std::string& path) {
  if (path.empty()) Fail(ErrorCode::kInvalidArgument, "/load FILE");
  chat.conversation.Load(path);
  chat.Note(Format("Loaded %zu turns.", chat.conversation.n_turns()));
}

void Read(Chat& chat, const std::string& path) {
  if (path.empty())
    Fail(ErrorCode::kInvalidArgument, "/read FILE sends the file's text as your message");
  std::ifstream in(path, std::ios::binary);
  if (!in) Fail(ErrorCode::kNotFound, "%s: cannot open", Printable(path, 400).c_str());
  std::string text;
  std::array<char, 65536> part;
  while (in.read(part.data(), part.size()), in.gcount() > 0) {
    text.append(part.data(), static_cast<size_t>(in.gcount()));
    if (text.size() > kMaxReadBytes)
      Fail(ErrorCode::kResourceExhausted, "%s: larger than %zu bytes", Printable(path, 400).c_str(),
           kMaxReadBytes);
  }
  if (text.empty())
    Fail(ErrorCode::kInvalidArgument, "%s: is empty or not a file", Printable(path, 400).c_str());
  chat.Answer([&] { return chat.conversation.Ask(text, chat.options); });
}

void Stats(Chat& chat, const std::string&) {
  chat.Note(chat.engine.plan().Text());
  chat.Note(chat.engine.thread_reason() + "; SIMD " + SimdName());
  chat.Note(Format("context %zu of %u tokens; %zu turns", chat.session.tokens().size(),
                   chat.session.n_ctx(), chat.conversation.n_turns()));
  if (chat.has_last) chat.Note(StatusLine(chat.last, chat.session, chat.engine));
}

void Exit(Chat& chat, const std::string&) { chat.leave = true; }

constexpr ChatCommand kCommands[] = {
    {"help", "", "this list", Help},
    {"system", "[TEXT | -]", "show, set or remove the system message", System},
    {"set", "NAME VALUE", "change a sampling parameter", Set},
    {"show", "", "sampling parameters and their values", Show},
    {"regen", "", "answer the last message again", Regen},
    {"undo", "", "forget the last message and its answer", Undo},
    {"clear", "", "forget the conversation", Clear},
    {"save", "FILE", "write the conversation to a JSON file", Save},
    {"load", "FILE", "go on with a saved conversation", Load},
    {"read", "FILE", "send a file's text as your message", Read},
    {"stats", "", "memory, threads, speed", Stats},
    {"exit", "", "leave (also /quit, /bye, Ctrl-D)", Exit},
};
std::span<const ChatCommand> Commands() { return kCommands; }

void RunCommand(Chat& chat, const std::string& line) {
  const size_t end = std::min(line.find(' '), line.size());
  std::string name = line.substr(1, end - 1);
  if (name == "quit" || name == "bye") name = "exit";
  if (name == "?") name = "help";
  const size_t begin = line.find_first_not_of(' ', end);
  const std::string argument = begin == std::string::npos ? "" : line.substr(begin);
  for (const ChatCommand& c : kCommands) {
    if (name != c.name) continue;
    try {
      c.run(chat, argument);
    } catch (const Error& e) {
      chat.Note(e.what());
    }
    return;
  }
  chat.Note("No command /" + Printable(name, 40) + "; /help lists them.");
}

enum class Input { kMessage, kEnd, kInterrupted };

// One message: a line, lines that end in \, or lines between """ marks.
Input ReadMessage(LineEditor& editor, const std::string& prompt, std::string* message) {
  message->clear();
  std::string line;
  const auto read = [&](const std::string& with) {
    switch (editor.Read(with, &line)) {
      case LineEditor::Status::kLine:
        return Input::kMessage;
      case LineEditor::Status::kEnd:
        return Input::kEnd;
      case LineEditor::Status::kInterrupted:
        break;
    }
    return Input::kInterrupted;
  };
  Input input = read(prompt);
  if (input != Input::kMessage) return input;
  if (line.starts_with("\"\"\"")) {
    line.erase(0, 3);
    for (bool first = true;; first = false) {
      if (!first) *message += '\n';
      if (const size_t mark = line.find("\"\"\""); mark != std::string::npos) {
        *message += line.substr(0, mark);
        break;
      }
      *message += line;
      if (first && message->empty()) message->clear();
      input = read(". ");
      if (input == Input::kInterrupted) return input;
      if (input == Input::kEnd) break;  // an unfinished block is sent as it is
    }
    // Marks on lines of their own do not belong to the text.
    if (message->starts_with('\n')) message->erase(0, 1);
    if (message->ends_with('\n')) message->pop_back();
  } else {
    while (line.ends_with('\\')) {
      line.pop_back();
      *message += line + '\n';
      input = read(". ");
      if (input == Input::kInterrupted) return input;
      if (input == Input::kEnd) line.clear();
    }
    *message += line;
  }
  return Input::kMessage;
}

void Loop(Chat& chat, LineEditor& editor, bool interactive) {
  const std::string prompt = interactive ? "\1\033[1m\1> \1\033[0m\1" : "";
  bool interrupted_before = false;
  std::string message;
  while (!chat.leave) {
    const Input input = ReadMessage(editor, prompt, &message);
    if (input == Input::kEnd) break;
    if (input == Input::kInterrupted) {
      InterruptFlag() = false;
      std::printf("\n");
      if (interrupted_before || !interactive) break;
      interrupted_before = true;
      chat.Note("Ctrl-C again leaves; so does /exit.");
      continue;
    }
    interrupted_before = false;
    if (message.find_first_not_of(" \t\n") == std::string::npos) continue;
    editor.AddHistory(message);
    if (message.starts_with('/') && message.find('\n') == std::string::npos) {
      RunCommand(chat, message);
    } else {
      chat.Answer([&] { return chat.conversation.Ask(message, chat.options); });
    }
  }
  if (interactive) std::printf("\n");
}

std::string ReadTemplateFile(const std::string& path) {
  if (path.empty()) return "";
  std::ifstream in(path, std::ios::binary);
  if (!in)
    Fail(ErrorCode::kNotFound, "%s: cannot open the template file", Printable(path, 400).c_str());
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace

int RunChat(int argc, char** argv) {
  CLI::App app(
      "Chats with a model. Without -m, with the demo model. Lines from a pipe are messages too; "
      "then only the answers go "
      "to standard output.");
  ModelOptions model;
  GenerateOptions options;
  std::string system, template_file, history = LineEditor::DefaultHistoryPath();
  bool no_history = false, no_colour = false;
  model.kv_type =
      "q8";  // half the memory and traffic for an error below that of 8-bit weights: docs/kernels.md
  AddModelOptions(app, &model);
  app.add_option("-s,--system", system, "system message")->type_name("TEXT");
  app.add_option("-n,--max-tokens,--predict", options.max_tokens,
                 "most tokens of an answer; 0: no limit")
      ->type_name("N");
  app.add_option("--stop", options.stop, "text that ends an answer (repeatable)")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  app.add_option("--chat-template-file", template_file,
                 "Jinja template to use instead of the model's")
      ->type_name("FILE");
  app.add_option("--history", history, "file that keeps your lines ($LUTRA_HISTORY)")
      ->type_name("FILE");
  app.add_flag("--no-history", no_history, "keep no history file");
  app.add_flag("--no-color,--no-colour", no_colour, "no colours");
  AddSamplingOptions(app, &options.sampling);
  if (const auto status = ParseArgs(app, argc, argv)) return *status;

  const bool interactive = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
  const bool terminal = isatty(STDOUT_FILENO);
  if (!terminal && !isatty(STDERR_FILENO)) model.quiet = true;
  const auto engine = LoadEngine(model);
  ApplyModelAdvice(engine->model().file(), app, &options.sampling);
  if (model.model.empty() && !model.quiet) {
    std::fprintf(stderr,
                 "This is the demo model, a toy of 6 million weights: it tells small stories and "
                 "says hello, nothing else.\n"
                 "For a real one, get any Llama or Qwen model as a GGUF file and run: lutra chat "
                 "-m FILE.gguf\n");
  }
  options.cancel = &InterruptFlag();
  options.on_text = [](std::string_view text) {
    return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
           std::fflush(stdout) == 0;
  };
  Session session(*engine);
  Chat chat{*engine, session, Conversation(*engine, session, ReadTemplateFile(template_file)),
            options};
  chat.colour = terminal && !no_colour && std::getenv("NO_COLOR") == nullptr;
  chat.show_status = !model.quiet;
  chat.conversation.SetSystem(system);
  if (interactive) chat.Note("Type a message; /help lists commands.");
  LineEditor editor(interactive, no_history ? "" : history);
  Loop(chat, editor, interactive);
  return FinishOutput(kExitOk);
}

}  // namespace lutra::cli
