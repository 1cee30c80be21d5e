// Before RocksDB opens: is every acknowledged byte of its logs there, and where does the torn tail
// begin?
#ifndef FLUX_STORE_RECOVERY_H_
#define FLUX_STORE_RECOVERY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/synced_marks.h"

namespace flux::store {

struct TailRecovery {
  bool create = false;             // there is no database yet, or only the beginnings of one
  uint64_t writes_dropped = 0;     // unacknowledged, torn or behind a torn one
  std::vector<std::string> notes;  // for the operator, a line each
};

// Checks the database directory against `marks`, cuts off a torn tail that was never acknowledged,
// and makes what is left durable. DataLoss: acknowledged bytes are damaged or missing, or it cannot
// be told whether they were acknowledged; the message names file and offset, and nothing has been
// changed. `accept_damaged_tail` drops a damaged last record of which that cannot be told.
absl::StatusOr<TailRecovery> RecoverTail(const std::string& db_path, SyncedMarks* marks,
                                         bool accept_damaged_tail);

// "000123.log" → 123, "MANIFEST-000005" → 5; 0: neither.
uint64_t WalNumber(std::string_view file_name);
uint64_t ManifestNumber(std::string_view file_name);

}  // namespace flux::store

#endif  // FLUX_STORE_RECOVERY_H_
