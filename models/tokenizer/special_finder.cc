#include "models/tokenizer/special_finder.h"

#include <algorithm>
#include <tuple>

#include "kernels/base/error.h"

namespace lutra {
namespace {

// As C isspace: the attributes of special tokens know no other white space.
bool IsAsciiSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

SpecialFinder::SpecialFinder(const Vocab& vocab) : vocab_(vocab), nodes_(1) {
  struct Edge {
    uint32_t parent, child;
    uint8_t byte;
  };
  std::vector<Edge> edges;
  for (int32_t id = 0; id < vocab.size(); ++id) {
    const TokenType type = vocab.type(id);
    const bool user = type == TokenType::kUserDefined;
    if (!user && type != TokenType::kControl && type != TokenType::kUnknown) continue;
    uint32_t node = 0;
    for (const char c : vocab.text(id)) {
      const auto byte = static_cast<uint8_t>(c);
      uint32_t child = Child(node, byte);
      if (child == 0) {
        child = static_cast<uint32_t>(nodes_.size());
        nodes_.emplace_back().depth = nodes_[node].depth + 1;
        (node == 0 ? root_[byte] : children_[uint64_t{node} << 8 | byte]) = child;
        edges.push_back({node, child, byte});
      }
      node = child;
    }
    if (nodes_[node].any == kNoToken) nodes_[node].any = id;
    if (user && nodes_[node].user == kNoToken) nodes_[node].user = id;
  }
  // Shorter texts first: a node's suffix is done before the node.
  std::sort(edges.begin(), edges.end(), [this](const Edge& a, const Edge& b) {
    return nodes_[a.child].depth < nodes_[b.child].depth;
  });
  for (const Edge& edge : edges) {
    uint32_t suffix = nodes_[edge.parent].fail;
    uint32_t fail = edge.parent == 0 ? 0 : Child(suffix, edge.byte);
    while (fail == 0 && suffix != 0) {
      suffix = nodes_[suffix].fail;
      fail = Child(suffix, edge.byte);
    }
    nodes_[edge.child].fail = fail;
    nodes_[edge.child].next_match = nodes_[fail].any != kNoToken ? fail : nodes_[fail].next_match;
  }
}

uint32_t SpecialFinder::Child(uint32_t node, uint8_t byte) const {
  if (node == 0) return root_[byte];
  const auto it = children_.find(uint64_t{node} << 8 | byte);
  return it == children_.end() ? 0 : it->second;
}

std::vector<SpecialFinder::Match> SpecialFinder::FindAll(std::string_view text,
                                                         bool parse_special) const {
  std::vector<Match> matches;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    uint32_t next = Child(node, byte);
    while (next == 0 && node != 0) {
      node = nodes_[node].fail;
      next = Child(node, byte);
    }
    node = next;
    for (uint32_t m = node; m != 0; m = nodes_[m].next_match) {
      const int32_t token = parse_special ? nodes_[m].any : nodes_[m].user;
      if (token == kNoToken) continue;
      if (matches.size() == kMaxSpecialMatches) {
        Fail(ErrorCode::kResourceExhausted,
             "the text has more than %zu places where special tokens may be (kMaxSpecialMatches)",
             kMaxSpecialMatches);
      }
      matches.push_back({nodes_[m].depth, token, i + 1 - nodes_[m].depth});
    }
  }
  return matches;
}

std::vector<TextFragment> SpecialFinder::Split(std::string_view text, bool parse_special) const {
  std::vector<TextFragment> fragments;
  std::vector<Match> matches =
      nodes_.size() > 1 ? FindAll(text, parse_special) : std::vector<Match>();
  if (matches.empty()) {
    if (!text.empty()) fragments.push_back({kNoToken, text});
    return fragments;
  }
  std::sort(matches.begin(), matches.end(), [](const Match& a, const Match& b) {
    return std::tuple(b.length, a.token, a.begin) < std::tuple(a.length, b.token, b.begin);
  });
  struct Cut {
    size_t begin, end;  // with the white space that belongs to it
    int32_t token;
  };
  std::vector<Cut> cuts;
  std::vector<bool> taken(text.size());
  for (const Match& m : matches) {
    Cut cut = {m.begin, m.begin + m.length, m.token};
    // What was taken before is at least as long: it cannot lie inside, so the ends tell.
    if (taken[cut.begin] || taken[cut.end - 1]) continue;
    if (vocab_.strips_left(m.token)) {
      while (cut.begin > 0 && !taken[cut.begin - 1] && IsAsciiSpace(text[cut.begin - 1]))
        --cut.begin;
    }
    if (vocab_.strips_right(m.token)) {
      while (cut.end < text.size() && !taken[cut.end] && IsAsciiSpace(text[cut.end])) ++cut.end;
    }
    std::fill(taken.begin() + static_cast<ptrdiff_t>(cut.begin),
              taken.begin() + static_cast<ptrdiff_t>(cut.end), true);
    cuts.push_back(cut);
  }
  std::sort(cuts.begin(), cuts.end(), [](const Cut& a, const Cut& b) { return a.begin < b.begin; });
  size_t done = 0;
  for (const Cut& cut : cuts) {
    if (done < cut.begin) fragments.push_back({kNoToken, text.substr(done, cut.begin - done)});
    fragments.push_back({cut.token, text.substr(cut.begin, cut.end - cut.begin)});
    done = cut.end;
  }
  if (done < text.size()) fragments.push_back({kNoToken, text.substr(done)});
  return fragments;
}

}  // namespace lutra
