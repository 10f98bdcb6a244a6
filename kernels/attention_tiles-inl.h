// Attention over the integer cache on AMX tiles, for blocks of many queries: the walk of attention.cc with its integer sums made 16 queries at a
// time. Sums are exact, everything else is attention.cc's own code, so the bits are the same. Included by attention.cc alone, behind that code
// and for one target.
//
//   scores  A: queries [16][16 quads of 4], int8    B: keys [16 quads][16 positions][4], k + 128, as they lie    tdpbsud
//   values  A: weights [16][64 positions], bytes    B: values [16 quads of positions][16 columns][4], as they lie   tdpbusd
// Four C tiles side by side: 64 positions or columns. A head's last quads, fewer than 16, have tiles of their own size.
HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// The tile registers, for the products with pages of one layout.
template <class Tiles>
class PageTiles {
 public:
  explicit PageTiles(const KvHeadLayout& layout) : layout_(layout), quads_((layout.dk + 3) / 4) {
    TileConfig config = MakeTileConfig(16);
    const size_t rest = quads_ % 16;
    config.rows[5] = rest != 0 ? kTileQueries : 0;
    config.row_bytes[5] = static_cast<uint16_t>(4 * rest);
    config.rows[7] = static_cast<uint8_t>(rest);
    config.row_bytes[7] = rest != 0 ? 64 : 0;
    tiles_.Configure(config);
  }
  ~PageTiles() { tiles_.Release(); }
  PageTiles(const PageTiles&) = delete;
  PageTiles& operator=(const PageTiles&) = delete;

  // sums [16, kKvPage] = q8 . (k + 128) of queries q8 [16, 4 * quads], for positions [0, n rounded up to 64).
  HWY_INLINE void Scores(const uint8_t* head, const int8_t* q8, size_t n, int32_t* sums) {
    const size_t stride = 4 * quads_;
    for (size_t first = 0; first < n; first += 64) {
      const uint8_t* k = head + first * stride;
      const int8_t* q = q8;
      Zero();
      size_t left = quads_;
      for (; left >= 16; left -= 16, q += 64, k += 16 * 256) {
        tiles_.template Load<4>(q, stride);
        ScoreDots<4, 6>(k);
      }
      if (left != 0) {
        tiles_.template Load<5>(q, stride);
        ScoreDots<5, 7>(k);
      }
      Store(sums + first, kKvPage, 64);
    }
  }

  // sums [16, 64] = w . v of weights w [16, kKvPage], columns [column, column + 64) as far as there are, for positions [0, n rounded up to 64).
  HWY_INLINE void Values(const uint8_t* head, const uint8_t* w, size_t column, size_t n,
                         int32_t* sums) {
    const uint8_t* v = head + layout_.v_columns(column);
    const size_t columns = layout_.block_columns(column);
    Zero();
    for (size_t first = 0; first < n; first += 64, v += 64 * columns) {
      tiles_.template Load<4>(w + first, kKvPage);
      ValueDots<0>(v, columns);
      if (columns > 16) ValueDots<1>(v, columns);
      if (columns > 32) ValueDots<2>(v, columns);
      if (columns > 48) ValueDots<3>(v, columns);
    }
    Store(sums, 64, columns);
  }

 private:
  HWY_INLINE void Zero() {
    tiles_.template Zero<0>();
    tiles_.template Zero<1>();
    tiles_.template Zero<2>();
    tiles_.template Zero<3>();
  }
  template <int kA, int kB, int kC>
  HWY_INLINE void ScoreDot(const uint8_t* k) {
    tiles_.template Load<kB>(k + 64 * kC, 256);
    tiles_.template DotUnsigned<kC, kA, kB>();
  }
  template <int kA, int kB>
  HWY_INLINE void ScoreDots(const uint8_t* k) {
    ScoreDot<kA, kB, 0>(k);
    ScoreDot<kA, kB, 1>(k);
    ScoreDot<kA, kB, 2>(k);
    ScoreDot<kA, kB, 3>(k);
  }
  template <int kC>
  HWY_INLINE void ValueDots(const uint8_t* v, size_t columns) {
    tiles_.template Load<6>(v + 64 * kC, 4 * columns);
    tiles_.template DotUnsignedSigned<kC, 4, 6>();
  }
  // C tiles beside each other, n of the 64 columns (a multiple of 16); rows `stride` numbers apart.
  HWY_INLINE void Store(int32_t* to, size_t stride, size_t n) {
    tiles_.template Store<0>(to, 4 * stride);
    if (n > 16) tiles_.template Store<1>(to + 16, 4 * stride);
    if (n > 32) tiles_.template Store<2>(to + 32, 4 * stride);
    if (n > 48) tiles_.template Store<3>(to + 48, 4 * stride);
  }

