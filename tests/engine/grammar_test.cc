// Grammars: what they allow, byte by byte and token by token, and what a hostile one can do (nothing).
#include "engine/grammar/grammar.h"

#include <chrono>
#include <random>

#include "engine/engine.h"
#include "engine/grammar/automaton.h"
#include "engine/grammar/grammar_constraint.h"
#include "kernels/base/error.h"
#include "models/gguf.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

bool Matches(const std::string& grammar, const std::string& text) {
  GrammarAutomaton a(std::make_shared<Grammar>(grammar));
  GrammarAutomaton::State s = a.start();
  for (const char c : text) {
    s = a.Step(s, static_cast<uint8_t>(c));
    if (s == GrammarAutomaton::kDead) return false;
  }
  return a.can_end(s);
}

std::string ErrorOf(const std::string& grammar) {
  try {
    GrammarAutomaton a(std::make_shared<Grammar>(grammar));
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

const char kJson[] = R"(root ::= value
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x00-\x1F] | "\\" ["\\/bfnrtu])* "\"" ws
number ::= "-"? [0-9]+ ("." [0-9]+)? ws
ws ::= [ \n]*
)";

const Tokenizer& DemoTokenizer() {
  static const auto tokenizer = Tokenizer::FromGguf(
      GgufFile::Open(std::string(LUTRA_SOURCE_DIR) + "/models/demo/demo-stories-6m-5.5bpw.gguf"));
  return *tokenizer;
}

}  // namespace

