#include "kernels/base/parallel.h"

#include <unistd.h>

#include <atomic>
#include <vector>

#include "kernels/base/cpu.h"
#include "kernels/base/error.h"
#include "tests/test_util.h"

namespace lutra {

TEST_CASE("For: every index once, whatever the thread count, in and outside a region") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (const bool region : {false, true}) {
      std::vector<std::atomic<int>> seen(1000);
      const auto body = [&] {
        for (int phase = 0; phase < 200; ++phase) {
          const size_t n = static_cast<size_t>(phase * 5 % 1000);
          pool.For(n, [&](size_t i) { ++seen[i]; });
        }
      };
      if (region) {
        pool.Region(body);
      } else {
        body();
      }
      for (size_t i = 0; i < seen.size(); ++i) {
        int expected = 0;
        for (int phase = 0; phase < 200; ++phase)
          expected += i < static_cast<size_t>(phase * 5 % 1000);
        REQUIRE(seen[i] == expected);
      }
    }
  }
}

TEST_CASE("For: phases see what earlier phases wrote") {
  ThreadPool pool(4);
  std::vector<int> a(64, 0), b(64, 0);
  pool.Region([&] {
    for (int phase = 0; phase < 2000; ++phase) {
      pool.For(64, [&](size_t i) { b[i] = a[(i + 1) % 64] + 1; });
      pool.For(64, [&](size_t i) { a[i] = b[(i + 63) % 64] + 1; });
    }
  });
  for (const int v : a) CHECK(v == 4000);
}

TEST_CASE("Region: exceptions pass through and the pool still works") {
  ThreadPool pool(3);
  CHECK_THROWS_AS(pool.Region([] { Fail(ErrorCode::kCancelled, "stop"); }), Error);
  std::atomic<int> sum{0};
  pool.Region([&] { pool.For(10, [&](size_t i) { sum += static_cast<int>(i); }); });
  CHECK(sum == 45);
}

TEST_CASE("Thread counts out of range are refused") {
  CHECK_THROWS_AS(ThreadPool(0), Error);
  CHECK_THROWS_AS(ThreadPool(100000), Error);
}

namespace {

// A fake /proc and /sys below a temporary folder.
class FakeRoot {
 public:
  FakeRoot()
      : dir_(std::filesystem::temp_directory_path() /
             ("lutra_root_" + std::to_string(++counter_) + "_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(dir_);
  }
  ~FakeRoot() { std::filesystem::remove_all(dir_); }
  void Write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(
        (dir_.string() + path).substr(0, (dir_.string() + path).rfind('/')));
    std::ofstream(dir_.string() + path) << text;
  }
  void Siblings(int cpu, const std::string& list) const {
    Write("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
          list + "\n");
  }
  std::string path() const { return dir_.string(); }

 private:
  static inline int counter_ = 0;
  std::filesystem::path dir_;
};

}  // namespace

TEST_CASE("Thread advice: physical cores, affinity, hybrid cores, cgroup quotas") {
  FakeRoot root;
  for (int c = 0; c < 8; ++c)
    root.Siblings(c, std::to_string(c % 4) + "," + std::to_string(c % 4 + 4));
  CHECK(AdviseThreads(root.path(), "0-7").threads == 4);
  CHECK(AdviseThreads(root.path(), "0,4").threads == 1);
  CHECK(AdviseThreads(root.path(), "1-3").threads == 3);
  root.Write("/sys/devices/cpu_core/cpus", "0-1,4-5\n");
  CHECK(AdviseThreads(root.path(), "0-7").threads == 2);
  CHECK(AdviseThreads(root.path(), "2-3").threads == 2);  // nothing but efficiency cores: use them
  root.Write("/proc/self/cgroup", "0::/box/inner\n");
  root.Write("/sys/fs/cgroup/box/cpu.max", "150000 100000\n");
  const ThreadAdvice advice = AdviseThreads(root.path(), "0-7");
  CHECK(advice.threads == 1);
  CHECK(advice.reason.find("quota of 1.5") != std::string::npos);
}

TEST_CASE("Thread advice: cgroup v1 quota, garbage files") {
  FakeRoot root;
  root.Write("/proc/self/cgroup", "4:cpu,cpuacct:/a\n0::/\n");
  root.Write("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "200000\n");
  root.Write("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  CHECK(AdviseThreads(root.path(), "0-15").threads == 2);
  root.Write("/sys/fs/cgroup/cpu.max", "max abc\n");
  CHECK(AdviseThreads(root.path(), "0-15").threads == 2);
  CHECK(AdviseThreads(root.path(), "x-y,,-").threads == 1);
}

TEST_CASE("Memory advice: the least of the machine and the cgroups") {
  FakeRoot root;
  root.Write("/proc/meminfo", "MemTotal:       1000 kB\nMemFree: 10 kB\nMemAvailable:    800 kB\n");
  CHECK(AdviseMemory(root.path()).available_bytes == 800 * 1024);
  root.Write("/proc/self/cgroup", "0::/a\n");
  root.Write("/sys/fs/cgroup/a/memory.max", "500000\n");
  root.Write("/sys/fs/cgroup/a/memory.current", "100000\n");
  CHECK(AdviseMemory(root.path()).available_bytes == 400000);
  CHECK(AdviseMemory(root.path()).total_bytes == 500000);
}

}  // namespace lutra
