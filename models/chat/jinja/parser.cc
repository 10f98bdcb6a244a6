// The statements of the grammar: text, {{ expression }} and the tags.
#include "kernels/base/error.h"
#include "models/chat/jinja/expression_parser.h"

namespace lutra::jinja {
namespace {

class Parser : ExpressionParser {
 public:
  Parser(std::string_view source, std::string_view name) : ExpressionParser(source, name) {}

  std::shared_ptr<const Program> Run() {
    program_->body = ParseBody({}, "the template");
    return program_;
  }

 private:
  Target ParseTargetItem() {
    if (SkipOperator("(")) {
      const Nesting nesting(this);
      Target target = ParseTarget();
      ExpectOperator(")");
      return target;
    }
    if (IsWord({"true", "false", "none", "True", "False", "None"})) {
      FailAs(ErrorCode::kCorrupt, "'" + Current().text + "' cannot be assigned to");
    }
    Target target;
    target.name = Intern(ExpectName());
    return target;
  }

  // Assigned to by `for` and `set`.
  Target ParseTarget() {
    if (for_depth_ > 0 && IsWord("loop")) {
      FailAs(ErrorCode::kCorrupt, "'loop' cannot be assigned to inside of a 'for'");
    }
    Target first = ParseTargetItem();
    if (!IsOperator(",")) return first;
    Target tuple;
    tuple.parts.push_back(std::move(first));
    while (SkipOperator(",")) {
      if (Current().type != TokenType::kName && !IsOperator("(")) break;
      if (IsWord("in")) break;
      tuple.parts.push_back(ParseTargetItem());
    }
    return tuple;
  }

  // Statements up to a tag that begins with one of `ends`, whose word is then current.
  Block ParseBody(Words ends, std::string_view what) {
    const Nesting nesting(this);
    Block body;
    while (true) {
      const uint32_t line = Line();
      switch (Current().type) {
        case TokenType::kText: {
          Stmt stmt(StmtKind::kText, line);
          stmt.text = Current().text;
          body.push_back(std::move(stmt));
          Next();
          break;
        }
        case TokenType::kVariableBegin: {
          Next();
          Stmt stmt(StmtKind::kOutput, line);
          stmt.expr = ParseTuple(true, {}, false);
          if (Current().type != TokenType::kVariableEnd) FailFound("the end of the tag '}}'");
          Next();
          body.push_back(std::move(stmt));
          break;
        }
        case TokenType::kBlockBegin:
          Next();
          if (IsWord(ends)) return body;
          body.push_back(ParseStatement());
          break;
        case TokenType::kEnd:
          if (ends.size() == 0) return body;
          FailAs(ErrorCode::kCorrupt, "the template ends inside " + std::string(what) + ": '" +
                                          std::string(*(ends.end() - 1)) + "' is missing");
        default:
          FailFound("text or a tag");
      }
    }
  }

  // The body of a tag that ends with `end`, both included.
  Block ParseBodyThrough(std::string_view end, std::string_view what) {
    SkipOperator(":");
    ExpectBlockEnd();
    Block body = ParseBody({end}, what);
    Next();
    ExpectBlockEnd();
    return body;
  }

  using StatementParser = Stmt (Parser::*)(uint32_t line);

  Stmt ParseStatement() {
    static const std::pair<std::string_view, StatementParser> kRows[] = {
        {"if", &Parser::ParseIf},          {"for", &Parser::ParseFor},
        {"set", &Parser::ParseSet},        {"macro", &Parser::ParseMacro},
        {"call", &Parser::ParseCallBlock}, {"filter", &Parser::ParseFilterBlock},
        {"with", &Parser::ParseWith},      {"generation", &Parser::ParseGeneration},
        {"break", &Parser::ParseLoopExit}, {"continue", &Parser::ParseLoopExit},
        {"print", &Parser::ParsePrint},
    };
    if (Current().type != TokenType::kName) FailFound("the name of a tag");
    for (const auto& [word, parse] : kRows) {
      if (IsWord(word)) return (this->*parse)(Line());
    }
    const std::string word = Current().text;
    if (IsWord({"include", "import", "from", "extends", "block", "do", "autoescape", "trans"})) {
      FailAs(ErrorCode::kUnsupported, "the tag '" + word + "' is not available in chat templates");
    }
    if (word.starts_with("end") || word == "else" || word == "elif") {
      FailAs(ErrorCode::kCorrupt, "'" + Printable(word, 40) + "' without its opening tag");
    }
    FailAs(ErrorCode::kUnsupported, "unknown tag '" + Printable(word, 40) + "'");
  }

  Stmt ParseIf(uint32_t line) {
    Stmt stmt(StmtKind::kIf, line);
    do {  // if and every elif
      Next();
      stmt.conditions.push_back(ParseTuple(false, {}, false));
      SkipOperator(":");
      ExpectBlockEnd();
      stmt.blocks.push_back(ParseBody({"elif", "else", "endif"}, "an 'if'"));
    } while (IsWord("elif"));
    if (SkipWord("else")) {
      SkipOperator(":");
      ExpectBlockEnd();
      stmt.blocks.push_back(ParseBody({"endif"}, "an 'else'"));
    }
    Next();
    ExpectBlockEnd();
    return stmt;
  }

