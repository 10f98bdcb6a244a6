// The chat page at GET /: the file page.html, compiled in.
#pragma once

#include <string_view>

namespace lutra::server {

std::string_view PageHtml();

}  // namespace lutra::server
