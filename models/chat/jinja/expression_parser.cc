#include "models/chat/jinja/expression_parser.h"

#include "kernels/base/error.h"

namespace lutra::jinja {

ExpressionParser::ExpressionParser(std::string_view source, std::string_view name)
    : program_(std::make_shared<Program>()), tokens_(Tokenize(source, name)) {
  program_->name = std::string(name);
  program_->loop_name = Intern("loop");
  program_->caller_name = Intern("caller");
  program_->varargs_name = Intern("varargs");
  program_->kwargs_name = Intern("kwargs");
}

ExprPtr ExpressionParser::New(ExprKind kind, uint32_t line) const {
  return std::make_unique<Expr>(kind, line);
}

ExprPtr ExpressionParser::Finish(ExprPtr e) const {
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

ExprPtr ExpressionParser::Unary(ExprKind kind, uint32_t line, ExprPtr operand) const {
  ExprPtr e = New(kind, line);
  e->operands.push_back(std::move(operand));
  return Finish(std::move(e));
}

ExprPtr ExpressionParser::ParseExpression(bool with_conditional) {
  const Nesting nesting(this);
  return with_conditional ? ParseConditional() : ParseOr();
}

ExprPtr ExpressionParser::ParseConditional() {
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

ExprPtr ExpressionParser::ParseOr() {
  ExprPtr first = ParseAnd();
  if (!IsWord("or")) return first;
  ExprPtr e = Start(ExprKind::kOr, std::move(first));
  while (SkipWord("or")) e->operands.push_back(ParseAnd());
  return Finish(std::move(e));
}

ExprPtr ExpressionParser::ParseAnd() {
  ExprPtr first = ParseNot();
  if (!IsWord("and")) return first;
  ExprPtr e = Start(ExprKind::kAnd, std::move(first));
  while (SkipWord("and")) e->operands.push_back(ParseNot());
  return Finish(std::move(e));
}

ExprPtr ExpressionParser::Start(ExprKind kind, ExprPtr first) const {
  ExprPtr e = New(kind, Line());
  e->operands.push_back(std::move(first));
  return e;
}

ExprPtr ExpressionParser::ParseNot() {
  if (!IsWord("not")) return ParseCompare();
  const Nesting nesting(this);
  const uint32_t line = Line();
  Next();
  return Unary(ExprKind::kNot, line, ParseNot());
}

bool ExpressionParser::CompareOperator(Op* op) {
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

ExprPtr ExpressionParser::ParseCompare() {
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

ExprPtr ExpressionParser::ParseChain(Level operand, std::initializer_list<OpRow> rows) {
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

ExprPtr ExpressionParser::ParseSum() {
  return ParseChain(&ExpressionParser::ParseConcat, {{"+", Op::kAdd}, {"-", Op::kSubtract}});
}

ExprPtr ExpressionParser::ParseConcat() {
  ExprPtr first = ParseProduct();
  if (!IsOperator("~")) return first;
  ExprPtr e = Start(ExprKind::kConcat, std::move(first));
  while (SkipOperator("~")) e->operands.push_back(ParseProduct());
  return Finish(std::move(e));
}

ExprPtr ExpressionParser::ParseProduct() {
  return ParseChain(
      &ExpressionParser::ParsePower,
      {{"*", Op::kMultiply}, {"/", Op::kDivide}, {"//", Op::kFloorDivide}, {"%", Op::kModulo}});
}

ExprPtr ExpressionParser::ParsePower() {
  return ParseChain(&ExpressionParser::ParseUnaryFiltered, {{"**", Op::kPower}});
}

ExprPtr ExpressionParser::ParseUnaryFiltered() { return ParseFiltersAndTests(ParseUnary()); }

ExprPtr ExpressionParser::ParseUnary() {
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

ExprPtr ExpressionParser::Constant(Value value) {
  ExprPtr e = New(ExprKind::kConst, Line());
  e->value = std::move(value);
  Next();
  return e;
}

ExprPtr ExpressionParser::ParsePrimary() {
  const Token& token = Current();
  switch (token.type) {
    case TokenType::kName:
      return ParseNameOrConstant();
    case TokenType::kInteger:
      return Constant(Value::Int(token.integer));
    case TokenType::kFloat:
      return Constant(Value::Float(token.number));
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
    default:
      FailFound("a value");
  }
}

ExprPtr ExpressionParser::ParseNameOrConstant() {
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

ExprPtr ExpressionParser::ParseList() {
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

ExprPtr ExpressionParser::ParseDict() {
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

ExprPtr ExpressionParser::ParseTuple(bool with_conditional, Words ends, bool in_parentheses) {
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

ExprPtr ExpressionParser::ParsePostfix(ExprPtr e) {
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

ExprPtr ExpressionParser::ParseFiltersAndTests(ExprPtr e) {
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

ExprPtr ExpressionParser::ParseDot(ExprPtr object) {
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

ExprPtr ExpressionParser::ParseSubscript(ExprPtr object) {
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

ExprPtr ExpressionParser::ParseCall(ExprPtr callee) {
  ExprPtr e = New(ExprKind::kCall, Line());
  e->operands.push_back(std::move(callee));
  e->arguments = ParseArguments();
  return Finish(std::move(e));
}

std::vector<Argument> ExpressionParser::ParseArguments() {
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

std::string ExpressionParser::ParseDottedName() {
  std::string name = ExpectName();
  while (SkipOperator(".")) name += "." + ExpectName();
  return name;
}

ExprPtr ExpressionParser::ParseFilter(ExprPtr input) {
  ExprPtr e = New(ExprKind::kFilter, Line());
  e->text = ParseDottedName();
  e->operands.push_back(std::move(input));
  if (IsOperator("(")) e->arguments = ParseArguments();
  return Finish(std::move(e));
}

ExprPtr ExpressionParser::ParseFilterChain() {
  ExprPtr e = ParseFilter(nullptr);
  while (SkipOperator("|")) e = ParseFilter(std::move(e));
  return e;
}

ExprPtr ExpressionParser::ParseTest(ExprPtr input) {
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

}  // namespace lutra::jinja