  Stmt ParseFor(uint32_t line) {
    Stmt stmt(StmtKind::kFor, line);
    Next();
    ++for_depth_;
    stmt.target = ParseTarget();
    ExpectWord("in");
    stmt.expr = ParseTuple(false, {"recursive"}, false);
    if (SkipWord("if")) stmt.conditions.push_back(ParseExpression());
    stmt.recursive = SkipWord("recursive");
    SkipOperator(":");
    ExpectBlockEnd();
    ++loops_;
    stmt.blocks.push_back(ParseBody({"else", "endfor"}, "a 'for'"));
    --loops_;
    if (SkipWord("else")) {
      SkipOperator(":");
      ExpectBlockEnd();
      stmt.blocks.push_back(ParseBody({"endfor"}, "the 'else' of a 'for'"));
    }
    Next();
    ExpectBlockEnd();
    --for_depth_;
    return stmt;
  }

  Stmt ParseSet(uint32_t line) {
    Stmt stmt(StmtKind::kSet, line);
    Next();
    stmt.target = ParseTarget();
    if (stmt.target.name >= 0 && SkipOperator(".")) {
      stmt.kind = StmtKind::kSetAttribute;
      stmt.text = ExpectName();
    }
    if (SkipOperator("=")) {
      stmt.expr = ParseTuple(true, {}, false);
      ExpectBlockEnd();
    } else {
      stmt.kind = StmtKind::kSetBlock;
      if (SkipOperator("|")) stmt.expr = ParseFilterChain();
      stmt.blocks.push_back(ParseBodyThrough("endset", "a 'set' block"));
    }
    return stmt;
  }

  // ( name, name = default, ... )
  void ParseSignature(MacroDef* macro) {
    ExpectOperator("(");
    while (!IsOperator(")")) {
      if (!macro->params.empty()) ExpectOperator(",");
      if (IsOperator(")")) break;
      const Target target = ParseTargetItem();
      if (target.name < 0) FailFound("a parameter name");
      macro->params.push_back(target.name);
      if (SkipOperator("=")) {
        macro->defaults.push_back(ParseExpression());
      } else if (!macro->defaults.empty()) {
        FailAs(ErrorCode::kCorrupt, "a parameter without default follows one with a default");
      }
    }
    Next();
  }

  // The body of a macro or call block: loops around it are none of its own.
  void ParseMacroBody(Stmt* stmt, std::string_view end, std::string_view what) {
    const int outer_loops = loops_;
    loops_ = 0;
    open_macros_.push_back(stmt->macro.get());
    stmt->blocks.push_back(ParseBodyThrough(end, what));
    open_macros_.pop_back();
    loops_ = outer_loops;
    stmt->macro->body = &stmt->blocks[0];
  }

  Stmt ParseMacro(uint32_t line) {
    Stmt stmt(StmtKind::kMacro, line);
    Next();
    stmt.macro = std::make_unique<MacroDef>();
    stmt.target = ParseTargetItem();
    if (stmt.target.name < 0) FailFound("the name of a macro");
    stmt.macro->name = program_->names[static_cast<size_t>(stmt.target.name)];
    ParseSignature(stmt.macro.get());
    ParseMacroBody(&stmt, "endmacro", "a 'macro'");
    return stmt;
  }

  Stmt ParseCallBlock(uint32_t line) {
    Stmt stmt(StmtKind::kCallBlock, line);
    Next();
    stmt.macro = std::make_unique<MacroDef>();
    stmt.macro->name = "caller";
    if (IsOperator("(")) ParseSignature(stmt.macro.get());
    stmt.expr = ParseExpression();
    if (stmt.expr->kind != ExprKind::kCall) {
      FailAs(ErrorCode::kCorrupt, "a 'call' block needs a call, as in {% call macro() %}");
    }
    ParseMacroBody(&stmt, "endcall", "a 'call' block");
    return stmt;
  }

  Stmt ParseFilterBlock(uint32_t line) {
    Stmt stmt(StmtKind::kFilterBlock, line);
    Next();
    stmt.expr = ParseFilterChain();
    stmt.blocks.push_back(ParseBodyThrough("endfilter", "a 'filter' block"));
    return stmt;
  }

  Stmt ParseWith(uint32_t line) {
    Stmt stmt(StmtKind::kWith, line);
    Next();
    while (Current().type != TokenType::kBlockEnd) {
      if (!stmt.targets.empty()) ExpectOperator(",");
      stmt.targets.push_back(ParseTargetItem());
      ExpectOperator("=");
      stmt.conditions.push_back(ParseExpression());
    }
    stmt.blocks.push_back(ParseBodyThrough("endwith", "a 'with' block"));
    return stmt;
  }

  Stmt ParseGeneration(uint32_t line) {
    Stmt stmt(StmtKind::kScope, line);
    Next();
    const int outer_loops = loops_;
    loops_ = 0;
    stmt.blocks.push_back(ParseBodyThrough("endgeneration", "a 'generation' block"));
    loops_ = outer_loops;
    return stmt;
  }

  Stmt ParseLoopExit(uint32_t line) {
    Stmt stmt(IsWord("break") ? StmtKind::kBreak : StmtKind::kContinue, line);
    if (loops_ == 0) FailAs(ErrorCode::kCorrupt, "'" + Current().text + "' outside of a loop");
    Next();
    ExpectBlockEnd();
    return stmt;
  }

  Stmt ParsePrint(uint32_t line) {
    Stmt stmt(StmtKind::kOutput, line);
    Next();
    stmt.expr = ParseTuple(true, {}, false);
    ExpectBlockEnd();
    return stmt;
  }

  int for_depth_ = 0;  // open loops in all
  int loops_ = 0;      // open loops of the innermost macro
};

}  // namespace

const char* OpText(Op op) {
  static constexpr const char* kTexts[] = {
      "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kTexts[static_cast<size_t>(op)];
}

std::shared_ptr<const Program> ParseProgram(std::string_view source, std::string_view name) {
  return Parser(source, name).Run();
}

}  // namespace lutra::jinja
