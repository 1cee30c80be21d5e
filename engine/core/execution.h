// One run of a workflow: its state, changed by Apply alone (core.h).
#ifndef FLUX_ENGINE_CORE_EXECUTION_H_
#define FLUX_ENGINE_CORE_EXECUTION_H_

#include <cstdint>
#include <memory>

#include "engine/core/graph.h"
#include "engine/core/run_id.h"
#include "flux/v1/record.pb.h"

namespace flux::engine {

namespace internal {
struct ExecutionState;
}

// The live state of one execution. Made by Create or LoadSnapshot (core.h), changed by Apply, asked
// through the accessors here and the questions of core.h. Movable, not copyable; a moved-from one
// may only be destroyed or assigned to. Not thread-safe: one shard's loop owns it. Memory is O(live
// steps), see MemoryBytes.
class Execution {
 public:
  explicit Execution(std::unique_ptr<internal::ExecutionState> state);
  Execution(Execution&&) noexcept;
  Execution& operator=(Execution&&) noexcept;
  ~Execution();

  // As recorded, inputs included.
  const v1::ExecutionStarted& started() const;
  const RunId& run() const;
  v1::ExecutionStatus status() const;
  // No more changes: completed, failed, cancelled, terminated or skipped.
  bool closed() const;
  // Number of records applied so far; the first record's is 1.
  uint64_t ordinal() const;
  int64_t start_time_ms() const;
  // Time of the newest record.
  int64_t last_time_ms() const;
  // 0 while open.
  int64_t close_time_ms() const;
  // The ordinal its next blob will get, from 1.
  uint64_t next_blob() const;
  const Graph& graph() const;
  const std::shared_ptr<const Graph>& graph_ptr() const;

  // For engine/core alone.
  internal::ExecutionState& state() { return *state_; }
  const internal::ExecutionState& state() const { return *state_; }

 private:
  std::unique_ptr<internal::ExecutionState> state_;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_EXECUTION_H_
