// Grammar of Jinja 3.1: precedence from weakest to strongest is `a if b else c`, or, and, not,
// comparisons and `in`, + -, ~, * / // %, ** (from the left), unary + -, then attributes, items, calls,
// filters and tests.
#include <algorithm>
#include <initializer_list>
#include <unordered_map>

#include "kernels/base/error.h"
#include "models/chat/jinja/ast.h"
#include "models/chat/jinja/jinja.h"
#include "models/chat/jinja/lexer.h"

namespace lutra::jinja {
namespace {

class Parser {
 public:
  Parser(std::string_view source, std::string_view name)
      : program_(std::make_shared<Program>()), tokens_(Tokenize(source, name)) {
    program_->name = std::string(name);
    program_->loop_name = Intern("loop");
    program_->caller_name = Intern("caller");
    program_->varargs_name = Intern("varargs");
    program_->kwargs_name = Intern("kwargs");
  }

  std::shared_ptr<const Program> Run() {
    program_->body = ParseBody({}, "the template");
    return program_;
  }

 private:
  using Words = std::initializer_list<std::string_view>;

  // One level of nesting, of statements and expressions together.
  class Nesting {
   public:
    explicit Nesting(Parser* parser) : parser_(parser) {
      if (++parser_->depth_ > kMaxParseDepth) {
        parser_->FailAs(ErrorCode::kResourceExhausted,
                        "nested deeper than " + std::to_string(kMaxParseDepth) + " levels");
      }
    }
    ~Nesting() { --parser_->depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    Parser* parser_;
  };

  // --- tokens

  const Token& Current() const { return tokens_[at_]; }
  const Token& Ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void Next() {
    if (Current().type != TokenType::kEnd) ++at_;
  }
  bool IsOperator(std::string_view text) const {
    return Current().type == TokenType::kOperator && Current().text == text;
  }
  bool IsWord(std::string_view text) const {
    return Current().type == TokenType::kName && Current().text == text;
  }
  bool IsWord(Words words) const {
    return std::any_of(words.begin(), words.end(), [this](auto w) { return IsWord(w); });
  }
  bool SkipOperator(std::string_view text) {
    const bool found = IsOperator(text);
    if (found) Next();
    return found;
  }
  bool SkipWord(std::string_view text) {
    const bool found = IsWord(text);
    if (found) Next();
    return found;
  }
  uint32_t Line() const { return Current().line; }

  [[noreturn]] void FailAs(ErrorCode code, const std::string& what) const {
    lutra::Fail(code, "%s, line %u: %s", program_->name.c_str(), Line(), what.c_str());
  }
  [[noreturn]] void FailFound(const std::string& expected) const {
    FailAs(ErrorCode::kCorrupt, "expected " + expected + ", found " + Describe());
  }
  std::string Describe() const {
    switch (Current().type) {
      case TokenType::kEnd: return "the end of the template";
      case TokenType::kBlockEnd: return "the end of the tag '%}'";
      case TokenType::kVariableEnd: return "the end of the tag '}}'";
      case TokenType::kString: return "the string '" + Printable(Current().text, 40) + "'";
      default: return "'" + Printable(Current().text, 40) + "'";
    }
  }
  void ExpectOperator(std::string_view text) {
    if (!SkipOperator(text)) FailFound("'" + std::string(text) + "'");
  }
  void ExpectWord(std::string_view text) {
    if (!SkipWord(text)) FailFound("'" + std::string(text) + "'");
  }
  void ExpectBlockEnd() {
    if (Current().type != TokenType::kBlockEnd) FailFound("the end of the tag '%}'");
    Next();
  }
  std::string ExpectName() {
    if (Current().type != TokenType::kName) FailFound("a name");
    std::string name = Current().text;
    Next();
    return name;
  }

  int Intern(const std::string& name) {
    const auto [row, added] = name_ids_.try_emplace(name, static_cast<int>(program_->names.size()));
    if (added) program_->names.push_back(name);
    return row->second;
  }

  // --- expressions

  ExprPtr New(ExprKind kind, uint32_t line) const { return std::make_unique<Expr>(kind, line); }