  Tiles tiles_;
  const KvHeadLayout& layout_;
  const size_t quads_;
};

// Up to 16 queries with one page, as steps of 4, 2 and 1.
struct TileGroup {
  size_t page, i, n_queries;  // queries [i, i + n_queries) of the block
  size_t n_all;               // positions that the last of them sees
  bool any_high;              // some weights have two bytes
  size_t n_steps;
  Step steps[5];
  HWY_ALIGN int32_t sums[kTileQueries * kKvPage];  // of scores, without bias
};

struct TileScratch {
  TileGroup groups[2];
  HWY_ALIGN float t[kTileQueries * kKvPage];
  ByteWeights bytes;  // of a step
  HWY_ALIGN uint8_t low[kTileQueries * kKvPage], high[kTileQueries * kKvPage];
  HWY_ALIGN int32_t values[2][kTileQueries * 64];  // sums of low and high bytes
};

// Scores of a step's queries from their sums, as Q8Page::Scores leaves them.
template <size_t R>
HWY_INLINE void FinishScores(const int32_t* HWY_RESTRICT sums, const int32_t* bias, Step& s) {
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(s.page.head + s.page.layout->k_scales);
  const size_t n = (s.n_all + 63) / 64 * 64;
  for (size_t r = 0; r < R; ++r) {
    const VI b = hn::Set(DI(), bias[r]);
    VF max = hn::Set(DF(), -kInfinity);
    for (size_t j = 0; j < n; j += kLanes) {
      const VI sum = hn::Add(hn::Load(DI(), sums + r * kKvPage + j), b);
      const VF t = hn::Mul(hn::ConvertTo(DF(), sum), Q8Page<DotQuads>::Scales(scales + j));
      max = hn::Max(max, t);
      hn::Store(t, DF(), s.t + r * kKvPage + j);
    }
    hn::Store(MaxTo4(max), D4(), s.max4[r]);
    if (s.n[r] != kKvPage) MaxOfFirst(s.t + r * kKvPage, s.n[r], s.max4[r]);
  }
}

// The weights of a group's queries, one or two bytes each, in rows of kKvPage.
HWY_NOINLINE void GroupWeights(Block& b, TileGroup& g, TileScratch& scratch) {
  g.any_high = false;
  for (size_t k = 0; k < g.n_steps; ++k) {
    Step& s = g.steps[k];
    const size_t row = (s.i - g.i) * kKvPage, bytes = s.n_queries * kKvPage;
    WithSize(s.n_queries, [&](auto size) HWY_ATTR {
      FinishScores<size()>(g.sums + row, b.bias + s.i, s);
      WeightStep<Q8Page<DotQuads>, size()>(b, s);
    });
    std::memcpy(scratch.low + row, s.bytes->low, bytes);
    if (s.bytes->any_high) {
      std::memcpy(scratch.high + row, s.bytes->high, bytes);
      g.any_high = true;
    } else {
      std::memset(scratch.high + row, 0, bytes);
    }
  }
}

