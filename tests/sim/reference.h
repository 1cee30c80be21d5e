// A plain interpreter of definitions: what an execution must come to, whatever happens on the way.
//
// It knows the language and nothing else: no time, no durability, no scheduling, no records, none
// of engine/core. It walks the graph once, recursively, and asks an Oracle where the graph alone
// does not decide: how each task ends, and which of several failures came first.
//
//   what ends a step   | what it means
//   -------------------+-----------------------------------------------------------------------
//   kValue             | it completed with the value
//   kSkipped           | it was skipped
//   kFailed            | it failed with one of `failures`: which depends on what was faster
//   kNever             | it does not end by itself: it is parked, or waits for what does not end
//
// A scope fails if one of its steps does, with any failure that could come first; else it never
// ends if one of its steps never does; else it ends with its result.
//
// Not thread-safe. Recursion goes as deep as bodies nest.
#ifndef FLUX_TESTS_SIM_REFERENCE_H_
#define FLUX_TESTS_SIM_REFERENCE_H_

#include <optional>
#include <string>
#include <vector>

#include "flux/v1/definition.pb.h"
#include "flux/v1/payload.pb.h"

namespace flux::sim {

// A value as a plain tree.
struct Datum {
  enum class Kind { kNone, kPayload, kList };
  Kind kind = Kind::kNone;
  v1::Payload payload;       // kPayload
  std::vector<Datum> items;  // kList

  static Datum Of(const v1::Payload& payload);
  static Datum ListOf(std::vector<Datum> items);
  v1::Payload ToPayload() const;
};

// A failure; of the coordinator's own ones the message is not foreseen.
struct Foreseen {
  v1::Failure failure;
  bool own_words = false;

  bool Is(const v1::Failure& seen) const;
};

struct Ending {
  enum class Kind { kValue, kSkipped, kFailed, kNever };
  Kind kind = Kind::kNever;
  Datum value;
  std::vector<Foreseen> failures;
  bool of_fragment = false;  // of what a task went on as, rather than the task's own
  std::string origin = {};   // as a parameter: the path of the step it came from; empty: none

  static Ending Value(Datum value);
  static Ending Skipped();
  static Ending Failed(std::vector<Foreseen> failures);
  static Ending Never();
  bool settled() const { return kind == Kind::kValue || kind == Kind::kSkipped; }
};

// How a task ended: of itself, or by going on as a piece of graph.
struct TaskEnd {
  Ending ending;
  const v1::Definition* fragment = nullptr;  // set: its value is the step's
  std::vector<v1::Payload> inputs;           // of the fragment
};

// What the graph does not say. Paths are as people see them: "codes[17].parse"; but where one
// fragment took the place of another, the earlier ones' steps lie below "codes[17].parse~0" and so
// on.
class Oracle {
 public:
  virtual ~Oracle() = default;
  // How the task step at `path` ends once all its attempts are over.
  virtual TaskEnd Task(const std::string& path, const v1::Step& step,
                       const std::vector<Datum>& inputs) = 0;
  // Where the steps of what the task at `path` went on as are to be found: their paths' beginning.
  virtual std::string FragmentPlace(const std::string& path) { return path + "."; }
  // What a step that waits for an event comes to.
  virtual Ending Event(const std::string& path, const v1::Step& step) = 0;
  // What a step that starts another execution, or sends it an event, comes to.
  virtual Ending Child(const std::string& path, const v1::Step& step,
                       const std::vector<Datum>& inputs) = 0;
  virtual Ending Emit(const std::string& path) = 0;
  // The failure that a catch clause of the step at `path` took. None: no clause of it ran.
  virtual std::optional<v1::Failure> Caught(const std::string& path) = 0;
  // How an operator had the step end, or an early join that needed it no more (skipped).
  virtual std::optional<Ending> Decreed(const std::string& path) = 0;
  // When the step or item at `path` completed, in any order-preserving figure. None: it did not.
  virtual std::optional<uint64_t> Completed(const std::string& path) = 0;
  // Likewise, when it was skipped.
  virtual std::optional<uint64_t> Skipped(const std::string& path) = 0;
  // Did the step or item at `path` fail, and was its failure tolerated?
  virtual bool Tolerated(const std::string& path) = 0;
};

// The definition must be valid and the inputs as many as it takes.
Ending Interpret(const v1::Definition& definition, const std::vector<v1::Payload>& inputs,
                 Oracle* oracle);

// For messages.
std::string TextOf(const Ending& ending);

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_REFERENCE_H_
