#include "engine/turns.h"

#include <thread>
#include <vector>

#include "tests/test_util.h"

namespace lutra {

TEST_CASE("Turns: one at a time") {
  Turns turns;
  int inside = 0, taken = 0;  // guarded by the turn
  size_t overlaps = 0;
  constexpr size_t kThreads = 4, kTurns = 2000;
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (size_t i = 0; i < kTurns; ++i) {
          const Turn turn(turns);
          overlaps += inside++ != 0;
          ++taken;
          --inside;
        }
      });
    }
  }
  CHECK(overlaps == 0);
  CHECK(taken == static_cast<int>(kThreads * kTurns));
}

TEST_CASE("Turns: who waits is served in the order of arrival") {
  Turns turns;
  std::vector<int> order;  // guarded by the turn
  std::vector<std::jthread> threads;
  std::atomic<int> arrived{0};
  {
    const Turn first(turns);
    CHECK(!first.waited());
    CHECK(!turns.Contended());
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        const Turn turn(turns);
        CHECK(turn.waited());
        order.push_back(t);
        arrived.fetch_add(1);
      });
      while (turns.waiting() != static_cast<uint32_t>(t + 1)) std::this_thread::yield();
    }
    CHECK(turns.Contended());
    CHECK(arrived == 0);
  }
  threads.clear();
  CHECK((order == std::vector<int>{0, 1, 2}));
  const Turn last(turns);
  CHECK(!last.waited());
}

}  // namespace lutra