TEST_CASE("Literals, classes, groups and repetitions match what they say") {
  struct Case {
    const char* grammar;
    std::vector<const char*> yes, no;
  };
  const Case cases[] = {
      {"root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "y", "yess", "maybe"}},
      {"root ::= [a-c]+ \"-\"? [^a-z]", {"a1", "abc-Z", "b-\xC3\xA4"}, {"-1", "a", "ad", "aa-x"}},
      {"root ::= \"a\"{2,3} b{0,1} c{2}\nb ::= \"b\"\nc ::= \"c\" | \"d\"",
       {"aacc", "aaabcd"},
       {"acc", "aabbcc", "aaaacc", "aabc"}},
      {"root ::= (\"a\"*)*", {"", "a", "aaaa"}, {"b"}},
      {"root ::= ((\"a\" | \"\")* \"b\"?)+", {"", "aab", "bab"}, {"c"}},
      {"# comment\nroot ::= one |\n  two # more\none ::= \"1\"\ntwo ::= \"2\" root?\n",
       {"1", "2", "2221"},
       {"", "12"}},
      {"root ::= ( \"x\"\n | \"y\" )\n\n | \"z\"", {"x", "y", "z"}, {"xy"}},
      {"root ::= \"\\x41\\u00e4\\U0001F600\\n\\\"\\\\\"",
       {"A\xC3\xA4\xF0\x9F\x98\x80\n\"\\"},
       {"A"}},
      {"root ::= .",
       {"a", "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\n"},
       {"", "ab", "\xC3", "\xFF", "\xED\xA0\x80"}},
      {"root ::= [\xC3\xA4-\xE2\x82\xAC]",
       {"\xC3\xA4", "\xDF\xBF", "\xE0\xA0\x80", "\xE2\x82\xAC"},
       {"\xC3\xA3", "\xE2\x82\xAD", "a"}},
      {"root ::= [\\U00010000-\\U0010FFFF]",
       {"\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"},
       {"\xEF\xBF\xBF", "\xF4\x90\x80\x80"}},
      {"root ::= \"(\" root? \")\"", {"()", "((()))"}, {"(", "())"}},
      {"root ::= [\\]\\-a]+", {"]-a"}, {"b"}},
      {kJson,
       {"{}", "[1, 2.5, {\"a\": \"x\\n\"}]", "\"\xC3\xA4\"", "-3"},
       {"{", "[1,]", "{\"a\"}", "01x", "\"\n\""}},
  };
  for (const Case& c : cases) {
    INFO(c.grammar);
    for (const char* text : c.yes) {
      INFO(text);
      CHECK(Matches(c.grammar, text));
    }
    for (const char* text : c.no) {
      INFO(text);
      CHECK_FALSE(Matches(c.grammar, text));
    }
  }
}

TEST_CASE("A grammar that is wrong is refused with a sentence") {
  const std::pair<const char*, const char*> cases[] = {
      {"", "no rule 'root'"},
      {"start ::= \"a\"", "no rule 'root'"},
      {"root ::= missing", "'missing' is not defined"},
      {"root = \"a\"", "::= is expected"},
      {"root ::= \"a", "ends inside"},
      {"root ::= [a", "ends inside"},
      {"root ::= []", "empty"},
      {"root ::= [z-a]", "ends before"},
      {"root ::= (\"a\"", ") is expected"},
      {"root ::= \"a\")", "end of the line"},
      {"root ::= \"a\"{3,1}", "greater bound"},
      {"root ::= \"a\"{0,100000000}", "more than"},
      {"root ::= \"a\"\nroot ::= \"b\"", "twice"},
      {"root ::= \"\\q\"", "escape"},
      {"root ::= \"\\xZZ\"", "hexadecimal"},
      {"root ::= \"\xFF\"", "UTF-8"},
      {"root ::= root \"a\" | \"b\"", "left recursion"},
      {"root ::= a\na ::= b? c \"x\"\nb ::= \"y\"\nc ::= a | \"z\"", "left recursion"},
      {"root ::= [\\uD800-\\uDFFF]", "surrogates"},
  };
  for (const auto& [grammar, part] : cases) {
    INFO(grammar);
    const std::string error = ErrorOf(grammar);
    INFO(error);
    CHECK(error.find(part) != std::string::npos);
  }
}

TEST_CASE("Hostile grammars end quickly") {
  const auto start = std::chrono::steady_clock::now();
  std::string deep = "root ::= ";
  CHECK_FALSE(ErrorOf(deep + std::string(60000, '(') + "\"a\"" + std::string(60000, ')')).empty());
  std::string nested = "\"a\"";
  for (int i = 0; i < 6; ++i) nested = "(" + nested + "){0,4000}";
  CHECK_FALSE(ErrorOf("root ::= " + nested).empty());
  std::string stars = "root ::= \"a\"" + std::string(500, '*');
  ErrorOf(stars);
  // A chain of rules, deeper than any stack.
  std::string chain = "root ::= r0\n";
  for (int i = 0; i < 20000; ++i)
    chain += "r" + std::to_string(i) + " ::= r" + std::to_string(i + 1) + "\n";
  chain += "r20000 ::= \"x\"";
  CHECK(Matches(chain, "x"));
  // Exponentially many readings of one text.
  const std::string ambiguous = "root ::= s\ns ::= \"a\" s \"b\"? | \"a\" s \"c\"? | \"\"";
  try {
    Matches(ambiguous, std::string(2000, 'a'));
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kResourceExhausted);
  }
  // Deep nesting of the text itself.
  CHECK(Matches(kJson, std::string(20000, '[') + std::string(20000, ']')));
  CHECK(std::chrono::steady_clock::now() - start < testing::Patience(20));
}

