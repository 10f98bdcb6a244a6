// The memory of all keys and values a server holds: pages of kKvPage positions with reference counts, and the tree of prefixes
// that were computed before. Both belong to one thread (the scheduler's).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/aligned.h"

namespace lutra {

// Pages are named by index. A page with no references is free.
class KvPool {
 public:
  // Memory is reserved at once and touched as it fills.
  KvPool(size_t page_bytes, size_t n_pages);

  // A page with one reference, or -1 if none is free.
  int Allocate();
  void AddRef(int page);
  void Release(int page);
  // Marks a page as held by the prefix tree (which has one reference).
  void SetInTree(int page, bool in_tree);

  uint8_t* data(int page) { return memory_.data() + static_cast<size_t>(page) * page_bytes_; }
  void CopyPage(int from, int to);
  size_t page_bytes() const { return page_bytes_; }
  size_t n_pages() const { return refs_.size(); }
  size_t n_free() const { return free_.size(); }
  // Pages that only the prefix tree refers to: they can be had by evicting.
  size_t n_evictable() const { return n_evictable_; }
  bool only_in_tree(int page) const {
    return in_tree_[static_cast<size_t>(page)] && refs_[static_cast<size_t>(page)] == 1;
  }

 private:
  size_t page_bytes_;
  AlignedArray<uint8_t> memory_;
  std::vector<uint32_t> refs_;
  std::vector<uint8_t> in_tree_;
  std::vector<int> free_;
  size_t n_evictable_ = 0;
};

// A radix tree over pages: an edge is the tokens of a page. Only full pages have children; a page that is not full can be
// matched in part and is then copied by the one who matched it. Prefixes are found by equal tokens within one scope, never by
// likeness; scopes (one an API key) share nothing, so that a stranger cannot find out by timing what others have asked.
class PrefixCache {
 public:
  // Holds at most max_pages pages; the least recently used leave.
  PrefixCache(KvPool* pool, size_t max_pages);
  ~PrefixCache();

  struct Match {
    std::vector<int> pages;  // full pages in order; the caller owns a reference to each
    int partial_page =
        -1;  // a page of the tree whose first partial_tokens continue the match; no reference is given,
    size_t partial_tokens = 0;  //   it is valid until the next call of any function
    size_t n_tokens() const;
  };
  // The longest known prefix of `tokens`.
  Match Find(const std::string& scope, std::span<const int32_t> tokens);

  // Remembers that `pages` hold the keys and values of `tokens`. Takes references of its own to what is new. The last page, if it
  // is not full, must not be written any more.
  void Insert(const std::string& scope, std::span<const int32_t> tokens,
              std::span<const int> pages);

  // Frees at least n pages if that is possible, least recently used first; returns how many.
  size_t Evict(size_t n);
  void Clear();

  size_t n_pages() const { return n_pages_; }

 private:
  struct Node;
  Node* Root(const std::string& scope);
  void Collect(Node* node, std::vector<Node*>* leaves);
  void Remove(Node* node);

  KvPool* pool_;
  size_t max_pages_;
  size_t n_pages_ = 0;
  uint64_t clock_ = 0;
  uint64_t protected_ = 0;  // nodes used at this time stay: the path that an insertion walks
  std::map<std::string, std::unique_ptr<Node>> roots_;
};

}  // namespace lutra
