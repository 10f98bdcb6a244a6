// The expressions of the grammar, and the tokens below them; parser.cc adds the statements.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/chat/jinja/ast.h"
#include "models/chat/jinja/jinja.h"
#include "models/chat/jinja/lexer.h"

namespace lutra::jinja {

// Precedence from weakest to strongest: `a if b else c`, or, and, not, comparisons and `in`, + -,
// ~,
// * / // %, ** (from the left), unary + -, then attributes, items, calls, filters and tests. Every
// method begins at the current token and ends at the first one that does not belong to it; all
// throw Error as Template::Parse says.
class ExpressionParser {
 protected:
  ExpressionParser(std::string_view source, std::string_view name);

  using Words = std::initializer_list<std::string_view>;

  // One level of nesting, of statements and expressions together.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser* parser) : parser_(parser) {
      if (++parser_->depth_ > kMaxParseDepth) {
        parser_->FailAs(ErrorCode::kResourceExhausted,
                        "nested deeper than " + std::to_string(kMaxParseDepth) + " levels");
      }
    }
    ~Nesting() { --parser_->depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    ExpressionParser* parser_;
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
      case TokenType::kEnd:
        return "the end of the template";
      case TokenType::kBlockEnd:
        return "the end of the tag '%}'";
      case TokenType::kVariableEnd:
        return "the end of the tag '}}'";
      case TokenType::kString:
        return "the string '" + Printable(Current().text, 40) + "'";
      default:
        return "'" + Printable(Current().text, 40) + "'";
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

  ExprPtr New(ExprKind kind, uint32_t line) const;
  // Sets the height of a finished node; every node passes here once its children are in place.
  ExprPtr Finish(ExprPtr e) const;
  ExprPtr Unary(ExprKind kind, uint32_t line, ExprPtr operand) const;
  ExprPtr ParseExpression(bool with_conditional = true);
  ExprPtr ParseConditional();
  ExprPtr ParseOr();
  ExprPtr ParseAnd();
  ExprPtr Start(ExprKind kind, ExprPtr first) const;
  ExprPtr ParseNot();
  bool CompareOperator(Op* op);
  ExprPtr ParseCompare();
  using Level = ExprPtr (ExpressionParser::*)();
  using OpRow = std::pair<std::string_view, Op>;
  // operand (op operand)*, all of one precedence, from the left.
  ExprPtr ParseChain(Level operand, std::initializer_list<OpRow> rows);
  ExprPtr ParseSum();
  ExprPtr ParseConcat();
  ExprPtr ParseProduct();
  ExprPtr ParsePower();
  ExprPtr ParseUnaryFiltered();
  ExprPtr ParseUnary();
  ExprPtr Constant(Value value);
  ExprPtr ParsePrimary();
  ExprPtr ParseNameOrConstant();
  ExprPtr ParseList();
  ExprPtr ParseDict();
  // One expression, or a tuple if commas follow. Ends before `ends`, a closing bracket or a tag's
  // end.
  ExprPtr ParseTuple(bool with_conditional, Words ends, bool in_parentheses);
  ExprPtr ParsePostfix(ExprPtr e);
  ExprPtr ParseFiltersAndTests(ExprPtr e);
  ExprPtr ParseDot(ExprPtr object);
  ExprPtr ParseSubscript(ExprPtr object);
  ExprPtr ParseCall(ExprPtr callee);
  std::vector<Argument> ParseArguments();
  std::string ParseDottedName();
  // After the '|'. `input` is null for the filters of a block.
  ExprPtr ParseFilter(ExprPtr input);
  // name(...) | name | ... without a leading value.
  ExprPtr ParseFilterChain();
  ExprPtr ParseTest(ExprPtr input);

  const std::shared_ptr<Program> program_;
  std::vector<MacroDef*> open_macros_;  // those whose bodies are being parsed

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
  size_t depth_ = 0;
  std::unordered_map<std::string, int> name_ids_;
};

}  // namespace lutra::jinja