TEST_CASE("The mask of a state is exactly the tokens that can follow") {
  const Tokenizer& tokenizer = DemoTokenizer();
  const size_t n_vocab = static_cast<size_t>(tokenizer.n_vocab());
  const auto tree = std::make_shared<TokenTree>(tokenizer, n_vocab);
  const auto compiled = std::make_shared<CompiledGrammar>(kJson, tree);
  std::mt19937 rng(3);
  for (int round = 0; round < 5; ++round) {
    GrammarConstraint constraint(compiled, nullptr);
    std::string text;
    for (int step = 0; step < 40 && !constraint.done(); ++step) {
      const TokenMask& mask = constraint.Mask();
      std::vector<int32_t> allowed;
      for (size_t i = 0; i < n_vocab; ++i) {
        const int32_t id = static_cast<int32_t>(i);
        REQUIRE(mask.Allows(id) == constraint.Allows(id));
        if (mask.Allows(id)) allowed.push_back(id);
      }
      REQUIRE(!allowed.empty());
      const int32_t id = allowed[rng() % allowed.size()];
      if (!tokenizer.IsEog(id)) text += tokenizer.TokenToPiece(id, false);
      constraint.Accept(id);
    }
    GrammarAutomaton a(std::make_shared<Grammar>(kJson));
    GrammarAutomaton::State s = a.start();
    for (const char c : text) s = a.Step(s, static_cast<uint8_t>(c));
    CHECK(s != GrammarAutomaton::kDead);
  }
  CHECK(compiled->masks_made() < compiled->masks_asked());
  // Control tokens are never allowed; the end is, where the grammar can end.
  const auto any = std::make_shared<CompiledGrammar>("root ::= .*", tree);
  GrammarConstraint free_text(any, nullptr);
  for (int32_t id = 0; id < tokenizer.n_vocab(); ++id) {
    if (tokenizer.IsEog(id))
      CHECK(free_text.Allows(id));
    else if (tokenizer.IsControl(id))
      CHECK_FALSE(free_text.Allows(id));
  }
}

TEST_CASE("Text that must come is cut into tokens at once") {
  const Tokenizer& tokenizer = DemoTokenizer();
  // A mark is the token it stands for, in the middle of text too.
  int32_t mark = 0;
  while (mark < tokenizer.n_vocab() && (!tokenizer.IsControl(mark) || tokenizer.IsEog(mark)))
    ++mark;
  REQUIRE(mark < tokenizer.n_vocab());
  const auto marked = std::make_shared<TokenTree>(
      tokenizer, static_cast<size_t>(tokenizer.n_vocab()), std::vector<int32_t>{mark});
  const std::string text_of_mark(marked->bytes(mark));
  GrammarConstraint with_mark(
      std::make_shared<CompiledGrammar>(
          "root ::= \"one " + text_of_mark + " two\" | \"one " + text_of_mark + " three\"", marked),
      &tokenizer);
  const std::vector<int32_t> forced = with_mark.Forced();
  CHECK(std::count(forced.begin(), forced.end(), mark) == 1);
  const auto tree =
      std::make_shared<TokenTree>(tokenizer, static_cast<size_t>(tokenizer.n_vocab()));
  const auto compiled = std::make_shared<CompiledGrammar>(
      "root ::= \"The quick brown fox \" (\"jumps\" | \"sleeps\") \" over it\"", tree);
  GrammarConstraint constraint(compiled, &tokenizer);
  std::string text;
  const auto force = [&] {
    for (const int32_t id : constraint.Forced()) {
      text += tokenizer.TokenToPiece(id, false);
      constraint.Accept(id);
    }
  };
  force();
  CHECK(text.starts_with("The quick brown"));
  while (!constraint.done()) {
    int32_t pick = -1;
    for (int32_t id = 0; id < tokenizer.n_vocab() && pick < 0; ++id) {
      if (constraint.Mask().Allows(id)) pick = id;
    }
    REQUIRE(pick >= 0);
    text += tokenizer.TokenToPiece(pick, false);
    constraint.Accept(pick);
    force();
  }
  const bool one_of_both =
      text == "The quick brown fox jumps over it" || text == "The quick brown fox sleeps over it";
  CHECK(one_of_both);
}

TEST_CASE("A grammar that waits for its trigger leaves what is before it free") {
  const Tokenizer& tokenizer = DemoTokenizer();
  const auto tree =
      std::make_shared<TokenTree>(tokenizer, static_cast<size_t>(tokenizer.n_vocab()));
  GrammarConstraint c(std::make_shared<CompiledGrammar>("root ::= [0-9]+", tree), &tokenizer,
                      GateBehind("park."));
  for (const int32_t id : tokenizer.Encode("The dog went to the park.", false, false)) {
    CHECK_FALSE(c.active());
    CHECK(c.Allows(id));
    c.Accept(id);
  }
  CHECK(c.active());
  CHECK_FALSE(c.Allows(tokenizer.Encode("dog", false, false)[0]));
  CHECK(c.Allows(tokenizer.Encode("7", false, false).back()));
}

}  // namespace lutra
