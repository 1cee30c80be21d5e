#include "store/recovery.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/bridge.h"
#include "store/failpoint.h"
#include "store/posix_file.h"
#include "store/wal_scan.h"

namespace flux::store {
namespace {

constexpr size_t kCurrentBytesMax = 256;
constexpr char kBackup[] = "restore the data directory from a backup";

struct DbFiles {
  std::map<uint64_t, std::string> wals;  // by number
  bool has_tables = false;
  bool has_current = false;
};

absl::StatusOr<DbFiles> ListFiles(const std::string& db_path) {
  DbFiles files;
  std::error_code error;
  const bool there = std::filesystem::exists(db_path, error);
  if (error) return ErrnoStatus(error.value(), "look at " + db_path);
  if (!there) return files;
  for (std::filesystem::directory_iterator entry(db_path, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (const uint64_t number = WalNumber(name); number != 0) {
      files.wals[number] = entry->path().string();
    }
    files.has_tables |= absl::EndsWith(name, ".sst");
    files.has_current |= name == "CURRENT";
  }
  if (error) return ErrnoStatus(error.value(), "list " + db_path);
  return files;
}

// The manifest must be whole as far as it was synced: RocksDB takes a cut one for complete.
absl::StatusOr<SyncedMark> CheckManifest(const std::string& db_path, const SyncedMark& mark) {
  FLUX_ASSIGN_OR_RETURN(std::string current, ReadFile(db_path + "/CURRENT", kCurrentBytesMax));
  const std::string name(absl::StripAsciiWhitespace(current));
  const uint64_t number = ManifestNumber(name);
  const std::string path = db_path + "/" + name;
  if (number == 0) {
    return absl::DataLossError(
        absl::StrCat(db_path, "/CURRENT is damaged: it names no manifest; ", kBackup));
  }
  absl::StatusOr<RecordFileScan> scan = ScanRecordFile(path);
  if (!scan.ok()) {
    return absl::DataLossError(absl::StrCat(scan.status().message(), "; ", kBackup));
  }
  // A newer manifest that was marked but not yet made current by the time of a crash says nothing
  // of this one.
  const uint64_t promised = number == mark.number ? mark.bytes : 0;
  if (scan->whole_bytes < promised) {
    return absl::DataLossError(
        absl::StrCat(path, " is damaged: ",
                     scan->end == RecordFileEnd::kClean ? "the file was cut short" : scan->problem,
                     ", but ", promised, " bytes of it had been written and synced; ", kBackup));
  }
  return SyncedMark{number, scan->whole_bytes};
}

// What to do about the end of one write-ahead log.
class TailJudge {
 public:
  TailJudge(const SyncedMarks::State& marks, uint64_t newest, bool accept_damaged_tail)
      : marks_(marks), newest_(newest), accept_damaged_tail_(accept_damaged_tail) {}

  // OK: the bytes past scan.whole_bytes go. True if nobody can tell whether they had been
  // acknowledged, and the operator accepts that.
  absl::StatusOr<bool> Judge(uint64_t number, const std::string& path,
                             const RecordFileScan& scan) const {
    if (marks_.known && number == marks_.wal.number && scan.whole_bytes < marks_.wal.bytes) {
      return Loss(path, scan, absl::StrCat(marks_.wal.bytes, " bytes of it had been acknowledged"));
    }
    if (scan.end == RecordFileEnd::kClean || scan.end == RecordFileEnd::kZeros) {
      return false;
    }
    if (marks_.known && number < marks_.wal.number) {
      return Loss(path, scan, "a newer log has been acknowledged after all of it");
    }
    // Nothing of a log newer than the mark was ever synced, and after a mere kill the mark is
    // exact.
    if (marks_.known && (marks_.same_boot || number > marks_.wal.number)) return false;
    if (number == newest_ && scan.end == RecordFileEnd::kCutShort) return false;
    if (number == newest_ && accept_damaged_tail_) return true;
    return Loss(path, scan,
                number == newest_
                    ? "whether that record had been acknowledged cannot be told. If the machine "
                      "lost power and you accept to lose it and what follows it, start once with "
                      "--accept-damaged-tail; otherwise"
                    : "a newer log follows it");
  }

 private:
  static absl::Status Loss(const std::string& path, const RecordFileScan& scan,
                           absl::string_view why) {
    return absl::DataLossError(absl::StrCat(
        path, " is damaged: ",
        scan.problem.empty() ? absl::StrCat("it ends at byte ", scan.bytes) : scan.problem, "; ",
        why, "; ", kBackup));
  }

  const SyncedMarks::State& marks_;
  const uint64_t newest_;
  const bool accept_damaged_tail_;
};

absl::Status CheckWalsThere(const DbFiles& files, const std::string& db_path,
                            const SyncedMarks::State& marks) {
  if (marks.known && marks.wal.bytes > 0 && !files.wals.contains(marks.wal.number)) {
    return absl::DataLossError(absl::StrCat(db_path, ": write-ahead log ", marks.wal.number,
                                            " is missing, and ", marks.wal.bytes,
                                            " bytes of it had been acknowledged; ", kBackup));
  }
  return absl::OkStatus();
}

// A database makes its first log after CURRENT: where one holds data without it, part of a
// directory is missing.
absl::Status CheckWalsEmpty(const DbFiles& files, const std::string& db_path) {
  for (const auto& [number, path] : files.wals) {
    std::error_code error;
    const uintmax_t bytes = std::filesystem::file_size(path, error);
    if (error) return ErrnoStatus(error.value(), "look at " + path);
    if (bytes == 0) continue;
    return absl::DataLossError(
        absl::StrCat(db_path, "/CURRENT is missing, but ", path, " holds ", bytes,
                     " bytes: copy the rest of the data directory as well if it was copied, or ",
                     kBackup, "; to begin with nothing, choose an empty directory"));
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t WalNumber(std::string_view file_name) {
  absl::string_view name = ToAbsl(file_name);
  uint64_t number = 0;
  if (!absl::ConsumeSuffix(&name, ".log") || !absl::SimpleAtoi(name, &number)) return 0;
  return number;
}

uint64_t ManifestNumber(std::string_view file_name) {
  absl::string_view name = ToAbsl(file_name);
  uint64_t number = 0;
  if (!absl::ConsumePrefix(&name, "MANIFEST-") || !absl::SimpleAtoi(name, &number)) return 0;
  return number;
}

absl::StatusOr<TailRecovery> RecoverTail(const std::string& db_path, SyncedMarks* marks,
                                         bool accept_damaged_tail) {
  TailRecovery recovery;
  FLUX_ASSIGN_OR_RETURN(DbFiles files, ListFiles(db_path));
  const SyncedMarks::State& found = marks->found();
  if (!files.has_current) {
    if (files.has_tables || (found.known && found.wal.number != 0)) {
      return absl::DataLossError(absl::StrCat(
          db_path, "/CURRENT is missing, but the database had been in use; ", kBackup));
    }
    FLUX_RETURN_IF_ERROR(CheckWalsEmpty(files, db_path));
    std::error_code error;
    std::filesystem::remove_all(db_path, error);
    if (!error) std::filesystem::create_directory(db_path, error);
    if (error) return ErrnoStatus(error.value(), "clear " + db_path);
    FLUX_RETURN_IF_ERROR(marks->Reset({}, {}));
    recovery.create = true;
    return recovery;
  }
  FLUX_ASSIGN_OR_RETURN(SyncedMark manifest, CheckManifest(db_path, found.manifest));
  FLUX_RETURN_IF_ERROR(CheckWalsThere(files, db_path, found));
  if (!found.known) {
    recovery.notes.push_back(
        "the SYNCED file was missing or unreadable: the logs' ends were judged without it");
  }

  // Everything is judged before anything is cut.
  const uint64_t newest = files.wals.empty() ? 0 : files.wals.rbegin()->first;
  const TailJudge judge(found, newest, accept_damaged_tail);
  std::map<uint64_t, RecordFileScan> scans;
  bool torn = false;
  for (const auto& [number, path] : files.wals) {
    FLUX_ASSIGN_OR_RETURN(RecordFileScan scan, ScanRecordFile(path));
    FLUX_ASSIGN_OR_RETURN(const bool accepted, judge.Judge(number, path, scan));
    if (torn) {
      // A log behind a torn one: had anything of it been synced, the older one would have been
      // synced before.
      if (found.known && number <= found.wal.number) {
        return absl::DataLossError(
            absl::StrCat(path, " follows a damaged write-ahead log; ", kBackup));
      }
      if (!found.known && scan.bytes > 0) {
        return absl::DataLossError(
            absl::StrCat(path, " follows a damaged write-ahead log; ", kBackup));
      }
      if (scan.records > 0) {
        recovery.writes_dropped += scan.records;
        recovery.notes.push_back(absl::StrCat("dropped ", scan.records,
                                              " unacknowledged writes of ", path,
                                              ", which follow a torn one"));
      }
      scan.whole_bytes = 0;
    } else if (scan.end == RecordFileEnd::kCutShort || scan.end == RecordFileEnd::kBad) {
      torn = true;
      ++recovery.writes_dropped;
      recovery.notes.push_back(absl::StrCat(
          "dropped the last ", scan.bytes - scan.whole_bytes, " bytes of ", path,
          accepted ? ", as accept-damaged-tail asks; whether they had been acknowledged cannot be "
                     "told ("
                   : ", a torn write that was never acknowledged (",
          scan.problem, ")"));
    }
    scans[number] = scan;
  }
  SyncedMark wal;
  for (const auto& [number, path] : files.wals) {
    const RecordFileScan& scan = scans[number];
    if (Failpoint::Hit("tail_cut")) return absl::UnavailableError("injected fault: tail_cut");
    // Also syncs what is left: nothing may rest on bytes that only the page cache holds.
    FLUX_RETURN_IF_ERROR(TruncateFile(path, scan.whole_bytes));
    wal = {number, scan.whole_bytes};
  }
  FLUX_RETURN_IF_ERROR(SyncDirectory(db_path));
  FLUX_RETURN_IF_ERROR(marks->Reset(wal, manifest));
  return recovery;
}

}  // namespace flux::store
