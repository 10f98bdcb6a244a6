#include "kernels/base/error.h"
#include "kernels/base/utf8.h"
#include "tests/test_util.h"

namespace lutra {

TEST_CASE("UTF-8: only well-formed sequences have a length") {
  CHECK(Utf8SequenceLength("a") == 1);
  CHECK(Utf8SequenceLength("\xC3\xA9") == 2);
  CHECK(Utf8SequenceLength("\xE2\x82\xAC") == 3);
  CHECK(Utf8SequenceLength("\xF0\x9F\x98\x80") == 4);
  for (const char* bad : {"\x80", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82"}) {
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

}  // namespace lutra