  // Sets the height of a finished node; every node passes here once its children are in place.
  ExprPtr Finish(ExprPtr e) const {
    uint32_t height = 0;
    for (const ExprPtr& child : e->operands) {
      if (child) height = std::max(height, child->height);
    }
    for (const Argument& argument : e->arguments) height = std::max(height, argument.value->height);
    e->height = height + 1;
    if (e->height > kMaxParseDepth) {
      FailAs(ErrorCode::kResourceExhausted,
             "expression nested deeper than " + std::to_string(kMaxParseDepth) + " levels");
    }
    return e;
  }

  ExprPtr Unary(ExprKind kind, uint32_t line, ExprPtr operand) const {
    ExprPtr e = New(kind, line);
    e->operands.push_back(std::move(operand));
    return Finish(std::move(e));
  }

  ExprPtr ParseExpression(bool with_conditional = true) {
    const Nesting nesting(this);
    return with_conditional ? ParseConditional() : ParseOr();
  }

  ExprPtr ParseConditional() {
    ExprPtr first = ParseOr();
    while (IsWord("if")) {
      ExprPtr e = New(ExprKind::kConditional, Line());
      Next();
      e->operands.push_back(ParseOr());
      e->operands.push_back(std::move(first));
      e->operands.push_back(SkipWord("else") ? ParseExpression() : nullptr);
      first = Finish(std::move(e));
    }
    return first;
  }

  ExprPtr ParseOr() {
    ExprPtr first = ParseAnd();
    if (!IsWord("or")) return first;
    ExprPtr e = Start(ExprKind::kOr, std::move(first));
    while (SkipWord("or")) e->operands.push_back(ParseAnd());
    return Finish(std::move(e));
  }

  ExprPtr ParseAnd() {
    ExprPtr first = ParseNot();
    if (!IsWord("and")) return first;
    ExprPtr e = Start(ExprKind::kAnd, std::move(first));
    while (SkipWord("and")) e->operands.push_back(ParseNot());
    return Finish(std::move(e));
  }

  ExprPtr Start(ExprKind kind, ExprPtr first) const {
    ExprPtr e = New(kind, Line());
    e->operands.push_back(std::move(first));
    return e;
  }

  ExprPtr ParseNot() {
    if (!IsWord("not")) return ParseCompare();
    const Nesting nesting(this);
    const uint32_t line = Line();
    Next();
    return Unary(ExprKind::kNot, line, ParseNot());
  }

  bool CompareOperator(Op* op) {
    static const std::pair<std::string_view, Op> kRows[] = {
        {"==", Op::kEqual},     {"!=", Op::kNotEqual}, {"<", Op::kLess},
        {"<=", Op::kLessEqual}, {">", Op::kGreater},   {">=", Op::kGreaterEqual},
    };
    for (const auto& [text, row] : kRows) {
      if (SkipOperator(text)) {
        *op = row;
        return true;
      }
    }
    if (SkipWord("in")) {
      *op = Op::kIn;
      return true;
    }
    if (IsWord("not") && Ahead().type == TokenType::kName && Ahead().text == "in") {
      Next();
      Next();
      *op = Op::kNotIn;
      return true;
    }
    return false;
  }

  ExprPtr ParseCompare() {
    ExprPtr first = ParseSum();
    Op op;
    const uint32_t line = Line();
    if (!CompareOperator(&op)) return first;
    ExprPtr e = New(ExprKind::kCompare, line);
    e->operands.push_back(std::move(first));
    do {
      e->ops.push_back(op);
      e->operands.push_back(ParseSum());
    } while (CompareOperator(&op));
    return Finish(std::move(e));
  }

  using Level = ExprPtr (Parser::*)();
  using OpRow = std::pair<std::string_view, Op>;

