// Filters over lists and dicts.
#include <algorithm>
#include <charconv>
#include <functional>

#include "models/chat/jinja/builtins.h"
#include "models/chat/jinja/print.h"
#include "models/chat/jinja/unicode.h"

namespace lutra::jinja {
namespace {

// "a.b.0" as the steps to take from an item; digits are indexes.
std::vector<Value> AttributePath(const std::string& attribute) {
  std::vector<Value> path;
  size_t start = 0;
  while (true) {
    const size_t dot = attribute.find('.', start);
    const std::string part = attribute.substr(start, dot - start);
    int64_t index = 0;
    const auto result = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool digits = !part.empty() && part[0] != '-' && result.ec == std::errc() &&
                        result.ptr == part.data() + part.size();
    path.push_back(digits ? Value::Int(index) : Value::String(part));
    if (dot == std::string::npos) return path;
    start = dot + 1;
  }
}

std::vector<Value> PathOf(const BuiltinCall& c, const Value& attribute) {
  if (attribute.is_none()) return {};
  if (attribute.is_integral()) return {attribute};
  if (!attribute.is_string()) c.Fail("the attribute must be a string or an integer");
  return AttributePath(attribute.str());
}

Value Follow(Runtime& rt, Value v, const std::vector<Value>& path) {
  for (const Value& step : path) v = rt.Item(v, step);
  return v;
}

Value IgnoreCase(const Value& v) { return v.is_string() ? Value::String(Lower(v.str())) : v; }

// What sorting, comparing and grouping look at: the attribute, in lower case unless case matters.
Value KeyOf(Runtime& rt, const Value& v, const std::vector<Value>& path, bool case_sensitive) {
  rt.Charge(1);
  Value key = Follow(rt, v, path);
  if (case_sensitive || !key.is_string()) return key;
  rt.ChargeBytes(16 * key.str().size());
  return IgnoreCase(key);
}

using Keyed = std::pair<std::vector<Value>, Value>;  // sort keys, item

bool KeysLess(Runtime& rt, const std::vector<Value>& a, const std::vector<Value>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!rt.Equal(a[i], b[i])) return rt.Ordered(Op::kLess, a[i], b[i]);
  }
  return false;
}

std::vector<Value> SortKeyed(Runtime& rt, std::vector<Keyed> rows, bool reverse) {
  std::stable_sort(rows.begin(), rows.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? KeysLess(rt, b.first, a.first) : KeysLess(rt, a.first, b.first);
  });
  std::vector<Value> items;
  for (Keyed& row : rows) items.push_back(std::move(row.second));
  return items;
}

Value Sort(const BuiltinCall& c) {
  const bool reverse = c.flag(0, false);
  const bool case_sensitive = c.flag(1, false);
  std::vector<std::vector<Value>> paths;
  if (const Value attribute = c.value(2); attribute.is_string()) {  // "a,b": by a, then by b
    size_t start = 0;
    for (size_t comma = 0; comma != std::string::npos; start = comma + 1) {
      comma = attribute.str().find(',', start);
      paths.push_back(AttributePath(attribute.str().substr(start, comma - start)));
    }
  } else {
    paths.push_back(PathOf(c, attribute));
  }
  std::vector<Keyed> rows;
  for (Value& item : c.rt.Iterate(c.self)) {
    std::vector<Value> keys;
    for (const auto& path : paths) keys.push_back(KeyOf(c.rt, item, path, case_sensitive));
    rows.emplace_back(std::move(keys), std::move(item));
  }
  return c.rt.List(SortKeyed(c.rt, std::move(rows), reverse));
}

