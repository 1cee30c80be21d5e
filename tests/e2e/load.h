// Clients that start workflows while everything around them is being killed, and the ledger of
// what they were promised.
#ifndef FLUX_TESTS_E2E_LOAD_H_
#define FLUX_TESTS_E2E_LOAD_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/e2e/api.h"
#include "tests/e2e/processes.h"

namespace flux::e2e {

// Kinds of work, by what they try.
enum class Kind { kChain, kWide, kStamps, kNap, kFlaky, kFamily };
inline constexpr int kKinds = 6;

// A start, and what came of it.
struct Promise {
  Kind kind = Kind::kChain;
  int64_t number = 0;  // its argument, or the length of its list
  std::string workflow_id;
  std::string run_id;  // as acknowledged; empty: it was not
};

// Starts executions from several threads until stopped, each with a request id, again and again
// until it is acknowledged; now and then repeats one that was. Calls that fail because nobody
// serves are part of the game; every other failure is kept for Check.
class Load {
 public:
  Load(std::string target, uint64_t seed);
  ~Load();
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  void Begin(int threads);
  // Lets the threads start so many more; they wait when it is used up.
  void Allow(int starts) { budget_ += starts; }
  int acknowledged() const;
  // No new starts; those under way go on until they are acknowledged. A coordinator must serve.
  void End();

  // Everything that was promised is kept: each execution is there, completes with the right result,
  // its history tells each step's end once, its replay equals its state; nothing else is there,
  // nothing is left over; and the workers' ledger fits. Call after End.
  void Check(Api& api, const Ledger& ledger);

 private:
  void Run(int thread);
  void Act(std::mt19937_64& random, Api& api, const std::string& name);
  void Violation(std::string what);
  void CheckOne(Api& api, const Promise& promise,
                const std::multimap<std::string, LedgerLine>& ends);

  const std::string target_;
  const uint64_t seed_;
  std::atomic<bool> stop_{false};
  std::atomic<int> budget_{0};
  std::vector<std::thread> threads_;
  mutable std::mutex mutex_;  // guards what follows
  std::map<std::string, Promise> promises_;
  std::vector<std::string> violations_;
};

}  // namespace flux::e2e

#endif  // FLUX_TESTS_E2E_LOAD_H_