  // operand (op operand)*, all of one precedence, from the left.
  ExprPtr ParseChain(Level operand, std::initializer_list<OpRow> rows) {
    ExprPtr first = (this->*operand)();
    ExprPtr e;
    while (true) {
      const auto* row = std::find_if(rows.begin(), rows.end(),
                                     [this](const OpRow& r) { return IsOperator(r.first); });
      if (row == rows.end()) break;
      if (!e) e = Start(ExprKind::kArithmetic, std::move(first));
      Next();
      e->ops.push_back(row->second);
      e->operands.push_back((this->*operand)());
    }
    return e ? Finish(std::move(e)) : std::move(first);
  }

  ExprPtr ParseSum() {
    return ParseChain(&Parser::ParseConcat, {{"+", Op::kAdd}, {"-", Op::kSubtract}});
  }

  ExprPtr ParseConcat() {
    ExprPtr first = ParseProduct();
    if (!IsOperator("~")) return first;
    ExprPtr e = Start(ExprKind::kConcat, std::move(first));
    while (SkipOperator("~")) e->operands.push_back(ParseProduct());
    return Finish(std::move(e));
  }

  ExprPtr ParseProduct() {
    return ParseChain(&Parser::ParsePower, {{"*", Op::kMultiply},
                                            {"/", Op::kDivide},
                                            {"//", Op::kFloorDivide},
                                            {"%", Op::kModulo}});
  }

  ExprPtr ParsePower() { return ParseChain(&Parser::ParseUnaryFiltered, {{"**", Op::kPower}}); }

  ExprPtr ParseUnaryFiltered() { return ParseFiltersAndTests(ParseUnary()); }

  ExprPtr ParseUnary() {
    const uint32_t line = Line();
    ExprPtr e;
    if (IsOperator("-") || IsOperator("+")) {
      const Nesting nesting(this);
      const ExprKind kind = IsOperator("-") ? ExprKind::kNegate : ExprKind::kPlus;
      Next();
      e = Unary(kind, line, ParseUnary());
    } else {
      e = ParsePrimary();
    }
    return ParsePostfix(std::move(e));
  }

  ExprPtr Constant(Value value) {
    ExprPtr e = New(ExprKind::kConst, Line());
    e->value = std::move(value);
    Next();
    return e;
  }

  ExprPtr ParsePrimary() {
    const Token& token = Current();
    switch (token.type) {
      case TokenType::kName: return ParseNameOrConstant();
      case TokenType::kInteger: return Constant(Value::Int(token.integer));
      case TokenType::kFloat: return Constant(Value::Float(token.number));
      case TokenType::kString: {
        ExprPtr e = New(ExprKind::kConst, Line());
        std::string text;
        for (; Current().type == TokenType::kString; Next()) text += Current().text;
        e->value = Value::String(std::move(text));
        return e;
      }
      case TokenType::kOperator:
        if (IsOperator("(")) {
          Next();
          ExprPtr e = ParseTuple(true, {}, true);
          ExpectOperator(")");
          return e;
        }
        if (IsOperator("[")) return ParseList();
        if (IsOperator("{")) return ParseDict();
        [[fallthrough]];
      default: FailFound("a value");
    }
  }

  ExprPtr ParseNameOrConstant() {
    const std::string& word = Current().text;
    if (word == "true" || word == "True") return Constant(Value::Bool(true));
    if (word == "false" || word == "False") return Constant(Value::Bool(false));
    if (word == "none" || word == "None") return Constant(Value::None());
    ExprPtr e = New(ExprKind::kName, Line());
    e->name = Intern(word);
    for (MacroDef* macro : open_macros_) {
      macro->uses_caller |= e->name == program_->caller_name;
      macro->uses_varargs |= e->name == program_->varargs_name;
      macro->uses_kwargs |= e->name == program_->kwargs_name;
    }
    Next();
    return e;
  }

  ExprPtr ParseList() {
    const Nesting nesting(this);
    ExprPtr e = New(ExprKind::kList, Line());
    ExpectOperator("[");
    while (!IsOperator("]")) {
      if (!e->operands.empty()) ExpectOperator(",");
      if (IsOperator("]")) break;
      e->operands.push_back(ParseExpression());
    }
    Next();
    return Finish(std::move(e));
  }