Value DictSort(const BuiltinCall& c) {
  const Dict* dict = c.self.dict();
  if (dict == nullptr) {
    c.rt.RequireDefined(c.self);
    c.Fail(std::string("needs a dict, got ") + TypeName(c.self));
  }
  const bool case_sensitive = c.flag(0, false);
  const std::string by = c.has(1) ? c.string(1) : "key";
  if (by != "key" && by != "value") c.Fail("'by' must be 'key' or 'value'");
  std::vector<Keyed> rows;
  for (const auto& [key, value] : dict->items) {
    std::vector<Value> keys;
    keys.push_back(KeyOf(c.rt, by == "key" ? key : value, {}, case_sensitive));
    rows.emplace_back(std::move(keys), c.rt.Tuple({key, value}));
  }
  return c.rt.List(SortKeyed(c.rt, std::move(rows), c.flag(2, false)));
}

Value GroupBy(const BuiltinCall& c) {
  const std::vector<Value> path = PathOf(c, *c.arg[0]);
  const bool case_sensitive = c.flag(2, false);
  std::vector<Keyed> rows;
  for (Value& item : c.rt.Iterate(c.self)) {
    Value key = Follow(c.rt, item, path);
    if (key.is_undefined() && c.has(1)) key = *c.arg[1];
    std::vector<Value> keys = {case_sensitive ? key : IgnoreCase(key), key};
    rows.emplace_back(std::move(keys), std::move(item));
  }
  std::stable_sort(rows.begin(), rows.end(), [&](const Keyed& a, const Keyed& b) {
    return c.rt.Ordered(Op::kLess, a.first[0], b.first[0]);
  });
  std::vector<Value> groups;
  for (size_t i = 0; i < rows.size();) {
    std::vector<Value> members;
    size_t k = i;
    for (; k < rows.size() && c.rt.Equal(rows[i].first[0], rows[k].first[0]); ++k) {
      members.push_back(rows[k].second);
    }
    k = std::max(k, i + 1);  // a key that does not equal itself
    groups.push_back(
        c.rt.Seq(Sequence::Type::kGroup, {rows[i].first[1], c.rt.List(std::move(members))}));
    i = k;
  }
  return c.rt.List(std::move(groups));
}

Value Unique(const BuiltinCall& c) {
  const std::vector<Value> path = PathOf(c, c.value(1));
  auto* seen = c.rt.New<Dict>();
  std::vector<Value> items;
  for (Value& item : c.rt.Iterate(c.self)) {
    const Value key = KeyOf(c.rt, item, path, c.flag(0, false));
    if (seen->Find(c.rt, key) != nullptr) continue;
    seen->Set(c.rt, key, Value::None());
    items.push_back(std::move(item));
  }
  return c.rt.Generator(std::move(items));
}

template <Op op>
Value Extreme(const BuiltinCall& c) {
  const std::vector<Value> path = PathOf(c, c.value(1));
  std::vector<Value> items = c.rt.Iterate(c.self);
  if (items.empty()) return Value::Undefined("no item: the sequence was empty");
  size_t best = 0;
  Value best_key = KeyOf(c.rt, items[0], path, c.flag(0, false));
  for (size_t i = 1; i < items.size(); ++i) {
    Value key = KeyOf(c.rt, items[i], path, c.flag(0, false));
    if (!c.rt.Ordered(op, key, best_key)) continue;
    best = i;
    best_key = std::move(key);
  }
  return std::move(items[best]);
}

Value Sum(const BuiltinCall& c) {
  const std::vector<Value> path = PathOf(c, c.value(0));
  Value total = c.value(1, Value::Int(0));
  for (const Value& item : c.rt.Iterate(c.self)) {
    total = c.rt.Arithmetic(Op::kAdd, total, Follow(c.rt, item, path));
  }
  return total;
}

Value First(const BuiltinCall& c) {
  if (Sequence* s = c.self.sequence()) {
    if (s->items.empty()) return Value::Undefined("no first item: the sequence was empty");
    const Value item = s->items.front();
    if (s->type == Sequence::Type::kGenerator) {
      c.rt.Charge(s->items.size());
      s->items.erase(s->items.begin());
    }
    return item;
  }
  std::vector<Value> items = c.rt.Iterate(c.self);
  return items.empty() ? Value::Undefined("no first item: the sequence was empty")
                       : std::move(items.front());
}

