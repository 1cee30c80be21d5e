#include "store/failpoint.h"

#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "proto/bridge.h"

namespace flux::store {
namespace {

struct ArmedPoint {
  std::string name;
  uint64_t at = 0;  // the hit that acts, counted from 1
  uint64_t hits = 0;
  bool error = false;  // otherwise: kill
};

// Shared by every thread of the process; a failpoint is process-wide by nature.
struct Table {
  std::mutex mutex;
  std::vector<ArmedPoint> armed;
};

Table& GetTable() {
  static Table* table = new Table;  // never destroyed: hits may come from threads that outlive main
  return *table;
}

std::string NameList() {
  std::vector<absl::string_view> names;
  for (std::string_view name : Failpoint::Names()) names.push_back(ToAbsl(name));
  return absl::StrJoin(names, ", ");
}

absl::StatusOr<std::vector<ArmedPoint>> Parse(std::string_view specification) {
  std::vector<ArmedPoint> result;
  for (absl::string_view part :
       absl::StrSplit(ToAbsl(specification), ',', absl::SkipWhitespace())) {
    std::vector<std::string> fields = absl::StrSplit(part, ':');
    ArmedPoint armed;
    armed.name = fields[0];
    bool known = false;
    for (std::string_view name : Failpoint::Names()) known |= name == armed.name;
    if (!known) {
      return absl::InvalidArgumentError(
          absl::StrCat("failpoint '", armed.name, "' does not exist; there are ", NameList()));
    }
    if (fields.size() < 2 || fields.size() > 3 || !absl::SimpleAtoi(fields[1], &armed.at) ||
        armed.at == 0 || (fields.size() == 3 && fields[2] != "error")) {
      return absl::InvalidArgumentError(absl::StrCat(
          "failpoint '", part, "' is malformed; write NAME:N to be killed at the N-th hit, or ",
          "NAME:N:error to have it fail"));
    }
    armed.error = fields.size() == 3;
    result.push_back(std::move(armed));
  }
  return result;
}

}  // namespace

const std::vector<std::string_view>& Failpoint::Names() {
  static const auto* names = new std::vector<std::string_view>{
      "create_before_format",   // data directory: before its FORMAT file is written
      "create_after_format",    // FORMAT is there, the database is not
      "create_after_database",  // both are
      "append_before_write",    // a synced write that carries log entries
      "append_after_write",     // durable, not yet acknowledged
      "rows_before_write",      // an unsynced write of rows
      "rows_after_write",
      "write_sync_before_write",  // a synced write of rows
      "write_sync_after_write",
      "truncate_before_write",
      "truncate_after_write",
      "claim_before_write",
      "claim_after_write",
      "wal_write",          // before bytes are handed to the operating system; error: disk full
      "wal_write_torn",     // hands over the first half of the bytes, then acts
      "wal_sync",           // before fdatasync; error: the sync fails
      "mark_write",         // synced, before the note of how far is made
      "compaction_write",   // of a table; error: disk full
      "compaction_delete",  // a compaction's result stands, what it read is about to be deleted
      "manifest_write",     // before bytes of the database's list of its files are handed over
      "table_write",        // before bytes of a table file are
      "format_raise",       // an older directory: before its FORMAT file says the newest version
      "tail_cut",  // recovery: before a write-ahead log is cut behind its last whole record
  };
  return *names;
}

absl::Status Failpoint::Arm(std::string_view specification) {
  FLUX_ASSIGN_OR_RETURN(std::vector<ArmedPoint> parsed, Parse(specification));
  Table& table = GetTable();
  std::lock_guard<std::mutex> lock(table.mutex);
  table.armed = std::move(parsed);
  state_.store(table.armed.empty() ? kNothingArmed : kArmed, std::memory_order_relaxed);
  return absl::OkStatus();
}

void Failpoint::ReadEnvironment() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (state_.load(std::memory_order_relaxed) != kEnvironmentUnread) return;
    const char* environment = std::getenv("FLUX_FAILPOINT");
    absl::Status status = Arm(environment == nullptr ? "" : environment);
    if (!status.ok()) {
      std::fprintf(stderr, "FLUX_FAILPOINT: %s\n", std::string(status.message()).c_str());
      std::abort();
    }
  });
}

bool Failpoint::ArmedSlow(std::string_view name) {
  ReadEnvironment();
  Table& table = GetTable();
  std::lock_guard<std::mutex> lock(table.mutex);
  for (const ArmedPoint& armed : table.armed) {
    if (armed.name == name && armed.hits + 1 == armed.at) return true;
  }
  return false;
}

bool Failpoint::HitSlow(std::string_view name) {
  ReadEnvironment();
  Table& table = GetTable();
  std::lock_guard<std::mutex> lock(table.mutex);
  bool fail = false;
  for (ArmedPoint& armed : table.armed) {
    if (armed.name != name || ++armed.hits != armed.at) continue;
    if (!armed.error) {
      ::kill(::getpid(), SIGKILL);
      // The signal may be delivered to another thread first; nothing past this point may happen.
      for (;;) ::pause();
    }
    fail = true;
  }
  return fail;
}

}  // namespace flux::store
