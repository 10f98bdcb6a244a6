#include "engine/kv_pool.h"

#include <algorithm>
#include <cstring>

#include "kernels/attention.h"
#include "kernels/base/check.h"

namespace lutra {

KvPool::KvPool(size_t page_bytes, size_t n_pages)
    : page_bytes_(page_bytes), memory_(page_bytes * n_pages), refs_(n_pages), in_tree_(n_pages) {
  free_.reserve(n_pages);
  for (size_t i = n_pages; i-- > 0;) free_.push_back(static_cast<int>(i));
}

int KvPool::Allocate() {
  if (free_.empty()) return -1;
  const int page = free_.back();
  free_.pop_back();
  refs_[static_cast<size_t>(page)] = 1;
  return page;
}

void KvPool::AddRef(int page) {
  const size_t p = static_cast<size_t>(page);
  LUTRA_CHECK(refs_[p] > 0);
  if (only_in_tree(page)) --n_evictable_;
  ++refs_[p];
}

void KvPool::Release(int page) {
  const size_t p = static_cast<size_t>(page);
  LUTRA_CHECK(refs_[p] > 0);
  if (only_in_tree(page)) --n_evictable_;
  if (--refs_[p] == 0) {
    LUTRA_CHECK(!in_tree_[p]);
    free_.push_back(page);
  } else if (only_in_tree(page)) {
    ++n_evictable_;
  }
}

void KvPool::SetInTree(int page, bool in_tree) {
  if (only_in_tree(page)) --n_evictable_;
  in_tree_[static_cast<size_t>(page)] = in_tree;
  if (only_in_tree(page)) ++n_evictable_;
}

void KvPool::CopyPage(int from, int to) { std::memcpy(data(to), data(from), page_bytes_); }

struct PrefixCache::Node {
  std::vector<int32_t> tokens;  // of this page: kKvPage of them, or fewer in a leaf; none in a root
  int page = -1;
  uint64_t last_use = 0;
  Node* parent = nullptr;
  std::vector<std::unique_ptr<Node>> children;
};

PrefixCache::PrefixCache(KvPool* pool, size_t max_pages) : pool_(pool), max_pages_(max_pages) {}
PrefixCache::~PrefixCache() { Clear(); }

size_t PrefixCache::Match::n_tokens() const { return pages.size() * kKvPage + partial_tokens; }

PrefixCache::Node* PrefixCache::Root(const std::string& scope) {
  std::unique_ptr<Node>& root = roots_[scope];
  if (root == nullptr) root = std::make_unique<Node>();
  return root.get();
}

namespace {
size_t CommonLength(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t n = std::min(a.size(), b.size());
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(n), b.begin()).first - a.begin());
}
}  // namespace

PrefixCache::Match PrefixCache::Find(const std::string& scope, std::span<const int32_t> tokens) {
  Match match;
  const auto it = roots_.find(scope);
  if (it == roots_.end()) return match;
  ++clock_;
  Node* node = it->second.get();
  while (!tokens.empty()) {
    Node* best = nullptr;
    size_t best_n = 0;
    for (const auto& child : node->children) {
      const size_t n = CommonLength(child->tokens, tokens);
      if (n > best_n) {
        best = child.get();
        best_n = n;
      }
    }
    if (best == nullptr) break;
    best->last_use = clock_;
    if (best_n < kKvPage) {
      match.partial_page = best->page;
      match.partial_tokens = best_n;
      break;
    }
    pool_->AddRef(best->page);
    match.pages.push_back(best->page);
    tokens = tokens.subspan(kKvPage);
    node = best;
  }
  return match;
}

void PrefixCache::Insert(const std::string& scope, std::span<const int32_t> tokens,
                         std::span<const int> pages) {
  if (max_pages_ == 0 || tokens.empty()) return;
  protected_ = ++clock_;
  Node* node = Root(scope);
  node->last_use = clock_;
  for (const int page : pages) {
    if (tokens.empty()) break;
    const std::span<const int32_t> part = tokens.first(std::min(tokens.size(), kKvPage));
    tokens = tokens.subspan(part.size());
    Node* same = nullptr;
    Node* shorter = nullptr;  // a page whose tokens are a beginning of these
    for (const auto& child : node->children) {
      const size_t n = CommonLength(child->tokens, part);
      if (n == part.size())
        same = child.get();
      else if (n == child->tokens.size())
        shorter = child.get();
    }
    if (same == nullptr) {
      if (shorter == nullptr) {
        if (n_pages_ >= max_pages_ && Evict(1 + max_pages_ / 16) == 0 && n_pages_ >= max_pages_)
          break;
        node->children.push_back(std::make_unique<Node>());
        same = node->children.back().get();
        same->parent = node;
        ++n_pages_;
      } else {
        pool_->SetInTree(shorter->page, false);
        pool_->Release(shorter->page);
        same = shorter;
      }
      same->tokens.assign(part.begin(), part.end());
      same->page = page;
      pool_->AddRef(page);
      pool_->SetInTree(page, true);
    }
    same->last_use = clock_;
    if (same->tokens.size() < kKvPage) break;
    node = same;
  }
  protected_ = 0;
}

void PrefixCache::Collect(Node* root, std::vector<Node*>* leaves) {
  std::vector<Node*> todo = {root};
  while (!todo.empty()) {
    Node* node = todo.back();
    todo.pop_back();
    for (const auto& child : node->children) todo.push_back(child.get());
    if (node->children.empty() && node->page >= 0 && node->last_use != protected_)
      leaves->push_back(node);
  }
}

void PrefixCache::Remove(Node* node) {
  pool_->SetInTree(node->page, false);
  pool_->Release(node->page);
  --n_pages_;
  auto& siblings = node->parent->children;
  siblings.erase(std::find_if(siblings.begin(), siblings.end(),
                              [&](const auto& c) { return c.get() == node; }));
}

size_t PrefixCache::Evict(size_t n) {
  const size_t before = pool_->n_free();
  bool progress = true;
  while (pool_->n_free() - before < n && progress) {
    std::vector<Node*> leaves;
    for (const auto& [scope, root] : roots_) Collect(root.get(), &leaves);
    std::erase_if(leaves, [&](const Node* leaf) { return !pool_->only_in_tree(leaf->page); });
    std::sort(leaves.begin(), leaves.end(),
              [](const Node* a, const Node* b) { return a->last_use < b->last_use; });
    progress = !leaves.empty();
    for (Node* leaf : leaves) {
      if (pool_->n_free() - before >= n) break;
      Remove(leaf);
    }
  }
  std::erase_if(roots_, [&](const auto& entry) {
    return entry.second->children.empty() && entry.second->last_use != protected_;
  });
  return pool_->n_free() - before;
}

void PrefixCache::Clear() {
  for (auto& [scope, root] : roots_) {
    // Children before parents, without recursion.
    std::vector<Node*> order = {root.get()};
    for (size_t i = 0; i < order.size(); ++i) {
      for (const auto& child : order[i]->children) order.push_back(child.get());
    }
    for (size_t i = order.size(); i-- > 1;) Remove(order[i]);
  }
  roots_.clear();
  LUTRA_CHECK(n_pages_ == 0);
}

}  // namespace lutra