  ExprPtr ParseDict() {
    const Nesting nesting(this);
    ExprPtr e = New(ExprKind::kDict, Line());
    ExpectOperator("{");
    while (!IsOperator("}")) {
      if (!e->operands.empty()) ExpectOperator(",");
      if (IsOperator("}")) break;
      e->operands.push_back(ParseExpression());
      ExpectOperator(":");
      e->operands.push_back(ParseExpression());
    }
    Next();
    return Finish(std::move(e));
  }

  // One expression, or a tuple if commas follow. Ends before `ends`, a closing bracket or a tag's end.
  ExprPtr ParseTuple(bool with_conditional, Words ends, bool in_parentheses) {
    const Nesting nesting(this);
    const uint32_t line = Line();
    std::vector<ExprPtr> items;
    bool is_tuple = false;
    while (true) {
      const TokenType type = Current().type;
      if (type == TokenType::kVariableEnd || type == TokenType::kBlockEnd || IsOperator(")") ||
          IsWord(ends)) {
        break;
      }
      items.push_back(ParseExpression(with_conditional));
      if (!SkipOperator(",")) break;
      is_tuple = true;
    }
    if (!is_tuple) {
      if (!items.empty()) return std::move(items[0]);
      if (!in_parentheses) FailFound("an expression");
    }
    ExprPtr e = New(ExprKind::kTuple, line);
    e->operands = std::move(items);
    return Finish(std::move(e));
  }

  ExprPtr ParsePostfix(ExprPtr e) {
    while (true) {
      if (IsOperator(".")) {
        e = ParseDot(std::move(e));
      } else if (IsOperator("[")) {
        e = ParseSubscript(std::move(e));
      } else if (IsOperator("(")) {
        e = ParseCall(std::move(e));
      } else {
        return e;
      }
    }
  }

  ExprPtr ParseFiltersAndTests(ExprPtr e) {
    while (true) {
      if (IsOperator("|")) {
        Next();
        e = ParseFilter(std::move(e));
      } else if (IsWord("is")) {
        e = ParseTest(std::move(e));
      } else if (IsOperator("(")) {
        e = ParseCall(std::move(e));
      } else {
        return e;
      }
    }
  }

  ExprPtr ParseDot(ExprPtr object) {
    const uint32_t line = Line();
    Next();
    if (Current().type == TokenType::kInteger) {
      ExprPtr e = Unary(ExprKind::kItem, line, std::move(object));
      e->operands.push_back(Constant(Value::Int(Current().integer)));
      return e;
    }
    ExprPtr e = Unary(ExprKind::kAttribute, line, std::move(object));
    e->text = ExpectName();
    return e;
  }

  ExprPtr ParseSubscript(ExprPtr object) {
    const Nesting nesting(this);
    const uint32_t line = Line();
    ExpectOperator("[");
    if (IsOperator("]")) FailFound("an index");
    ExprPtr parts[3];
    bool is_slice = false;
    if (!IsOperator(":")) parts[0] = ParseExpression();
    for (int i = 1; i < 3 && SkipOperator(":"); ++i) {
      is_slice = true;
      if (!IsOperator("]") && !IsOperator(":")) parts[i] = ParseExpression();
    }
    if (!is_slice && IsOperator(",")) {  // x[1, 2]: a tuple as key
      ExprPtr tuple = Start(ExprKind::kTuple, std::move(parts[0]));
      while (SkipOperator(",")) tuple->operands.push_back(ParseExpression());
      parts[0] = Finish(std::move(tuple));
    }
    ExpectOperator("]");
    ExprPtr e = New(is_slice ? ExprKind::kSlice : ExprKind::kItem, line);
    e->operands.push_back(std::move(object));
    for (int i = 0; i < (is_slice ? 3 : 1); ++i) e->operands.push_back(std::move(parts[i]));
    return Finish(std::move(e));
  }

  ExprPtr ParseCall(ExprPtr callee) {
    ExprPtr e = New(ExprKind::kCall, Line());
    e->operands.push_back(std::move(callee));
    e->arguments = ParseArguments();
    return Finish(std::move(e));
  }