// o = o * a + b * sum_j w_j v_j for a group's queries.
template <class Tiles>
HWY_NOINLINE void GroupValues(PageTiles<Tiles>& tiles, const TileGroup& g, TileScratch& scratch,
                              Block& b) {
  const PageView& page = g.steps[0].page;
  const size_t width = page.layout->v_width;
  for (size_t column = 0; column < width; column += 64) {
    if (g.any_high) tiles.Values(page.head, scratch.high, column, g.n_all, scratch.values[1]);
    tiles.Values(page.head, scratch.low, column, g.n_all, scratch.values[0]);
    const size_t columns = page.layout->block_columns(column);
    for (size_t k = 0; k < g.n_steps; ++k) {
      const Step& s = g.steps[k];
      for (size_t r = 0; r < s.n_queries; ++r) {
        const size_t row = (s.i - g.i + r) * 64;
        float* HWY_RESTRICT o = b.o + (s.i + r) * width + column;
        const VF old_by = hn::Set(DF(), s.a[r]), by = hn::Set(DF(), s.b[r]);
        for (size_t c = 0; c < columns; c += kLanes) {
          VI sum = hn::Load(DI(), scratch.values[0] + row + c);
          if (g.any_high) {
            sum = hn::Add(sum, hn::ShiftLeft<8>(hn::Load(DI(), scratch.values[1] + row + c)));
          }
          const VF old = hn::Mul(hn::Load(DF(), o + c), old_by);
          hn::Store(Fma(hn::ConvertTo(DF(), sum), by, old), DF(), o + c);
        }
      }
    }
  }
}

// The next group's sums of scores are asked of the tiles before this one's values.
template <class Tiles>
HWY_NOINLINE void WalkPagesOnTiles(const AttentionArgs& args, size_t first, size_t begin,
                                   size_t end, Block& b) {
  const KvHeadLayout& l = *args.layout;
  PageTiles<Tiles> tiles(l);
  const size_t row_bytes = (l.dk + 3) / 4 * 4;
  int8_t* const q8 = reinterpret_cast<int8_t*>(b.q8);
  const size_t n_rows = (b.n + kTileQueries - 1) / kTileQueries * kTileQueries;
  static_assert(sizeof b.q8 >= 2 * kQueryElements);  // room for rows up to 16, if there are as many
  std::memset(q8 + b.n * row_bytes, 0, (n_rows - b.n) * row_bytes);
  std::memset(b.o, 0, b.n * l.v_width * sizeof(float));
  TileScratch scratch;
  // Rows of absent queries are multiplied, too.
  std::memset(scratch.low, 0, sizeof scratch.low);
  std::memset(scratch.high, 0, sizeof scratch.high);
  const auto score = [&](size_t page, size_t i, TileGroup& g) HWY_ATTR {
    g.page = page;
    g.i = i;
    g.n_queries = HWY_MIN(kTileQueries, b.n - i);
    g.n_steps = g.n_all = 0;
    const uint8_t* const head = args.pages[page] + args.offset;
    for (size_t at = 0; at < g.n_queries;) {
      Step& s = g.steps[g.n_steps++];
      const size_t left = g.n_queries - at;
      s.page = {args.layout, head, 0, 0};
      s.i = i + at;
      s.n_queries = left >= 4 ? 4 : left >= 2 ? 2 : 1;
      s.n_all = 0;
      for (size_t r = 0; r < s.n_queries; ++r) {
        s.n[r] = HWY_MIN(
            kKvPage, args.first_position + (first + s.i + r) / args.n_heads + 1 - page * kKvPage);
        s.n_all = HWY_MAX(s.n_all, s.n[r]);
      }
      s.first_page = page == begin;
      s.t = scratch.t + at * kKvPage;
      s.bytes = &scratch.bytes;
      g.n_all = HWY_MAX(g.n_all, s.n_all);
      at += s.n_queries;
    }
    // Each group asks for its share of the next page.
    if (page + 1 < end) {
      const uint8_t* const ahead = args.pages[page + 1] + args.offset;
      const size_t from = l.bytes * i / n_rows / 64 * 64;
      const size_t to = l.bytes * (i + kTileQueries) / n_rows / 64 * 64;
      for (size_t at = from; at < to; at += 64) PrefetchLine(ahead, static_cast<ptrdiff_t>(at));
    }
    tiles.Scores(head, q8 + i * row_bytes, g.n_all, g.sums);
  };
  score(begin, 0, scratch.groups[0]);
  for (size_t now = 0;; now = 1 - now) {
    TileGroup& g = scratch.groups[now];
    GroupWeights(b, g, scratch);
    const bool same_page = g.i + kTileQueries < b.n;
    const bool more = same_page || g.page + 1 < end;
    if (more) {
      score(same_page ? g.page : g.page + 1, same_page ? g.i + kTileQueries : 0,
            scratch.groups[1 - now]);
    }
    GroupValues(tiles, g, scratch, b);
    if (!more) break;
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();
