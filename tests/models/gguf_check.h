// What every GGUF file that opens must satisfy, and what every error must say.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"
#include "models/gguf.h"
#include "tests/alloc_counter.h"
#include "tests/test_util.h"

namespace lutra::testing {

inline constexpr const char* kHostileName = "hostile.gguf";

// Reads all that `file` offers: every value, the ends of every tensor. Under ASan a view beyond the
// bytes dies here.
inline void TouchAll(const GgufFile& file) {
  uint64_t sum = 0;
  for (const auto& [key, value] : file.metadata()) {
    CHECK(file.Find(key) == &value);
    sum += value.ToText(UINT64_MAX, SIZE_MAX).size();
    for (const std::string_view text : value.strings) {
      if (!text.empty())
        sum += static_cast<uint8_t>(text.front()) + static_cast<uint8_t>(text.back());
    }
    // Typed access gives the value or says what is wrong; it never does anything else.
    const auto get = [&key](auto&& getter) {
      try {
        getter();
      } catch (const Error& e) {
        CHECK(e.code() == ErrorCode::kCorrupt);
        CHECK(std::string(e.what()).find(Printable(key, 80)) != std::string::npos);
      }
    };
    get([&, &k = key] { file.GetU32(k); });
    get([&, &k = key] { file.GetU64(k); });
    get([&, &k = key] { file.GetI32(k); });
    get([&, &k = key] { file.GetF32(k); });
    get([&, &k = key] { file.GetBool(k); });
    get([&, &k = key] { file.GetString(k); });
    get([&, &k = key] { file.GetStrings(k); });
    get([&, &k = key] { file.GetF32s(k); });
    get([&, &k = key] { file.GetI32s(k); });
    get([&, &k = key] { file.GetU32PerLayer(k, 3); });
  }
  for (const GgufTensor& t : file.tensors()) {
    CHECK(file.FindTensor(t.name) == &t);
    const std::span<const uint8_t> bytes = file.part(t.part).bytes();
    REQUIRE(t.bytes > 0);
    REQUIRE(t.offset <= bytes.size());
    REQUIRE(t.bytes <= bytes.size() - t.offset);
    CHECK(t.data == bytes.data() + t.offset);
    CHECK(t.n_weights() > 0);
    REQUIRE((t.dims.size() >= 1 && t.dims.size() <= 4));
    CHECK(t.bytes == RowBytes(*t.type, t.dim(0)) * t.dim(1) * t.dim(2) * t.dim(3));
    sum += t.data[0] + t.data[t.bytes - 1];
  }
  CHECK(sum + 1 > 0);
}

// Opens `bytes`, whose memory ends exactly where they end. The message of the Error, or nullopt if
// the file is good (then all of it has been touched). Checks that the message names the file and
// that memory stayed in proportion.
inline std::optional<std::string> TryOpen(std::span<const uint8_t> bytes, bool touch = true) {
  const std::vector<uint8_t> exact(bytes.begin(), bytes.end());
  const AllocWatch watch;
  std::optional<std::string> message;
  try {
    const GgufFile file = GgufFile::FromBytes(exact, kHostileName);
    CHECK(watch.peak_bytes() < 4 * exact.size() + (size_t{16} << 20));
    if (touch) TouchAll(file);
  } catch (const Error& e) {
    CHECK(watch.peak_bytes() < 4 * exact.size() + (size_t{16} << 20));
    message = e.what();
    CHECK_MESSAGE(message->starts_with(std::string(kHostileName) + ": "), *message);
    CHECK_MESSAGE(message->find('\n') == std::string::npos, *message);
    CHECK_MESSAGE(message->size() > 30, *message);
  }
  return message;
}

// The file is refused, and the message has one of `fields` in it.
inline void CheckRefused(std::span<const uint8_t> bytes, const std::vector<std::string>& fields) {
  const std::optional<std::string> message = TryOpen(bytes);
  REQUIRE_MESSAGE(message.has_value(), "accepted; should name " << fields[0]);
  bool named = false;
  for (const std::string& field : fields)
    named = named || message->find(field) != std::string::npos;
  CHECK_MESSAGE(named, *message << " -- does not name " << fields[0]);
}

// A folder that goes away with this object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "lutra-test-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace lutra::testing
