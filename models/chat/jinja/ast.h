// The parsed template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/chat/jinja/value.h"

namespace lutra::jinja {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Block = std::vector<Stmt>;

enum class ExprKind : uint8_t {
  kConst,      // value
  kName,       // name
  kList,       // operands
  kTuple,      // operands
  kDict,       // operands: key, value, key, value, ...
  kAttribute,  // operands[0] . text
  kItem,       // operands[0] [ operands[1] ]
  kSlice,  // operands[0] [ operands[1] : operands[2] : operands[3] ], each of the three may be null
  kCall,   // operands[0] ( arguments )
  kFilter,       // operands[0] | text ( arguments ); operands[0] is null in filter and set blocks
  kTest,         // operands[0] is text ( arguments )
  kNot,          // operands[0]
  kNegate,       // operands[0]
  kPlus,         // operands[0]
  kAnd,          // operands, any number
  kOr,           // operands, any number
  kArithmetic,   // operands[0] ops[0] operands[1] ops[1] ..., from left to right
  kConcat,       // operands joined as text (~)
  kCompare,      // operands[0] ops[0] operands[1] ops[1] ..., a chain as in Python
  kConditional,  // operands: condition, then, else (may be null)
};

enum class Op : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};
const char* OpText(Op op);

struct Argument {
  enum class Type : uint8_t { kPlain, kKeyword, kStar, kStarStar };
  Type type = Type::kPlain;
  std::string keyword;
  ExprPtr value;
};

struct Expr {
  Expr(ExprKind k, uint32_t l) : kind(k), line(l) {}

  ExprKind kind;
  uint32_t line;
  uint32_t height = 1;  // of the tree, bounded by kMaxParseDepth
  int name = -1;        // index into Program::names
  Value value;
  std::string text;
  std::vector<ExprPtr> operands;
  std::vector<Op> ops;
  std::vector<Argument> arguments;
};

// What is assigned to: a name, or a tuple of targets.
struct Target {
  int name = -1;  // -1: a tuple
  std::vector<Target> parts;
};

struct MacroDef {
  std::string name;
  std::vector<int> params;        // names
  std::vector<ExprPtr> defaults;  // of the last defaults.size() parameters
  bool uses_varargs = false;
  bool uses_kwargs = false;
  bool uses_caller = false;
  Block* body = nullptr;  // the body of the Stmt that owns this
};

enum class StmtKind : uint8_t {
  kText,          // text
  kOutput,        // expr
  kIf,            // conditions[i] -> blocks[i]; one block more than conditions: else
  kFor,           // target in expr if conditions[0] (may be empty); blocks[0] body, blocks[1] else
  kSet,           // target = expr
  kSetAttribute,  // target.name . text = expr
  kSetBlock,      // target = blocks[0], through the filters of expr (may be null); `text` as above
  kMacro,         // macro, blocks[0]
  kCallBlock,     // macro (the caller), blocks[0]; expr is the call
  kFilterBlock,   // blocks[0] through the filters of expr
  kWith,          // targets[i] = conditions[i]; blocks[0]
  kScope,         // blocks[0] in a scope of its own (generation)
  kBreak,
  kContinue,
};

struct Stmt {
  Stmt(StmtKind k, uint32_t l) : kind(k), line(l) {}

  StmtKind kind;
  bool recursive = false;  // kFor
  uint32_t line;
  std::string text;
  ExprPtr expr;
  Target target;
  std::vector<Target> targets;
  std::vector<ExprPtr> conditions;
  std::vector<Block> blocks;
  std::unique_ptr<MacroDef> macro;
};

struct Program {
  std::string name;                // of the template, for messages
  std::vector<std::string> names;  // identifiers, each once
  int loop_name = -1;              // "loop", "caller", "varargs", "kwargs"
  int caller_name = -1;
  int varargs_name = -1;
  int kwargs_name = -1;
  Block body;
};

// Throws as Template::Parse says.
std::shared_ptr<const Program> ParseProgram(std::string_view source, std::string_view name);

}  // namespace lutra::jinja