Value Last(const BuiltinCall& c) {
  const Sequence* s = c.self.sequence();
  if (s != nullptr && !s->sized()) c.Fail("a generator has no last item; use 'list' before");
  std::vector<Value> items = c.rt.Iterate(c.self);
  return items.empty() ? Value::Undefined("no last item: the sequence was empty")
                       : std::move(items.back());
}

Value ListOf(const BuiltinCall& c) { return c.rt.List(c.rt.Iterate(c.self)); }

Value Reverse(const BuiltinCall& c) {
  if (c.self.is_string()) {
    return c.rt.Slice(c.self, Value::None(), Value::None(), Value::Int(-1));
  }
  std::vector<Value> items = c.rt.Iterate(c.self);
  std::reverse(items.begin(), items.end());
  return c.rt.Generator(std::move(items));
}

Value Items(const BuiltinCall& c) {
  std::vector<Value> out;
  if (!c.self.is_undefined()) {
    const Dict* dict = c.self.dict();
    if (dict == nullptr) c.Fail(std::string("needs a dict, got ") + TypeName(c.self));
    for (const auto& [key, value] : dict->items) out.push_back(c.rt.Tuple({key, value}));
  }
  return c.rt.Generator(std::move(out));
}

Value Join(const BuiltinCall& c) {
  const std::string separator = c.has(0) ? ToStr(c.rt, *c.arg[0]) : "";
  const std::vector<Value> path = PathOf(c, c.value(1));
  std::string out;
  bool first = true;
  for (const Value& item : c.rt.Iterate(c.self)) {
    if (!first) {
      c.rt.ChargeBytes(separator.size());
      out += separator;
    }
    first = false;
    Print(c.rt, Follow(c.rt, item, path), &out);
    c.rt.CheckStringSize(out.size());
  }
  return c.rt.String(std::move(out));
}

Value LengthOf(const BuiltinCall& c) {
  return Value::Int(static_cast<int64_t>(c.rt.Length(c.self)));
}

Arguments ArgumentsFrom(const Arguments& args, size_t first) {
  Arguments rest;
  for (size_t i = first; i < args.positional.size(); ++i) {
    rest.positional.push_back(args.positional[i]);
  }
  rest.keyword = args.keyword;
  return rest;
}

// map('filter', args...) and map(attribute='a.b', default=x).
Value Map(const BuiltinCall& c) {
  std::vector<Value> out;
  if (c.raw.positional.empty()) {
    std::vector<Value> path;
    Value fallback = Value::None();
    for (const auto& [key, value] : c.raw.keyword) {
      if (key == "attribute") {
        path = PathOf(c, value);
      } else if (key == "default") {
        fallback = value;
      } else {
        c.Fail("takes no argument '" + key + "'");
      }
    }
    if (path.empty()) c.Fail("needs a filter's name or an attribute");
    for (const Value& item : c.rt.Iterate(c.self)) {
      Value v = item;
      for (const Value& step : path) {
        v = c.rt.Item(v, step);
        if (v.is_undefined() && !fallback.is_none()) v = fallback;
      }
      out.push_back(std::move(v));
    }
    return c.rt.Generator(std::move(out));
  }
  if (!c.raw.positional[0].is_string()) c.Fail("needs a filter's name");
  const Arguments rest = ArgumentsFrom(c.raw, 1);
  for (const Value& item : c.rt.Iterate(c.self)) {
    out.push_back(c.rt.CallFilter(c.raw.positional[0].str(), item, rest));
  }
  return c.rt.Generator(std::move(out));
}

