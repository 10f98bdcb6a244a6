# Writes OUTPUT, a C++ file that defines lutra::server::PageHtml() as the bytes of INPUT.
file(READ "${INPUT}" hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "((0x..,){24})" "\\1\n" bytes "${bytes}")
file(WRITE "${OUTPUT}" "#include \"server/page.h\"

namespace lutra::server {
namespace {
constexpr unsigned char kBytes[] = {
${bytes}
};
}  // namespace

std::string_view PageHtml() { return {reinterpret_cast<const char*>(kBytes), sizeof(kBytes)}; }

}  // namespace lutra::server
")
