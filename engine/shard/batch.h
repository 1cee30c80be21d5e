// The body of one log entry under construction: a flux.v1.LogBatch, written field by field as
// commands are decided, so that a batch of thousands of records costs one buffer and no message
// objects.
#ifndef FLUX_ENGINE_SHARD_BATCH_H_
#define FLUX_ENGINE_SHARD_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/core/run_id.h"

namespace flux::engine {

// Rows are written in batches that end with the row that passes this; the store takes twice as
// much (store::kRowBatchBytesMax).
inline constexpr size_t kRowBatchTarget = 512 * 1024;

// Thread-compatible.
class BatchBuilder {
 public:
  // Appends one record of `run`; `ordinal` is its number in the run's history.
  void Add(const RunId& run, uint64_t ordinal, std::string_view record);
  // Records a payload written under its final key with this commit.
  void AddBlob(const RunId& run, uint64_t ordinal, uint64_t bytes);
  bool empty() const { return bytes_.empty(); }
  size_t size() const { return bytes_.size(); }
  std::string Take() { return std::exchange(bytes_, {}); }

 private:
  std::string bytes_;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_BATCH_H_