// select(test, args...), selectattr(attribute, test, args...) and their opposites; without a test:
// truth.
template <bool by_attribute, bool keep>
Value Select(const BuiltinCall& c) {
  const std::vector<Value>& given = c.raw.positional;
  std::vector<Value> path;
  if (by_attribute) {
    if (given.empty()) c.Fail("needs an attribute");
    path = PathOf(c, given[0]);
  }
  constexpr size_t kTest = by_attribute;
  const bool has_test = given.size() > kTest;
  if (has_test && !given[kTest].is_string()) c.Fail("needs a test's name");
  const Arguments rest = ArgumentsFrom(c.raw, kTest + 1);
  std::vector<Value> out;
  for (Value& item : c.rt.Iterate(c.self)) {
    const Value v = Follow(c.rt, item, path);
    const bool yes = has_test ? c.rt.CallTest(given[kTest].str(), v, rest) : Truthy(v);
    if (yes == keep) out.push_back(std::move(item));
  }
  return c.rt.Generator(std::move(out));
}

Value Batch(const BuiltinCall& c) {
  const int64_t n = c.integer(0);
  if (n < 1) c.Fail("needs a positive number of items");
  std::vector<Value> out;
  std::vector<Value> row;
  for (Value& item : c.rt.Iterate(c.self)) {
    if (static_cast<int64_t>(row.size()) == n) out.push_back(c.rt.List(std::exchange(row, {})));
    row.push_back(std::move(item));
  }
  if (!row.empty()) {
    if (c.has(1) && !c.arg[1]->is_none()) {
      if (n > static_cast<int64_t>(kMaxListItems)) c.rt.CheckListSize(static_cast<size_t>(n));
      row.resize(static_cast<size_t>(n), *c.arg[1]);
    }
    out.push_back(c.rt.List(std::move(row)));
  }
  return c.rt.Generator(std::move(out));
}

// Columns: `n` lists over the items, the first ones an item longer where it does not divide.
Value SliceColumns(const BuiltinCall& c) {
  const int64_t given = c.integer(0);
  if (given < 1) c.Fail("needs a positive number of slices");
  const auto n = static_cast<size_t>(given);
  c.rt.CheckListSize(n);
  c.rt.Charge(n);
  const std::vector<Value> items = c.rt.Iterate(c.self);
  const size_t each = items.size() / n;
  const size_t longer = items.size() % n;
  std::vector<Value> out;
  size_t at = 0;
  for (size_t i = 0; i < n; ++i) {
    const size_t count = each + (i < longer);
    const auto first = items.begin() + static_cast<ptrdiff_t>(at);
    std::vector<Value> row(first, first + static_cast<ptrdiff_t>(count));
    at += count;
    if (c.has(1) && !c.arg[1]->is_none() && i >= longer) row.push_back(*c.arg[1]);
    out.push_back(c.rt.List(std::move(row)));
  }
  return c.rt.Generator(std::move(out));
}

const Builtin kTable[] = {
    {"batch", Batch, 1, {"linecount", "fill_with"}},
    {"count", LengthOf},
    {"dictsort", DictSort, 0, {"case_sensitive", "by", "reverse"}},
    {"first", First},
    {"groupby", GroupBy, 1, {"attribute", "default", "case_sensitive"}},
    {"items", Items},
    {"join", Join, 0, {"d", "attribute"}},
    {"last", Last},
    {"length", LengthOf},
    {"list", ListOf},
    {"map", Map, 0, {}, true},
    {"max", Extreme<Op::kGreater>, 0, {"case_sensitive", "attribute"}},
    {"min", Extreme<Op::kLess>, 0, {"case_sensitive", "attribute"}},
    {"reject", Select<false, false>, 0, {}, true},
    {"rejectattr", Select<true, false>, 0, {}, true},
    {"reverse", Reverse},
    {"select", Select<false, true>, 0, {}, true},
    {"selectattr", Select<true, true>, 0, {}, true},
    {"slice", SliceColumns, 1, {"slices", "fill_with"}},
    {"sort", Sort, 0, {"reverse", "case_sensitive", "attribute"}},
    {"sum", Sum, 0, {"attribute", "start"}},
    {"unique", Unique, 0, {"case_sensitive", "attribute"}},
};

}  // namespace

std::span<const Builtin> ListFilterTable() { return kTable; }

}  // namespace lutra::jinja
