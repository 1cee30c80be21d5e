// What the world outside a coordinator knows of it: which deliveries it handed out, what it was
// answered, and what it acknowledged. Kept across crashes, and held against every further word of
// it.
#ifndef FLUX_TESTS_SIM_LEDGER_H_
#define FLUX_TESTS_SIM_LEDGER_H_

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "flux/v1/worker.pb.h"
#include "tests/sim/graphs.h"
#include "tests/sim/script.h"

namespace flux::sim {

// Not thread-safe. `problem` is told of every broken promise.
class Ledger {
 public:
  explicit Ledger(std::function<void(std::string)> problem) : problem_(std::move(problem)) {}

  // A task left the coordinator. Its token must be new, its step not settled, and its inputs those
  // that the step had before.
  void HandedOut(const v1::Task& task);
  // Which delivery of the token's step left last; 0: none.
  uint64_t Latest(const v1::TaskToken& token) const;
  // What its task really answers is sent under this token.
  void Answered(const v1::TaskToken& token);
  // A result that must not count whenever it arrives; unless the true one may have been recorded
  // under its token before.
  void Forged(const v1::TaskToken& token);
  // Something malformed, or over a limit, was sent for the step: it may fail of that.
  void Garbled(const v1::Task& task);
  bool WasGarbled(const std::string& run, const std::string& path) const;
  // `settles`: the result was a value or a skip, after which nothing more may come of the step.
  void Acknowledged(const v1::ResultAck& ack, bool settles);

  struct Delivered {
    std::string task;
    std::vector<std::string> inputs;  // as AnswerOf takes them
    uint64_t deliveries = 0;
  };
  // By (run id bytes, path); of the newest generation.
  const std::map<std::pair<std::string, std::string>, Delivered>& delivered() const {
    return delivered_;
  }
  uint64_t handed_out() const { return tokens_.size(); }
  uint64_t recorded() const { return recorded_.size(); }

 private:
  struct StepId {
    std::string run;
    uint64_t frame;
    uint32_t step;
    uint32_t generation;
    auto operator<=>(const StepId&) const = default;
  };
  static StepId IdOf(const v1::TaskToken& token) {
    return {token.run_id(), token.frame(), token.step(), token.generation()};
  }

  const std::function<void(std::string)> problem_;
  std::set<std::string> tokens_;
  std::set<std::string> answered_, forged_;
  std::map<StepId, uint64_t> latest_;
  std::map<StepId, uint64_t> recorded_;  // the delivery whose result was acknowledged
  std::map<StepId, std::vector<std::string>> inputs_;
  std::map<std::pair<std::string, std::string>, Delivered> delivered_;
  std::set<std::pair<std::string, std::string>> garbled_;
};

// A task's inputs as AnswerOf takes them.
std::vector<std::string> TextsOf(const v1::Task& task);
std::string TextOf(const v1::TaskToken& token);

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_LEDGER_H_
