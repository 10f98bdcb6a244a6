#include "kernels/base/error.h"
#include "kernels/base/sha256.h"
#include "kernels/base/utf8.h"
#include "tests/test_util.h"

namespace lutra {

TEST_CASE("UTF-8: only well-formed sequences have a length") {
  CHECK(Utf8SequenceLength("a") == 1);
  CHECK(Utf8SequenceLength("\xC3\xA9") == 2);
  CHECK(Utf8SequenceLength("\xE2\x82\xAC") == 3);
  CHECK(Utf8SequenceLength("\xF0\x9F\x98\x80") == 4);
  for (const char* bad : {"\x80", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80", "\xE2\x82"}) {
    CHECK(Utf8SequenceLength(bad) == 0);
  }
  CHECK(Utf8SequenceLength("") == 0);
}

TEST_CASE("UTF-8: a prefix is complete unless more bytes could finish its last character") {
  CHECK(Utf8CompletePrefix("ab\xF0\x9F\x98") == 2);
  CHECK(Utf8CompletePrefix("ab\xF0\x9F\x98\x80") == 6);
  CHECK(Utf8CompletePrefix("ab\xE2") == 2);
  CHECK(Utf8CompletePrefix("ab\xFF") == 3);
  CHECK(Utf8CompletePrefix("\x80\x80") == 2);
  CHECK(Utf8CompletePrefix("") == 0);
}

TEST_CASE("Printable text has no control bytes and no broken UTF-8") {
  CHECK(Printable("a\x1b[31m\n\\") == "a\\x1B[31m\\x0A\\\\");
  CHECK(Printable("\xFF\xC3\xA9") == "\\xFF\xC3\xA9");
  CHECK(Printable("\xC2\x9B") == "\\xC2\\x9B");
  CHECK(Printable("abcdef", 3) == "abc...");
}

TEST_CASE("SHA-256: the published examples, and lengths around a block") {
  const auto hash = [](const std::string& text) {
    return Sha256Hex({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  };
  CHECK(hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hash(std::string(1000000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  // sha256sum of that many zeros.
  CHECK(hash(std::string(55, '\0')) ==
        "02779466cdec163811d078815c633f21901413081449002f24aa3e80f0b88ef7");
  CHECK(hash(std::string(56, '\0')) ==
        "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb");
  CHECK(hash(std::string(64, '\0')) ==
        "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b");
}

}  // namespace lutra
