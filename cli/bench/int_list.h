// Lists and ranges of whole numbers on the command line, as llama-bench writes them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lutra::bench {

// "1,2", "first-last", "first-last+step", "first-last*factor", in any mixture divided by commas: 64-512*2 is 64, 128, 256, 512.
// Each number is within [low, high]. Throws Error(kInvalidArgument) naming `option`, what was given and what it takes.
std::vector<int> ParseIntList(const char* option, std::string_view text, int low, int high);

// "PP,TG": two numbers within [0, high].
std::pair<int, int> ParseIntPair(const char* option, std::string_view text, int high);

}  // namespace lutra::bench
