// The registry of definitions: durable under their hash before anything names them (rule 14),
// compiled once and shared.
//
// Thread-safe. PutDefinition blocks on the disk and is called on handler threads, never on the
// loop. Compiled graphs are kept for good: definitions are few and small beside what they run.
#ifndef FLUX_ENGINE_SHARD_DEFINITIONS_H_
#define FLUX_ENGINE_SHARD_DEFINITIONS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/core/graph.h"
#include "flux/v1/workflow.pb.h"
#include "store/store.h"

namespace flux::engine {

// SHA-256 of a definition's deterministic serialisation; 32 bytes.
std::string DefinitionHash(const v1::Definition& definition);

class Definitions {
 public:
  // `epoch` is shard 0's: definitions lie in shard 0. `on_broken` is told, on the caller's thread,
  // when a failed write has left the store unusable: the process is to stop (rule 3).
  Definitions(store::Store* store, store::Epoch epoch, GraphLimits limits,
              std::function<void(absl::Status)> on_broken);

  // Reads the index of all definitions; graphs are compiled on first use. DataLoss: a damaged row.
  absl::Status Load();

  // Validates, stores and compiles. Idempotent. InvalidArgument as in Graph::Compile.
  absl::StatusOr<v1::PutDefinitionResponse> Put(const v1::Definition& definition, int64_t now_ms);

  // By hash. NotFound names it.
  absl::StatusOr<std::shared_ptr<const Graph>> ByHash(std::string_view hash);
  // The newest of the name (and version, if not empty). NotFound names what there is.
  absl::StatusOr<std::shared_ptr<const Graph>> ByName(std::string_view name,
                                                      std::string_view version);

  absl::StatusOr<v1::DefinitionSummary> Summary(std::string_view hash);
  // Newest first within a name; `name` empty: all. Pages by position.
  std::vector<v1::DefinitionSummary> List(std::string_view name) const;

 private:
  struct Entry {
    v1::DefinitionSummary summary;
    uint64_t sequence = 0;
    std::shared_ptr<const Graph> graph;  // null until first used
  };

  store::Store* const store_;
  const std::function<void(absl::Status)> on_broken_;
  const store::Epoch epoch_;
  const GraphLimits limits_;
  std::mutex put_mutex_;                             // one Put writes at a time
  mutable std::mutex mutex_;                         // not held while rows are read
  absl::flat_hash_map<std::string, Entry> by_hash_;  // guarded by mutex_
  // name → sequence → hash
  std::map<std::string, std::map<uint64_t, std::string>, std::less<>>
      by_name_;                 // guarded by mutex_
  uint64_t next_sequence_ = 1;  // guarded by mutex_
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_DEFINITIONS_H_