  std::vector<Argument> ParseArguments() {
    const Nesting nesting(this);
    std::vector<Argument> arguments;
    ExpectOperator("(");
    bool keywords = false;
    while (!IsOperator(")")) {
      if (!arguments.empty()) ExpectOperator(",");
      if (IsOperator(")")) break;
      Argument a;
      if (SkipOperator("**")) {
        a.type = Argument::Type::kStarStar;
      } else if (SkipOperator("*")) {
        a.type = Argument::Type::kStar;
      } else if (Current().type == TokenType::kName && Ahead().type == TokenType::kOperator &&
                 Ahead().text == "=") {
        a.type = Argument::Type::kKeyword;
        a.keyword = ExpectName();
        Next();
      } else if (keywords) {
        FailAs(ErrorCode::kCorrupt, "an argument without name follows one with a name");
      }
      keywords |= a.type == Argument::Type::kKeyword || a.type == Argument::Type::kStarStar;
      a.value = ParseExpression();
      arguments.push_back(std::move(a));
    }
    Next();
    return arguments;
  }

  std::string ParseDottedName() {
    std::string name = ExpectName();
    while (SkipOperator(".")) name += "." + ExpectName();
    return name;
  }

  // After the '|'. `input` is null for the filters of a block.
  ExprPtr ParseFilter(ExprPtr input) {
    ExprPtr e = New(ExprKind::kFilter, Line());
    e->text = ParseDottedName();
    e->operands.push_back(std::move(input));
    if (IsOperator("(")) e->arguments = ParseArguments();
    return Finish(std::move(e));
  }

  // name(...) | name | ... without a leading value.
  ExprPtr ParseFilterChain() {
    ExprPtr e = ParseFilter(nullptr);
    while (SkipOperator("|")) e = ParseFilter(std::move(e));
    return e;
  }

  ExprPtr ParseTest(ExprPtr input) {
    ExprPtr e = New(ExprKind::kTest, Line());
    Next();
    const bool negated = SkipWord("not");
    e->text = ParseDottedName();
    e->operands.push_back(std::move(input));
    const TokenType type = Current().type;
    if (IsOperator("(")) {
      e->arguments = ParseArguments();
    } else if (type == TokenType::kString || type == TokenType::kInteger ||
               type == TokenType::kFloat || IsOperator("[") || IsOperator("{") ||
               (type == TokenType::kName && !IsWord({"else", "or", "and"}))) {
      if (IsWord("is")) FailAs(ErrorCode::kCorrupt, "tests with 'is' cannot follow each other");
      Argument a;
      a.value = ParsePostfix(ParsePrimary());
      e->arguments.push_back(std::move(a));
    }
    const uint32_t line = e->line;
    e = Finish(std::move(e));
    return negated ? Unary(ExprKind::kNot, line, std::move(e)) : std::move(e);
  }

  // --- statements

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
        default: FailFound("text or a tag");
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
        {"if", &Parser::ParseIf},           {"for", &Parser::ParseFor},
        {"set", &Parser::ParseSet},         {"macro", &Parser::ParseMacro},
        {"call", &Parser::ParseCallBlock},  {"filter", &Parser::ParseFilterBlock},
        {"with", &Parser::ParseWith},       {"generation", &Parser::ParseGeneration},
        {"break", &Parser::ParseLoopExit},  {"continue", &Parser::ParseLoopExit},
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

  const std::shared_ptr<Program> program_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  size_t depth_ = 0;
  int for_depth_ = 0;  // open loops in all
  int loops_ = 0;  // open loops of the innermost macro
  std::vector<MacroDef*> open_macros_;
  std::unordered_map<std::string, int> name_ids_;
};

}  // namespace

const char* OpText(Op op) {
  static constexpr const char* kTexts[] = {"+",  "-", "*",  "/", "//", "%",  "**",    "==",
                                           "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kTexts[static_cast<size_t>(op)];
}

std::shared_ptr<const Program> ParseProgram(std::string_view source, std::string_view name) {
  return Parser(source, name).Run();
}

}  // namespace lutra::jinja
