// Templates that run away or are broken: each ends soon, with an Error that says what and where.
#include <chrono>
#include <ctime>
#include <filesystem>
#include <random>

#include <nlohmann/json.hpp>

#include "models/chat/jinja/jinja.h"
#include "tests/test_util.h"

namespace lutra::jinja {
namespace {

using Json = nlohmann::ordered_json;

std::string Repeat(const std::string& text, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += text;
  return out;
}

struct Outcome {
  bool refused = false;
  ErrorCode code = ErrorCode::kInternal;
  std::string text;  // rendered, or the message
};

Outcome Run(const std::string& source, const Json& context = Json::object(),
            size_t max_steps = kDefaultMaxSteps) {
  RenderOptions options;
  options.max_steps = max_steps;
  try {
    return {false, ErrorCode::kInternal, Template::Parse(source).Render(context, options)};
  } catch (const Error& e) {
    return {true, e.code(), e.what()};
  }
}

std::vector<std::string> Bombs() {
  const std::string doubling = "{% set ns = namespace(x='abcdefgh') %}{% for i in range(1000) %}";
  return {
      "{% for i in range(10**9) %}x{% endfor %}",
      "{{ range(10**18)|length }}",
      "{{ range(-9223372036854775807, 9223372036854775807)|length }}",
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
      "{{ 'a' * 4000000000 }}",
      "{{ 4000000000 * 'a' }}",
      "{{ 'abc' * 9223372036854775807 }}",
      "{{ [1, 2] * 9223372036854775807 }}",
      "{{ ([0] * 1000000) * 1000000 }}",
      doubling + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
      doubling + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
      doubling + "{% set ns.x = ns.x|replace('a', 'aaaaaaaaaaaaaaaa') %}{% endfor %}",
      doubling + "{% set ns.x = ns.x|tojson|tojson %}{% endfor %}{{ ns.x }}",
      doubling + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
      doubling + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == ns.x[0] }}{{ ns.x|tojson }}",
      doubling + "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
      doubling + "{% set ns.x = {'k': ns.x} %}{% endfor %}{{ ns.x|tojson }}",
      doubling + "{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
      "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}",
      "{% set ns = namespace() %}{% set ns.l = [ns] %}{{ ns.l }}{{ ns.l|string }}",
      "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + [i] %}{% "
      "endfor %}",
      "{% set ns = namespace(d=[1]) %}{% for i in range(99) %}{% set ns.d = ns.d + ns.d %}{% "
      "endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
      "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
      "{% macro m(n) %}{% if n < 60 %}{{ m(n + 1) }}{{ m(n + 1) }}{% endif %}{% endmacro %}{{ m(0) "
      "}}",
      "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{{ caller }}{% endmacro %}{{ m() }}",
      "{% macro m(x) %}{{ ((((((((((m(x)))))))))))|upper|lower|trim }}{% endmacro %}{{ m(1) }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{% for x in [1, 1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
      "{{ " + Repeat("(", 50000) + "1" + Repeat(")", 50000) + " }}",
      "{{ " + Repeat("[", 50000) + Repeat("]", 50000) + " }}",
      "{{ " + Repeat("-", 50000) + "1 }}",
      "{{ " + Repeat("not ", 50000) + "1 }}",
      "{{ x" + Repeat("|upper", 50000) + " }}",
      "{{ x" + Repeat(".y", 50000) + " }}",
      "{{ x" + Repeat("(1)", 50000) + " }}",
      "{{ " + Repeat("1 if 1 else ", 50000) + "1 }}",
      "{{ x" + Repeat(" is defined", 50000) + " }}",
      Repeat("{% if 1 %}", 50000) + Repeat("{% endif %}", 50000),
      Repeat("{% for i in [1] %}", 50000) + Repeat("{% endfor %}", 50000),
      Repeat("{% macro m() %}", 1000) + Repeat("{% endmacro %}", 1000),
      std::string(kMaxTemplateBytes + 1, 'x'),
      "{{ '%999999999d' % 1 }}",
      "{{ '%.999999999f' % 1.5 }}",
      "{{ '%*d' % (2000000000, 1) }}",
      "{{ '{:>999999999}'.format(1) }}",
      "{{ '{:.999999999f}'.format(1.5) }}",
      "{{ 'x'.center(10**12) }}{{ 'x'|center(10**12) }}",
      "{{ 'x'.zfill(10**12) }}",
      "{{ 'x'.ljust(10**12) }}",
      "{{ '\t'.expandtabs(10**12) }}",
      "{{ 'a\nb'|indent(10**12) }}",
      "{{ [1]|tojson(indent=10**12) }}",
      "{{ [1]|batch(10**12, 0)|list }}",
      "{{ [1]|slice(10**12, 0)|list }}",
      "{{ 10 ** 400 }}",
      "{{ 9223372036854775807 + 1 }}",
      "{% set s = 'a' * 4000000 %}{{ (s ~ s) }}",
      "{% set s = 'a' * 2000000 %}{% for i in range(99999) %}{{ s.find('b') }}{{ s|upper|length "
      "}}{% endfor %}",
      "{% set s = 'a' * 2000000 %}{% for i in range(99999) %}{{ (s ~ 'b') in s }}{% endfor %}",
      "{% set s = 'a' * 2000000 %}{{ s.replace('', s) }}",
      "{% set s = 'ab' * 1000000 %}{{ s.replace('a', s) }}",
      "{% set s = 'a' * 1000000 %}{{ s.join(s) }}{{ s|join(s) }}",
      "{% set s = 'ab ' * 1000000 %}{% for i in range(999) %}{{ s.split() }}{{ s.split('a')|length "
      "}}{% endfor %}",
      "{% set l = range(99999)|list %}{% for i in range(99999) %}{{ l|sort|first }}{% endfor %}",
      "{% set l = range(99999)|list %}{% for i in l %}{{ i in l }}{% endfor %}",
      "{% set l = range(99999)|list %}{% for i in l %}{{ l[::-1]|length }}{% endfor %}",
      "{% set l = range(99999)|list %}{{ l|map('string')|map('replace', '', 'x' * "
      "9999)|join|length }}",
      "{% set l = range(99999)|list %}{{ l|sum(start=0.5) }}{% for i in l %}{{ "
      "l|unique|list|length }}{% endfor %}",
      "{% set j = 'x' * 4000000 %}{% for i in range(999) %}{% set j = j|tojson %}{{ j|length }}{% "
      "endfor %}",
      "{% for i in range(99999) %}{% for c in 'x' * 99999 %}{% endfor %}{% endfor %}",
      "{% for i in range(99999) %}{% macro m() %}{% endmacro %}{% call range(9) %}{% endcall %}{% "
      "endfor %}",
      "{% macro m() %}{{ caller() }}{% endmacro %}{% for a in range(99999) %}{% for b in "
      "range(999) %}"
      "{% call m() %}{{ a }}{% endcall %}{% endfor %}{% endfor %}",
      "{% for i in range(99999) %}{% set x = namespace(a=[1,2,3], b={'c': i}) %}{% for k in "
      "range(99) %}"
      "{% set y = namespace(x=x) %}{% endfor %}{% endfor %}",
      "{{ strftime_now('%A' * 1000000) }}",
  };
}

