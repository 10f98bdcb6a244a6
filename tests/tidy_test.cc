// Reads the tree: includes point one way, each library stays where it belongs, ARCHITECTURE.md names real files.
#include <map>
#include <regex>
#include <set>

#include "tests/test_util.h"

namespace lutra {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kFolders = {"kernels", "models", "engine",    "server",
                                           "cli",     "tests",  "benchmarks"};

std::vector<fs::path> Sources() {
  std::vector<fs::path> files;
  for (const std::string& folder : kFolders) {
    const fs::path root = fs::path(LUTRA_SOURCE_DIR) / folder;
    if (!fs::exists(root)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      const std::string ext = entry.path().extension();
      if (ext == ".h" || ext == ".cc") files.push_back(entry.path());
    }
  }
  return files;
}

std::string Relative(const fs::path& p) { return fs::relative(p, LUTRA_SOURCE_DIR).string(); }

// Lowest layer first.
int Layer(const std::string& path) {
  static const std::vector<std::string> kLayers = {"kernels/base/", "kernels/", "models/",
                                                   "engine/",       "server/",  "cli/"};
  for (size_t i = 0; i < kLayers.size(); ++i) {
    if (path.rfind(kLayers[i], 0) == 0) return static_cast<int>(i);
  }
  return 100;
}

}  // namespace

TEST_CASE("Includes point from cli down to kernels/base, never up") {
  const std::regex include(R"re(^\s*#\s*include\s+"([a-z_]+/[^"]+)")re");
  size_t n = 0;
  for (const fs::path& file : Sources()) {
    const std::string from = Relative(file);
    std::ifstream in(file);
    std::string line;
    std::smatch m;
    while (std::getline(in, line)) {
      if (!std::regex_search(line, m, include)) continue;
      ++n;
      const std::string to = m[1];
      INFO(from, " includes ", to);
      CHECK(fs::exists(fs::path(LUTRA_SOURCE_DIR) / to));
      CHECK(Layer(to) <= Layer(from));
      if (Layer(from) < 100) CHECK(Layer(to) < 100);  // nothing includes tests or benchmarks
    }
  }
  CHECK(n > 100);
}

TEST_CASE("Libraries stay in their folders") {
  // Header prefix -> where it may be included.
  const std::vector<std::pair<std::string, std::string>> rules = {
      {"hwy/", "^kernels/"},
      {"oneapi/|tbb/", "^kernels/base/parallel\\.cc$"},
      {"httplib", "^(server|tests/server)/"},
      {"nlohmann/", "^(server|cli|benchmarks|models/chat|tests)/"},
      {"doctest/", "^tests/"},
      {"pcre2", "^(models/tokenizer|tests/models/tokenizer)/"},
      {"histedit", "^cli/line_editor\\.cc$"},
      {"CLI/", "^cli/"},
  };
  for (const fs::path& file : Sources()) {
    const std::string from = Relative(file);
    const std::string text = testing::ReadText(file.string());
    for (const auto& [header, where] : rules) {
      const std::regex include("#\\s*include\\s+[<\"](" + header + ")");
      if (!std::regex_search(text, include)) continue;
      INFO(from, " includes ", header);
      CHECK(std::regex_search(from, std::regex(where)));
    }
  }
}

TEST_CASE("Outside data is parsed without strtol and its kin, and memory is not managed by hand") {
  const std::regex banned(
      R"re(\b(std::)?(stoi|stol|stoul|stoull|stof|stod|atoi|atol|atof|strtol|strtoul|strtod|sprintf|gets)\s*\()re");
  const std::regex march(R"re(-march=|-ffast-math|-Ofast)re");
  for (const fs::path& file : Sources()) {
    const std::string from = Relative(file);
    if (from.rfind("tests/", 0) == 0) continue;
    INFO(from);
    CHECK_FALSE(std::regex_search(testing::ReadText(file.string()), banned));
  }
  for (const char* cmake : {"CMakeLists.txt", "kernels/CMakeLists.txt", "models/CMakeLists.txt",
                            "engine/CMakeLists.txt", "cli/CMakeLists.txt", "tests/CMakeLists.txt",
                            "third_party/dependencies.cmake", "CMakePresets.json", "Makefile"}) {
    INFO(cmake);
    CHECK_FALSE(
        std::regex_search(testing::ReadText(std::string(LUTRA_SOURCE_DIR) + "/" + cmake), march));
  }
}

TEST_CASE("Only the registry compares architecture names") {
  for (const fs::path& file : Sources()) {
    const std::string from = Relative(file);
    if (from.rfind("models/arch/", 0) == 0 || from.rfind("tests/", 0) == 0) continue;
    INFO(from);
    CHECK_FALSE(
        std::regex_search(testing::ReadText(file.string()), std::regex(R"re(arch\w*\s*==\s*")re")));
  }
}

TEST_CASE("ARCHITECTURE.md and README.md name files that exist") {
  const std::regex quoted(
      R"re(`([a-z_0-9]+(/[A-Za-z_0-9.\-]+)+|[A-Za-z_0-9]+\.(md|cc|h|sh|cmake|json))`)re");
  for (const char* doc : {"ARCHITECTURE.md", "README.md", "third_party/README.md"}) {
    const std::string text = testing::ReadText(std::string(LUTRA_SOURCE_DIR) + "/" + doc);
    for (std::sregex_iterator it(text.begin(), text.end(), quoted), end; it != end; ++it) {
      const std::string name = (*it)[1];
      if (name.rfind("build/", 0) == 0) continue;
      bool found = false;
      for (const char* base : {"", "kernels/", "kernels/base/", "models/", "engine/", "server/",
                               "cli/", "third_party/"}) {
        found = found || fs::exists(fs::path(LUTRA_SOURCE_DIR) / base / name);
      }
      INFO(doc, " names ", name);
      CHECK(found);
    }
  }
}

}  // namespace lutra