TEST_CASE("bombs end soon, with a sentence") {
  double slowest = 0;
  std::string which;
  const std::vector<std::string> bombs = Bombs();
  CHECK(bombs.size() >= 30);
  for (const std::string& bomb : bombs) {
    INFO(bomb.substr(0, 120));
    const std::clock_t start = std::clock();
    const Outcome outcome = Run(bomb);
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    if (seconds > slowest) {
      slowest = seconds;
      which = bomb.substr(0, 120);
    }
    CHECK_MESSAGE(outcome.refused, "rendered " << outcome.text.size() << " bytes");
    CHECK(outcome.text.starts_with("chat template"));
    CHECK(outcome.text.size() < 300);
    // Processor seconds; many times what it takes, for slow machines.
    CHECK(seconds < static_cast<double>(testing::Patience(10).count()) / 1e3);
  }
  MESSAGE("slowest of " << bombs.size() << " bombs: " << slowest << " s: " << which);
}

TEST_CASE("limits are not in the way of real use") {
  Json messages = Json::array();
  for (int i = 0; i < 2000; ++i) {
    messages.push_back(
        {{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", Repeat("text ", 200)}});
  }
  const std::string source =
      "{% for m in messages %}{% set content = m.content|trim %}{% if loop.first or "
      "messages[loop.index0 - "
      "1].role != m.role %}{{ '<|' + m.role + '|>\\n' + content + '<|end|>\\n' }}{% endif %}{% "
      "endfor %}";
  const Outcome outcome = Run(source, {{"messages", messages}});
  CHECK_MESSAGE(!outcome.refused, outcome.text);
  CHECK(outcome.text.size() > 2000000);
}

TEST_CASE("input nested too deeply is refused") {
  Json deep = 1;
  for (int i = 0; i < 150; ++i) {
    Json outer = Json::array();
    outer.push_back(std::move(deep));
    deep = std::move(outer);
  }
  CHECK(Run("{{ x }}", {{"x", deep}}).code == ErrorCode::kResourceExhausted);
  CHECK(Run("{{ y }}", {{"x", deep}}).refused == false);
}

TEST_CASE("errors name template, line and construct") {
  struct Row {
    const char* source;
    ErrorCode code;
    const char* text;
  };
  const Row rows[] = {
      {"\n\n{{ x|foo }}", ErrorCode::kUnsupported, "chat template, line 3: unknown filter 'foo'"},
      {"a\n{{ 1 is foo }}", ErrorCode::kUnsupported, "chat template, line 2: unknown test 'foo'"},
      {"{% frob %}", ErrorCode::kUnsupported, "chat template, line 1: unknown tag 'frob'"},
      {"\n{% include 'x' %}", ErrorCode::kUnsupported,
       "chat template, line 2: the tag 'include' is not available in chat templates"},
      {"{{ x.y }}", ErrorCode::kInvalidArgument, "chat template, line 1: 'x' is undefined"},
      {"{% set d = {'a': 1} %}\n{{ d.b.c }}", ErrorCode::kInvalidArgument,
       "chat template, line 2: dict has no attribute 'b'"},
      {"{{\n'a' +\n1 }}", ErrorCode::kInvalidArgument,
       "chat template, line 3: '+' does not work on str and int"},
      {"{{ [1].append(2) }}", ErrorCode::kInvalidArgument,
       "chat template, line 1: list.append would change a value, which chat templates may not"},
      {"{% if x %}", ErrorCode::kCorrupt,
       "chat template, line 1: the template ends inside an 'if': 'endif' is missing"},
      {"{{ 1 + }}", ErrorCode::kCorrupt,
       "chat template, line 1: expected a value, found the end of the tag '}}'"},
      {"\n{{ raise_exception('Roles!') }}", ErrorCode::kInvalidArgument,
       "chat template, line 2: the template refuses the conversation: Roles!"},
      {"{% macro m(a) %}{% endmacro %}\n{{ m(b=1) }}", ErrorCode::kInvalidArgument,
       "chat template, line 2: macro 'm' takes no argument 'b'"},
      {"{{ 'x'.split(1) }}", ErrorCode::kInvalidArgument,
       "chat template, line 1: split: needs a string, got int"},
  };
  for (const Row& row : rows) {
    INFO(row.source);
    const Outcome outcome = Run(row.source);
    CHECK(outcome.refused);
    CHECK(outcome.code == row.code);
    CHECK(outcome.text == row.text);
  }
  CHECK_THROWS_WITH_AS(Template::Parse("{{ ", "mine.jinja"),
                       "mine.jinja, line 1: '{{' without its end '}}'", Error);
}

TEST_CASE("one template renders in several contexts without memory of the one before") {
  const Template t = Template::Parse(
      "{% set ns = namespace(n=0) %}{% for i in l %}{% set ns.n = "
      "ns.n + i %}{% endfor %}{{ ns.n }}{{ x }}{% set x = 1 %}");
  CHECK(t.Render({{"l", {1, 2}}}) == "3");
  CHECK(t.Render({{"l", {5}}, {"x", "!"}}) == "5!");
  CHECK(t.Render({{"l", {1, 2}}}) == "3");
}

// Small damage: bytes cut, doubled, moved or replaced by what templates are made of.
std::string Mutate(std::string text, std::mt19937* random) {
  static const std::vector<std::string> kPieces = {"{{",
                                                   "}}",
                                                   "{%",
                                                   "%}",
                                                   "{#",
                                                   "#}",
                                                   "-",
                                                   "|",
                                                   "(",
                                                   ")",
                                                   "[",
                                                   "]",
                                                   "'",
                                                   "\"",
                                                   ".",
                                                   ",",
                                                   ":",
                                                   "~",
                                                   "{% if x %}",
                                                   "{% endif %}",
                                                   "{% for i in messages %}",
                                                   "{% endfor %}",
                                                   "{% else %}",
                                                   "{% set x = ",
                                                   "{% endset %}",
                                                   "{% macro m(",
                                                   "{% endmacro %}",
                                                   "{% raw %}",
                                                   " is ",
                                                   " not ",
                                                   " in ",
                                                   " if ",
                                                   " else ",
                                                   "loop",
                                                   "messages",
                                                   "none",
                                                   "**",
                                                   "//",
                                                   "999999999",
                                                   "\\",
                                                   "\n",
                                                   "\xff",
                                                   "|tojson",
                                                   "|join",
                                                   "|list",
                                                   "[::-1]",
                                                   "[1:]",
                                                   ".items()",
                                                   ".split('",
                                                   "namespace(",
                                                   "{",
                                                   "}"};
  const auto below = [random](size_t n) { return (*random)() % std::max<size_t>(n, 1); };
  const size_t n_changes = 1 + below(4);
  for (size_t i = 0; i < n_changes; ++i) {
    const size_t at = below(text.size());
    const size_t length = below(30);
    switch (below(4)) {
      case 0:
        text.erase(at, length);
        break;
      case 1:
        text.insert(at, kPieces[below(kPieces.size())]);
        break;
      case 2:
        text.insert(below(text.size()), text.substr(at, length * 4));
        break;
      default:
        text.replace(at, std::min(length, text.size() - at), kPieces[below(kPieces.size())]);
    }
  }
  return text;
}

TEST_CASE("damaged templates render or are refused, never worse") {
  std::mt19937 random(20260726);
  size_t n = 0;
  size_t n_refused = 0;
  const std::string folder = std::string(LUTRA_TEST_DATA) + "/templates";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const Json file = Json::parse(lutra::testing::ReadText(entry.path().string()));
    const std::string source = file["template"];
    for (int i = 0; i < 250; ++i, ++n) {
      const std::string mutant = Mutate(source, &random);
      Json context = file["cases"][random() % file["cases"].size()]["input"];
      context["bos_token"] = "<s>";
      context["eos_token"] = "</s>";
      n_refused += Run(mutant, context, 200'000).refused;
    }
  }
  // Snippets: every construct, damaged.
  const Json file =
      Json::parse(lutra::testing::ReadText(std::string(LUTRA_TEST_DATA) + "/jinja_cases.json"));
  for (const Json& test : file["cases"]) {
    for (int i = 0; i < 3; ++i, ++n) {
      n_refused += Run(Mutate(test["template"], &random), file["context"], 200'000).refused;
    }
  }
  CHECK(n >= 5000);
  CHECK(n_refused > n / 10);
  CHECK(n_refused < n);
}

TEST_CASE("bytes that are no text are refused or rendered") {
  std::mt19937 random(7);
  for (int i = 0; i < 500; ++i) {
    std::string source = "{{ x";
    for (int k = 0; k < 40; ++k) source += static_cast<char>(random());
    Run(source + "}}", {{"x", "\xc3\x28"}}, 10'000);
    std::string text;
    for (int k = 0; k < 40; ++k) text += static_cast<char>(random());
    Json context = Json::object();
    context["x"] = text;
    Run("{{ x[::-1] }}{{ x|upper }}{{ x|tojson }}{{ x.split() }}{{ x[1:3] }}{{ x.title() }}"
        "{{ x|tojson(true) }}{{ [x] }}{{ x.center(80, x[0]) }}{{ x|list }}{{ x.strip(x[3]) }}",
        context, 100'000);
  }
}

}  // namespace
}  // namespace lutra::jinja
